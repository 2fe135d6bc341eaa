"""Sites as other people have them, each in its own process; see the modules in ``tests.sites``."""

import os
from collections.abc import Iterator

import pytest

from tests.support.pgbouncer import PGBOUNCER
from tests.support.processes import assert_promises_kept
from tests.with_postgresql import postgresql

needs_pgbouncer = pytest.mark.skipif(not PGBOUNCER.exists() and "CI" not in os.environ, reason="there is no PgBouncer")

PRODUCTION = [
    "mission",
    "per_site_cache_serves_everybody",
    "style_of_pages_has_the_nonce_of_their_policy",
    "four_visitors_with_expired_tokens_are_answered_at_once",
    "ten_refused_calls_that_raise_cause_one_renewal",
]
TENANTS = ["mission", "nobody_gets_the_token_of_another_tenant"]
STARTPROJECT = [
    "mission",
    "visitors_with_expired_tokens_are_answered_at_once",
    "sixteen_people_connect_beside_a_sweep",
]
SITES = {
    "startproject": STARTPROJECT,
    "startproject atomic": STARTPROJECT,
    "production": PRODUCTION,
    "production pgbouncer": PRODUCTION,
    "schemas": TENANTS,
    "routed": TENANTS,
    "uuid_users": ["mission", "deleted_member_leaves_no_token", "file_says_who_members_are"],
    "api": [
        "drf_mission",
        "ninja_mission",
        "token_counts_and_not_the_session_beside_it",
        "login_in_a_view_counts_at_once",
        "what_middleware_set_is_on_every_call",
    ],
}


@pytest.fixture(scope="module")
def environment() -> Iterator[dict[str, str]]:
    """The environment of the sites, with a PostgreSQL server and without the tests' own settings."""
    with postgresql() as url:
        own = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        yield {**own, "DATABASE_URL": url}


@pytest.mark.parametrize(
    "site", [pytest.param(site, marks=needs_pgbouncer if "pgbouncer" in site else ()) for site in SITES]
)
def test_site_keeps_its_promises(site: str, environment: dict[str, str]) -> None:
    assert_promises_kept(f"tests.sites.{site}", SITES[site], environment)

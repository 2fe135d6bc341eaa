"""The upgrade from version 1.0.0. Its own code filled the database, and wrote down the SQL that it sends later.

``tests/support/upgrade`` has both, and says how they were made. Users are named after what happened to their token.
"""

import hashlib
import json
import re
from base64 import urlsafe_b64encode
from datetime import timedelta
from typing import Any

import pytest
from cryptography.fernet import Fernet, MultiFernet
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.urls import reverse

from airisk_oauth import AIRiskSession
from airisk_oauth.exceptions import ConnectionRequired
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sealing import FORMATS, key_id
from tests.support import airisk as airisk_server
from tests.support.admin import identity_page, token_page
from tests.support.airisk import AIRisk
from tests.support.browsing import connect
from tests.support.commands import refresh_json
from tests.support.database import committing, quoted
from tests.support.losses import told
from tests.support.options import set_option
from tests.support.stored import rows_of_flows_and_tokens
from tests.support.upgrade import rows
from tests.support.upgrade.rows import Copy, Site

pytestmark = committing

STATUSES = {
    "valid_derived_key": "live",
    "valid_second_deployment": "live",
    "valid_old_key": "live",
    "valid_new_key": "live",
    "without_expiry": "live",
    "refused_though_renewed": "live",
    "connecting": "live",
    "just_connected": "live",
    "renewed_by_staff": "live",
    "expired": "ended",
    "being_renewed": "ended",
    "refused": "reconnect",
    "needs_person": "reconnect",
    "unavailable": "failing",
    "invalid_answer": "failing",
}
VALID = [username for username, status in STATUSES.items() if status == "live"]
TO_RENEW = [username for username, status in STATUSES.items() if status != "live"]


@pytest.fixture(scope="module")
def server() -> AIRisk:
    return airisk_server.start()


@pytest.fixture
def airisk(transactional_db: None, settings: Any, server: AIRisk) -> AIRisk:
    """Both deployments answered by one small AIRisk."""
    for alias in settings.AIRISK_OAUTH:
        set_option(settings, alias, BASE_URL=server.url)
    server.refuses = False
    for seen in (server.granted, server.calls, server.codes, server.tokens):
        seen.clear()
    return server


def upgraded(settings: Any, airisk: AIRisk, age: timedelta) -> Site:
    """Upgrade a database that version 1.0.0 filled so long ago, for an AIRisk that knows its tokens."""
    try:
        site = rows.load(age)
    finally:
        # Even if that failed, the next test needs the tables of this version.
        rows.migrate()
    adopt(site, settings, airisk)
    return site


def adopt(site: Site, settings: Any, airisk: AIRisk) -> None:
    for name, value in site.settings.items():
        setattr(settings, name, value)
    accept(airisk, site.access_tokens)


def accept(airisk: AIRisk, access_tokens: dict[int, str]) -> None:
    userids = dict(AIRiskToken.objects.values_list("pk", "userid"))
    airisk.tokens.update({token: userids[pk] for pk, token in access_tokens.items()})


@pytest.fixture(scope="module")
def copies() -> list[Copy]:
    return []


@pytest.fixture
def site(settings: Any, airisk: AIRisk, copies: list[Copy]) -> Site:
    if not copies:
        site = upgraded(settings, airisk, timedelta(minutes=1))
        copies.append(Copy(site))
        return site
    site = copies[0].restore()
    adopt(site, settings, airisk)
    return site


def access_tokens() -> dict[int, str]:
    return {token.pk: token.access_token for token in AIRiskToken.objects.exclude(sealed="")}


def token_of(username: str | None) -> AIRiskToken:
    token: AIRiskToken = AIRiskToken.objects.exclude(sealed="").get(user__username=username)
    return token


def call(username: str) -> int:
    """Call AIRisk as this user, and return the status."""
    token = token_of(username)
    with AIRiskSession.for_user(token.user, token.deployment) as session:
        return session.get("/api/GetConversations").status_code


def browser_of(site: Site, name: str) -> Client:
    """The browser of somebody who signed in before the upgrade."""
    browser = Client()
    browser.cookies["sessionid"] = site.browsers[name].session
    return browser


def statuses_in_admin(staff: Client) -> dict[str, str]:
    page = staff.get(token_page("changelist")).content.decode()
    # A row of the list begins with a link to the user.
    return dict(re.findall(r'/change/">(\w+)</a>(?:(?!<tr).)*? airisk-(\w+)"', page, re.DOTALL))


# Nothing is lost


def test_upgrade_keeps_every_row(site: Site, airisk: AIRisk) -> None:
    now = rows.all_rows()
    for label, before in rows.stored(site.moved_by).items():
        assert [{name: after[name] for name in row} for row, after in zip(before, now[label], strict=True)] == before
    origins = set(AIRiskToken.objects.exclude(sealed="").values_list("origin", flat=True))
    assert origins == {f"http://127.0.0.1:{airisk.server_port}"}


def test_upgraded_tokens_open(site: Site) -> None:
    assert len(site.access_tokens) == 16
    assert access_tokens() == site.access_tokens


@pytest.mark.parametrize("username", VALID)
def test_upgraded_token_is_used_while_it_is_valid(site: Site, airisk: AIRisk, username: str) -> None:
    assert call(username) == 200
    assert [made.userid for made in airisk.calls] == [f"userid-of-{username}"]
    assert airisk.granted == []


def test_upgraded_application_token_is_used(site: Site, airisk: AIRisk) -> None:
    with AIRiskSession.for_application() as session:
        assert session.get("/api/GetConversations").status_code == 200
    with AIRiskSession.for_application("second") as session:
        assert session.get("/api/GetConversations").status_code == 200
    # The second deployment's row was there and had no token yet.
    assert airisk.granted == [""]
    assert AIRiskToken.objects.filter(user=None).count() == 2


@pytest.mark.parametrize("username", TO_RENEW)
def test_upgraded_token_is_renewed_by_next_call(site: Site, airisk: AIRisk, username: str) -> None:
    assert call(username) == 200
    assert airisk.granted == [f"userid-of-{username}"]
    renewed = token_of(username)
    assert (renewed.failure_kind, renewed.failure_count, renewed.lease) == ("", 0, None)


def test_refresh_renews_upgraded_tokens(site: Site, airisk: AIRisk) -> None:
    status, report = refresh_json()
    assert (status, report["renewed"]) == (0, len(TO_RENEW))
    assert set(airisk.granted) == {f"userid-of-{username}" for username in TO_RENEW}
    status, report = refresh_json(all=True)
    assert (status, report["renewed"]) == (0, len(site.access_tokens))


def test_sweep_skips_token_leased_by_1_0_0(settings: Any, airisk: AIRisk) -> None:
    upgraded(settings, airisk, timedelta(0))
    refresh_json(all=True)
    assert set(airisk.granted) >= {"userid-of-expired", "userid-of-valid_new_key"}
    assert "userid-of-being_renewed" not in airisk.granted


@pytest.mark.parametrize("drop_derived", [False, True])
def test_reseal_moves_old_tokens_to_newest_key(site: Site, drop_derived: bool) -> None:
    newest = key_id(FORMATS[0], site.settings["AIRISK_OAUTH_ENCRYPTION_KEYS"][0])
    assert len(set(AIRiskToken.objects.exclude(sealed="").values_list("key_id", flat=True))) == 3
    call_command("reseal_airisk_tokens", drop_derived=drop_derived)
    assert set(AIRiskToken.objects.exclude(sealed="").values_list("key_id", flat=True)) == {newest}
    assert access_tokens() == site.access_tokens


def test_migrating_again_corrects_the_base_url(settings: Any, airisk: AIRisk) -> None:
    """As ``docs/upgrading.md`` says; until then no token is sent to an address that did not issue it."""
    set_option(settings, "default", BASE_URL="https://wrong.example.com")
    upgraded(settings, airisk, timedelta(minutes=1))
    set_option(settings, "default", BASE_URL=airisk.url)
    with pytest.raises(ConnectionRequired):
        call("valid_new_key")
    call_command("migrate", *rows.LAST, verbosity=0)
    call_command("migrate", verbosity=0)
    assert call("valid_new_key") == 200


def test_losses_from_before_are_no_news(site: Site, airisk: AIRisk) -> None:
    """What needed a person under version 1.0.0 is announced when it works again, and only what is lost now as lost."""
    before = {token_of(username).user_id for username in ("refused", "needs_person")}
    airisk.refuses = True
    with told() as announced:
        refresh_json(all=True)
    users = set(AIRiskToken.objects.exclude(user=None).values_list("user_id", flat=True))
    assert {user_id for _what, user_id in announced} == (users | {None}) - before
    assert {what for what, _user_id in announced} == {"lost"}
    airisk.refuses = False
    with told() as announced:
        refresh_json(all=True)
    assert {user_id for _what, user_id in announced} == users | {None}
    assert {what for what, _user_id in announced} == {"restored"}


# The admin


@pytest.fixture
def staff(site: Site) -> Client:
    return browser_of(site, "staff")


def test_admin_shows_status_of_upgraded_tokens(staff: Client) -> None:
    assert statuses_in_admin(staff).items() >= STATUSES.items()


@pytest.mark.parametrize(
    ("username", "words"),
    [
        ("refused", ["refused by AIRisk", "401", "Unauthorized"]),
        ("needs_person", ["AIRisk requires a sign-in"]),
        ("unavailable", ["AIRisk unavailable"]),
        ("invalid_answer", ["unusable response"]),
    ],
)
def test_admin_shows_failures_from_before(staff: Client, username: str, words: list[str]) -> None:
    token = token_of(username)
    assert bool(token.failure_trace_id) == (username == "refused")
    for page in (token_page("changelist"), token_page("change", token.pk)):
        shown = staff.get(page).content.decode()
        assert all(word in shown for word in [*words, token.failure_trace_id])


def test_admin_shows_history_from_before(staff: Client) -> None:
    entered = User.objects.get(username="entered_by_staff")
    [identity] = entered.airisk_identities.all()
    history = staff.get(identity_page("history", identity.pk)).content.decode()
    assert "Added." in history
    assert "Changed Userid." in history
    renewed = token_of("renewed_by_staff")
    assert "Renewed by hand." in staff.get(token_page("history", renewed.pk)).content.decode()
    recent = staff.get(reverse("admin:index")).content.decode()
    assert f'<a href="{token_page("change", renewed.pk)}">' in recent
    assert "userid-of-disconnected_by_staff (default)" in recent


@pytest.mark.parametrize(
    "link",
    [
        "airisktoken/",
        "airisktoken/?state=live",
        "airisktoken/?state=reconnect&deployment=default",
        "airisktoken/?deployment=second",
        "airisktoken/?q=expired",
        "airisktoken/?o=-3.1",
        "airisktoken/?all=&p=1",
        "airisktoken/1/change/",
        "airisktoken/1/change/?_changelist_filters=state%3Dlive",
        "airisktoken/1/history/",
        "airisktoken/1/delete/",
        "airiskidentity/?deployment=default&q=userid-of-expired",
        "airiskidentity/1/change/",
        "airiskidentity/1/history/",
        "airiskidentity/add/",
    ],
)
def test_old_links_into_admin_work(staff: Client, link: str) -> None:
    assert staff.get(f"/admin/airisk_oauth/{link}", follow=True).status_code == 200


# Flows under way


@pytest.mark.parametrize("name", ["connecting", "just_connected", "connecting_failed"])
def test_flow_begun_before_has_to_start_again(site: Site, airisk: AIRisk, name: str) -> None:
    browser, callback = browser_of(site, name), site.browsers[name].callback
    before = rows_of_flows_and_tokens()
    response = browser.get(callback)
    assert response.status_code == 403
    assert f'href="{reverse("airisk_oauth:connection")}"' in response.content.decode()
    assert (rows_of_flows_and_tokens(), airisk.granted) == (before, [])
    assert connect(browser).status_code == 302
    assert airisk.granted == [f"userid-of-{name}"]
    assert call(name) == 200


# Both versions at once


def test_1_0_0_can_use_the_upgraded_database(settings: Any, airisk: AIRisk) -> None:
    """What it sends there is carried out, and what it stores there is used by this version."""
    if not connection.features.can_return_columns_from_insert:
        pytest.skip("recorded on MariaDB; MySQL does not know RETURNING")
    site = upgraded(settings, airisk, rows.USED_AFTER + timedelta(minutes=1))
    use = rows.use_of_1_0_0()
    connecting = [quoted(sql) for sql, _params in use.statements["connect"]]
    assert [sql.partition(" (")[0] for sql in connecting if "INSERT" in sql and "origin" not in sql] == [
        'INSERT INTO "airisk_oauth_pendingauthorization"',
        'INSERT INTO "airisk_oauth_airisktoken"',
    ]
    rows.replay(use, site)
    assert access_tokens() == use.access_tokens != site.access_tokens
    accept(airisk, use.access_tokens)
    # Stored anew, so that only version 1.0.0 knows who issued it.
    newcomer = token_of("never_connected")
    assert newcomer.origin == ""
    for username in ("never_connected", "refused", "expired", "renewed_by_staff"):
        assert call(username) == 200
    assert (airisk.granted, len(airisk.calls)) == ([], 4)
    statuses = statuses_in_admin(browser_of(site, "staff"))
    assert statuses.pop("invalid_answer") == "failing"
    assert set(statuses.values()) == {"live"}
    assert refresh_json(all=True)[0] == 0
    assert token_of("never_connected").origin == f"http://127.0.0.1:{airisk.server_port}"


def read_as_1_0_0(token: AIRiskToken, keys: list[str]) -> Any:
    return json.loads(MultiFernet([Fernet(key) for key in keys]).decrypt(token.sealed))


def test_1_0_0_can_read_what_this_version_stores(site: Site, airisk: AIRisk, settings: Any) -> None:
    """Opened by what version 1.0.0 documents about its format, without code of ours."""
    derived = HKDF(SHA256(), length=32, salt=None, info=b"airisk_oauth.sealing.1").derive(settings.SECRET_KEY.encode())
    keys = [*settings.AIRISK_OAUTH_ENCRYPTION_KEYS, urlsafe_b64encode(derived).decode()]
    ids = {hashlib.sha256(b"airisk_oauth.sealing.1" + key.encode()).hexdigest()[:12] for key in keys}
    browser = Client()
    browser.force_login(User.objects.get(username="never_connected"))
    assert connect(browser).status_code == 302
    refresh_json(all=True)
    airisk.refuses = True
    refresh_json(all=True)
    for token in AIRiskToken.objects.exclude(sealed=""):
        owner = [token.deployment, None if token.user_id is None else str(token.user_id), token.userid]
        assert read_as_1_0_0(token, keys)[:-1] == owner
        assert airisk.tokens[read_as_1_0_0(token, keys)[-1]] == token.userid
        assert token.key_id in ids
        assert (token.failure_kind, token.lease) == ("refused", None)

"""Metrics, read as Prometheus reads them: through OpenTelemetry's real SDK and its exporter."""

import importlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext

from airisk_oauth import AsyncAIRiskClient, events, metrics
from airisk_oauth.exceptions import AIRiskError
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens.status import Status
from tests.support import pages
from tests.support.commands import refresh
from tests.support.database import committing, database_away
from tests.support.metrics import Scrapes, instrumented
from tests.support.options import set_option, trouble
from tests.support.pages import snippet, text_of
from tests.support.people import connected_users, credential, give_token, renew_token

pytestmark = pytest.mark.django_db
RENEWALS = "airisk_renewals_total"
DURATION = "airisk_renewal_duration_seconds"
PAGE = "docs/monitoring.md"
REPLAYS = "airisk_call_replays_total"
LOST = "airisk_connections_lost_total"


@pytest.fixture
def scrapes() -> Iterator[Scrapes]:
    with instrumented() as scrapes:
        yield scrapes


def fail_to_renew(user: User) -> None:
    with pytest.raises(AIRiskError):
        renew_token(user)


def test_renewals_of_calls_are_counted(scrapes: Scrapes, airisk: World, mia: User, settings: Any) -> None:
    credential()
    give_token(mia, ends_in=-60)
    credential(mia)
    airisk.switches.outage = True
    fail_to_renew(mia)
    airisk.reset()
    trouble(airisk, settings, "unknown client")
    fail_to_renew(mia)
    counted = {labels: value for (name, labels), value in scrapes.samples().items() if name == RENEWALS}
    assert {tuple(sorted(labels)): value for labels, value in counted.items()} == {
        (("airisk_deployment", "default"), ("airisk_outcome", "renewed")): 2,
        (
            ("airisk_deployment", "default"),
            ("airisk_outcome", "unavailable"),
            ("error_type", "AIRiskUnavailable"),
        ): 1,
        (("airisk_deployment", "default"), ("airisk_outcome", "refused"), ("error_type", "AIRiskRefused")): 1,
    }


def test_renewals_of_a_sweep_are_counted(scrapes: Scrapes, airisk: World) -> None:
    connected_users(3)
    AIRiskToken.objects.filter(user__username="default-2").update(userid="default-2")
    assert refresh()[0] == 0
    assert scrapes.value(RENEWALS, deployment="default", outcome="renewed") == 3
    airisk.switches.outage = True
    assert refresh(all=True)[0] == 1
    assert scrapes.value(RENEWALS, deployment="default", outcome="unavailable") == 3


def test_duration_of_renewals_is_in_seconds(scrapes: Scrapes, airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.latency = 1
    credential(mia)
    assert scrapes.value(f"{DURATION}_count", deployment="default", outcome="renewed") == 1
    assert 1 <= scrapes.value(f"{DURATION}_sum", deployment="default") < 30
    bounds = {dict(labels).get("le") for name, labels in scrapes.samples() if name == f"{DURATION}_bucket"}
    assert bounds == {*(str(bound) for bound in metrics.BUCKETS), "+Inf"}


def test_calls_sent_again_are_counted(scrapes: Scrapes, api_client: Any, airisk: World) -> None:
    api_client.get("/api/Chat/ListAgents")
    assert scrapes.value(REPLAYS) == 0
    airisk.end_all_tokens()
    api_client.get("/api/Chat/ListAgents")
    assert scrapes.value(REPLAYS, deployment="default", http_response_status_code="200") == 1
    api_client.get("/api/Answer", params={"status": 401})
    assert scrapes.value(REPLAYS, http_response_status_code="401") == 1


def test_lost_connections_are_counted_once(scrapes: Scrapes, airisk: World, mia: User, settings: Any) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.refuse = True
    for _again in range(2):
        fail_to_renew(mia)
    assert scrapes.value(LOST, deployment="default") == 1


def test_no_label_names_a_user(api_client: Any, airisk: World, mia: User) -> None:
    with instrumented(tokens=True) as scrapes:
        airisk.end_all_tokens()
        api_client.get("/api/Chat/ListAgents")
        airisk.switches.refuse = True
        fail_to_renew(mia)
        refresh(all=True)
        labels = {key for _name, found in scrapes.samples() for key, _value in found} - {"le"}
        assert labels == {
            "airisk_deployment",
            "airisk_outcome",
            "airisk_status",
            "error_type",
            "http_response_status_code",
        }
        assert "user_42" not in scrapes.text()


# Tokens by status


def test_tokens_are_reported_by_status(airisk: World, mia: User, settings: Any) -> None:
    set_option(settings, USERID="tests.support.resolvers.by_name")
    connected_users(2, ends_in=3600)
    connected_users(1, ends_in=60)
    connected_users(3, "second", ends_in=-60)
    with instrumented(tokens=True) as scrapes:
        reported = {status: scrapes.value("airisk_tokens", deployment="default", status=status) for status in words()}
        assert {status: number for status, number in reported.items() if number} == {"valid": 2, "expires_soon": 1}
        assert scrapes.value("airisk_tokens", deployment="second", status="expired") == 3
        samples = [labels for name, labels in scrapes.samples() if name == "airisk_tokens"]
        assert len(samples) == 2 * len(Status), "A series ends at 0."


def words() -> list[str]:
    return [status.name.lower() for status in Status]


def test_tokens_are_counted_only_when_asked_for(scrapes: Scrapes, mia: User) -> None:
    give_token(mia)
    with CaptureQueriesContext(
        connection,
    ) as queries:
        assert scrapes.value("airisk_tokens") == 0
    assert not queries.captured_queries


def test_tokens_are_counted_once_a_minute(mia: User) -> None:
    give_token(mia)
    with instrumented(tokens=True) as scrapes:
        assert scrapes.value("airisk_tokens") == 1
        AIRiskToken.objects.all().delete()
        with CaptureQueriesContext(connection) as queries:
            assert scrapes.value("airisk_tokens") == 1
        assert not queries.captured_queries
    give_token(mia)
    with instrumented(tokens=True, tokens_every=0) as scrapes:
        AIRiskToken.objects.all().delete()
        assert scrapes.value("airisk_tokens") == 0


def test_database_failure_leaves_the_counters(airisk: World, mia: User, caplog: pytest.LogCaptureFixture) -> None:
    with instrumented(tokens=True, tokens_every=0) as scrapes:
        credential()
        with database_away("SELECT", 2):
            assert scrapes.value(RENEWALS) == 1
        assert "airisk.tokens" in caplog.text
        assert scrapes.value("airisk_tokens", status="valid") == 1


@committing
def test_exporter_keeps_no_connection_open(mia: User) -> None:
    """It reads in a thread of its own, whose connections Django does not close."""
    open_afterwards: list[bool] = []
    give_token(mia)
    with instrumented(tokens=True) as scrapes:

        def read() -> None:
            assert scrapes.value("airisk_tokens") == 1
            open_afterwards.append(connection.connection is not None)

        thread = Thread(target=read)
        thread.start()
        thread.join()
    assert open_afterwards == [False]


# The page


def test_page_lists_exactly_the_metrics(api_client: Any, airisk: World, mia: User) -> None:
    rows = re.findall(r"^\| `(airisk\.[\w.]+)` \| `(\w+)` \| ([^|]+) \|", text_of(PAGE), re.MULTILINE)
    labels = [re.findall("`([a-z._]+)`", row[2]) for row in rows]
    same = labels[0]
    documented = {name: set(found or same) for (_otel, name, _labels), found in zip(rows, labels, strict=True)}
    with instrumented(tokens=True) as scrapes:
        airisk.end_all_tokens()
        api_client.get("/api/Chat/ListAgents")
        airisk.switches.refuse = True
        fail_to_renew(mia)
        found: dict[str, set[str]] = {}
        for name, has in scrapes.samples():
            family = re.sub("_(bucket|count|sum|created)$", "", name)
            found.setdefault(family, set()).update({key for key, _value in has} - {"le"})
    found = {name: labels for name, labels in found.items() if f"{name}_total" not in found}
    assert found == {name: {label.replace(".", "_") for label in labels} for name, labels in documented.items()}
    for otel, name, _labels in rows:
        assert name.startswith(otel.replace(".", "_"))
    [statuses] = re.findall(r"stored tokens by status: (.+?), \[as in", text_of(PAGE))
    assert re.findall(r"`(\w+)`", statuses) == words()


APPS = """
import django, logging, urllib.request
from django.conf import settings
settings.configure(
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "airisk_oauth", "mysite.apps.MySiteConfig"],
    USE_TZ=True,
)
django.setup()
from airisk_oauth import events
from prometheus_client import REGISTRY
assert events.occurred.has_listeners()
logger = logging.getLogger("airisk_oauth.renewal")
events.log(logger, logging.DEBUG, "renewal.finished", "", deployment="a", outcome="renewed", duration=1)
print(urllib.request.urlopen("http://127.0.0.1:9464/metrics").read().decode())
"""


def test_snippets_of_the_page_serve_metrics(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite" / "__init__.py").touch()
    (tmp_path / "mysite" / "apps.py").write_text(snippet(PAGE, "MySiteConfig"), encoding="utf-8")
    code = APPS.replace("django.setup()\n", "django.setup()\n" + snippet(PAGE, "start_http_server"))
    done = subprocess.run(
        [sys.executable, "-c", code.replace("9464", port)],
        env={**os.environ, "PYTHONPATH": f"{pages.ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r'^airisk_renewals_total{.*airisk_deployment="a".*} 1\.0$', done.stdout, re.MULTILINE)


# Switched on and off


def test_second_call_does_not_count_twice(scrapes: Scrapes, airisk: World) -> None:
    metrics.instrument()
    metrics.uninstrument()
    with instrumented() as again:
        metrics.instrument()
        credential()
        assert again.value(RENEWALS) == 0, "The global provider was asked for last."
    assert not events.occurred.has_listeners()


def test_missing_api_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry.metrics", None)
    monkeypatch.delitem(sys.modules, "airisk_oauth.metrics")
    with pytest.raises(ImportError, match=re.escape("pip install 'django-airisk-oauth[opentelemetry]'")):
        importlib.import_module("airisk_oauth.metrics")


WITHOUT = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
import django
django.setup()
import airisk_oauth.models, airisk_oauth.tokens.sweep, airisk_oauth.client.sessions
print(*sorted(name for name in sys.modules if name.startswith(("opentelemetry", "airisk_oauth.metrics"))))
"""


def test_site_without_metrics_imports_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], cwd=pages.ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_async_renewals_are_counted(scrapes: Scrapes, airisk: World, mia: User) -> None:
    give_token(mia, ends_in=-60)

    async def call() -> None:
        async with AsyncAIRiskClient.for_user(mia) as client:
            await client.get("/api/Chat/ListAgents")

    async_to_sync(call)()
    assert scrapes.value(RENEWALS, outcome="renewed") == 1

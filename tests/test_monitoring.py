"""What an operator sees: docs/monitoring.md, held against what happens, and its snippets run."""

import json
import logging
import os
import re
import secrets
import shlex
import socket
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, get_args
from urllib.parse import parse_qs, urlsplit
from uuid import UUID

import pytest
import requests
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.dispatch import Signal
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from opentelemetry import trace
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.requests import RequestsInstrumentor
from opentelemetry.instrumentation.urllib3 import URLLib3Instrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import REGISTRY

from airisk_oauth import AIRiskSession, conf, events, signals
from airisk_oauth.exceptions import AIRiskError, AIRiskUnavailable
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import World
from tests.support import pages
from tests.support.browsing import authorize, connect, start
from tests.support.commands import refresh, refresh_json
from tests.support.database import committing, database_away
from tests.support.functions import name_deployments, time_passes
from tests.support.options import set_option, trouble
from tests.support.people import connected_users, credential, give_token, live_token, renew_token
from tests.support.threads import attempt

snippet = partial(pages.snippet, "docs/monitoring.md")
NOBODY = "http://127.0.0.1:9"
pytestmark = pytest.mark.django_db


# The log


def test_sweep_without_the_keys_says_so_once(
    mia: User, airisk: World, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    token = give_token(mia, ends_in=60)
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [Fernet.generate_key().decode()]
    for _run in range(2):
        refresh(deployment="default")
    found = [record for record in caplog.records if getattr(record, "event", "") == "token.unreadable"]
    assert [record.token_id for record in found] == [token.pk]  # type: ignore[attr-defined]


def connect_and_disconnect(browser: Client, mia: User, airisk: World, settings: Any) -> None:
    connect(browser)
    browser.post(reverse("airisk_oauth:disconnect"))


def come_back_in_vain(browser: Client, mia: User, airisk: World, settings: Any) -> None:
    browser.get(authorize(start(browser)).replace("code=", "code=x"))
    Client().get(authorize(start(browser)))


def renew(browser: Client, mia: User, airisk: World, settings: Any) -> None:
    credential()
    give_token(mia, ends_in=-60)
    credential(mia)


def renew_in_vain(browser: Client, mia: User, airisk: World, settings: Any) -> None:
    give_token(None, ends_in=200)
    trouble(airisk, settings, "unknown client")
    credential()
    set_option(settings, BASE_URL=NOBODY)
    give_token(mia, ends_in=-60)
    assert isinstance(attempt(partial(credential, mia)), AIRiskUnavailable)


def lose_the_key(browser: Client, mia: User, airisk: World, settings: Any) -> None:
    give_token(mia)
    settings.SECRET_KEY = Fernet.generate_key().decode()
    assert isinstance(attempt(partial(credential, mia)), AIRiskError)


def sweep(browser: Client, mia: User, airisk: World, settings: Any) -> None:
    connected_users(2)
    with database_away("UPDATE", 1):
        assert refresh()[0] == 0
    User.objects.filter(username="default-1").update(last_name="Faulty")
    set_option(settings, USERID="tests.support.resolvers.by_name")
    other = AIRiskToken.objects.filter(user__username="default-2")
    other.update(userid="somebody_else")
    assert refresh(all=True)[0] == 1
    other.update(userid="default-2")
    trouble(airisk, settings, "unknown client")
    assert [refresh(all=True)[0] for _run in range(2)] == [1, 1]


def write_in_vain(browser: Client, mia: User, airisk: World, settings: Any) -> None:
    give_token(mia, ends_in=-60)
    with database_away("UPDATE", 1):
        credential(mia)


def lose_and_recover(browser: Client, mia: User, airisk: World, settings: Any) -> None:
    settings.AIRISK_OAUTH_NOTIFY = {"users": True}
    User.objects.update(email="mia@example.com\nBcc: everybody@example.com")
    give_token(mia, ends_in=-60)
    trouble(airisk, settings, "refuse")
    attempt(partial(credential, mia))
    airisk.reset()
    browser.get(authorize(start(browser)))


def call_the_api(browser: Client, mia: User, airisk: World, settings: Any) -> None:
    live_token(airisk, mia)
    airisk.end_all_tokens()
    with AIRiskSession.for_user(mia) as session:
        session.get("/api/Chat/ListAgents")


def fail_a_function(browser: Client, mia: User, airisk: World, settings: Any) -> None:
    function = name_deployments(settings, LookupError())
    assert conf.known_aliases() == []
    function.returns = {}
    with pytest.MonkeyPatch.context() as patch:
        time_passes(patch)
        assert conf.aliases() == []


FLOWS = (
    call_the_api,
    connect_and_disconnect,
    come_back_in_vain,
    renew,
    renew_in_vain,
    lose_the_key,
    write_in_vain,
    sweep,
    lose_and_recover,
    fail_a_function,
)


@committing
def test_log_has_exactly_the_documented_events(
    browser: Client, mia: User, airisk: World, settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    rows = re.findall(r"^\| `([\w.]+)` \| ([A-Z]+) \| (`.+?`) \|", pages.text_of("docs/monitoring.md"), re.MULTILINE)
    documented = {event: (level, set(fields.strip("`").split("` `"))) for event, level, fields in rows}
    standard = {*logging.makeLogRecord({}).__dict__, "message", "asctime"}
    logged: dict[str, tuple[str, set[str]]] = {}
    least: dict[str, int] = defaultdict(lambda: logging.CRITICAL)
    caplog.set_level(logging.DEBUG, logger="airisk_oauth")
    caplog.set_level(logging.DEBUG, logger="airisk_oauth.calls")
    for each in FLOWS:
        given, key = settings.AIRISK_OAUTH, settings.SECRET_KEY
        each(browser, mia, airisk, settings)
        settings.AIRISK_OAUTH, settings.SECRET_KEY = given, key
        airisk.reset()
        del settings.AIRISK_OAUTH_SANDBOX_CLIENTS
        AIRiskToken.objects.all().delete()
    for record in caplog.records:
        if record.name.startswith("airisk_oauth"):
            event = record.__dict__["event"]
            least[event] = min(least[event], record.levelno)
            fields = {*record.__dict__} - standard - {"event"}
            logged[event] = logging.getLevelName(least[event]), logged.get(event, ("", set()))[1] | fields
    assert logged == documented
    assert {*documented} == {*get_args(events.Event)}
    log = pages.text_of("docs/monitoring.md").split("## Signals")[0]
    explained = set(
        re.findall(r"`(\w+)`", "".join(re.findall(r"^\| (`.+?) \|", log.split("| field | |")[1], re.MULTILINE)))
    )
    assert explained >= set().union(*(fields for _level, fields in documented.values()))
    loggers = {record.name for record in caplog.records if record.name.startswith("airisk_oauth")}
    assert loggers == set(re.findall(r"`(airisk_oauth\.[a-z]+)`", log))


def run_script(folder: Path, code: str, *arguments: str, given: str = "", **environment: str) -> str:
    """Run this in its own process, which it may change as it likes, and return what it printed on either way."""
    script = folder / "script.py"
    script.write_text(code, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, script, *arguments],
        input=given,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{pages.ROOT}{os.pathsep}{folder}", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


LOG = """
import logging.config
from uuid import UUID
from airisk_oauth.events import log
from airisk_oauth.exceptions import AIRiskRefused

logging.config.dictConfig(LOGGING)
refused = AIRiskRefused(401, "Unauthorized", "00-676e-00")
for name in ("renewal", "transport"):
    logger = logging.getLogger(f"airisk_oauth.{name}")
    log(logger, logging.DEBUG, "oauth.called", "in %(duration)s s", duration=0.25)
    log(logger, logging.WARNING, "connection.failed", "%(why)s", why=refused, user_id=UUID(int=1), deployment="default")
try:
    raise LookupError
except LookupError:
    logger.exception("A site's own.")
"""


def test_log_as_json_has_the_fields(tmp_path: Path) -> None:
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite" / "logs.py").write_text(snippet("class JSONFormatter"), encoding="utf-8")
    configuration = snippet("LOGGING = ") + snippet('["airisk_oauth.calls"] = ')
    lines = [json.loads(line) for line in run_script(tmp_path, configuration + LOG).splitlines()]
    assert [line["logger"] for line in lines] == ["airisk_oauth.renewal", *["airisk_oauth.transport"] * 3]
    assert {name: value for name, value in lines[0].items() if name != "time"} == {
        "level": "WARNING",
        "logger": "airisk_oauth.renewal",
        "message": "AIRisk refused the request with status 401: Unauthorized (traceId 00-676e-00)",
        "event": "connection.failed",
        "user_id": "00000000-0000-0000-0000-000000000001",
        "deployment": "default",
        "error": "AIRiskRefused",
        "airisk_status": 401,
        "airisk_reason": "Unauthorized",
        "airisk_trace_id": "00-676e-00",
    }
    assert lines[1]["duration"] == 0.25
    assert "LookupError" in lines[3]["exception"]


def test_fields_of_a_log_record_are_plain_values(mia: User, airisk: World, settings: Any, caplog: Any) -> None:
    """AIRisk's words come as strings that hide themselves; a service that keeps the log would be shown nothing."""
    give_token(mia, ends_in=-60)
    trouble(airisk, settings, "unknown client")
    attempt(partial(credential, mia))
    [record] = [record for record in caplog.records if record.name.startswith("airisk_oauth")]
    assert repr(record.airisk_reason) == "'Unauthorized'"
    assert record.airisk_trace_id.startswith("00-")
    assert "[secret]" not in repr(record.__dict__)
    events.log(logging.getLogger("airisk_oauth"), logging.WARNING, "token.renewed", "%(user_id)s", user_id=UUID(int=1))
    assert caplog.records[-1].user_id == "00000000-0000-0000-0000-000000000001"


# Metrics


def test_documented_counter_counts_token_events(mia: User, airisk: World, settings: Any) -> None:
    given: dict[str, Any] = {}
    exec(snippet("EVENTS = Counter"), given)  # noqa: S102 - the page's own
    try:
        give_token(mia, ends_in=-60)
        credential(mia)
        trouble(airisk, settings, "refuse")
        assert isinstance(attempt(partial(renew_token, mia)), AIRiskError)
    finally:
        REGISTRY.unregister(given["EVENTS"])
        for signal in given["NAMES"]:
            assert signal.disconnect(given["count"])
    counted = {
        (sample.labels["event"], sample.labels["error"]): sample.value
        for metric in given["EVENTS"].collect()
        for sample in metric.samples
        if sample.name == "airisk_token_events_total"
    }
    refused = "AIRiskRefused"
    assert counted == {("renewed", ""): 1, ("renewal_failed", refused): 1, ("lost", refused): 1}
    assert {*given["NAMES"]} == {each for each in vars(signals).values() if isinstance(each, Signal)}


def test_report_is_as_documented_for_prometheus(mia: User, airisk: World, tmp_path: Path) -> None:
    connected_users(2)
    status, report = refresh_json()
    shown = json.loads(snippet('"renewed": 118'))
    assert status == 0
    assert [*report] == [*shown]
    assert report["deployments"].keys() == shown["deployments"].keys()
    assert report["deployments"]["default"].keys() == shown["deployments"]["default"].keys()
    kept = tmp_path / "airisk.prom"
    run_script(tmp_path, snippet("write_to_textfile"), str(kept), given=json.dumps(report))
    assert 'airisk_sweep_tokens{deployment="default",outcome="renewed"} 2.0' in kept.read_text(encoding="utf-8")
    _status, planned = refresh_json(dry_run=True)
    assert [*planned] == re.findall(
        r"`(\w+)`", pages.text_of("docs/monitoring.md").split("`--dry-run` the object has")[1]
    )[:2]


def test_gunicorn_logs_no_query(tmp_path: Path) -> None:
    line = snippet("--access-logformat").replace("mysite.wsgi", "answer:app")
    (tmp_path / "answer.py").write_text("def app(environ, start):\n    start('204 No Content', [])\n    return []\n")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-m", *shlex.split(line), f"--bind=fd://{listener.fileno()}"]
        with subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.PIPE, text=True, pass_fds=[listener.fileno()]
        ) as server:
            host, port = listener.getsockname()
            answer = requests.get(f"http://{host}:{port}/airisk/callback/?code=secret&state=secret", timeout=10)
            server.terminate()
            logged, _nothing = server.communicate(timeout=10)
    assert answer.status_code == 204
    assert '"GET /airisk/callback/" 204' in logged
    assert "secret" not in logged


# Tracing


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Every span that is made, with whatever is instrumented during the test."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        # Once for the process: OpenTelemetry lets nobody replace it.
        provider = TracerProvider(shutdown_on_exit=False)
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    processor = SimpleSpanProcessor(exporter)
    provider.add_span_processor(processor)
    yield exporter
    processor.shutdown()
    for kind in (DjangoInstrumentor, RequestsInstrumentor, URLLib3Instrumentor):
        if kind().is_instrumented_by_opentelemetry:
            kind().uninstrument()


def told(spans: InMemorySpanExporter) -> str:
    """Return all that the spans tell: names, attributes, events, exceptions, status."""
    return "".join(span.to_json() for span in spans.get_finished_spans())


@committing
@pytest.mark.parametrize(
    ("instrumentors", "statuses"),
    [
        ([RequestsInstrumentor], [200, 200, 503, None]),
        # Below requests, each sending is a call of its own.
        ([URLLib3Instrumentor], [200, 401, 200, 503, None]),
        ([RequestsInstrumentor, URLLib3Instrumentor], [200, 200, 503, None]),
    ],
    ids=["requests", "urllib3", "both"],
)
def test_traces_show_calls_and_no_secret(
    mia: User,
    airisk: World,
    settings: Any,
    spans: InMemorySpanExporter,
    instrumentors: list[type[Any]],
    statuses: list[int | None],
) -> None:
    secret = f"canary-{secrets.token_hex(8)}"
    set_option(settings, CLIENT_SECRET=secret)
    give_token(mia, ends_in=-60)
    for kind in instrumentors:
        kind().instrument()
    tokens = []
    with AIRiskSession.for_user(mia) as session:
        session.get("/api/GetConversations")
        tokens.append(AIRiskToken.objects.get().access_token)
        airisk.end_all_tokens()
        session.get("/api/GetConversations")
        tokens.append(AIRiskToken.objects.get().access_token)
        airisk.switches.outage = True
        session.get("/api/GetConversations")
    set_option(settings, BASE_URL=NOBODY)
    AIRiskToken.objects.update(origin="")
    with AIRiskSession.for_user(mia) as session, pytest.raises(AIRiskUnavailable):
        session.get("/api/GetConversations")
    AIRiskToken.objects.update(expires_at=timezone.now())
    assert isinstance(attempt(partial(credential, mia)), AIRiskUnavailable)
    attributes: list[dict[str, Any]] = [dict(span.attributes or {}) for span in spans.get_finished_spans()]
    # What OpenTelemetry calls them is changing.
    assert [each.get("http.response.status_code", each.get("http.status_code")) for each in attributes] == statuses
    urls = [str(each.get("url.full", each.get("http.url"))) for each in attributes]
    assert [url for url in urls if not url.endswith("/api/GetConversations")] == []
    everything = told(spans)
    assert "ConnectionError" in everything or "NewConnectionError" in everything
    for canary in (*tokens, secret, "code=", "state=", "user_42"):
        assert canary not in everything


def test_spans_without_the_callback_have_no_code(browser: Client, airisk: World, spans: InMemorySpanExporter) -> None:
    back = authorize(start(browser))
    exec(snippet("DjangoInstrumentor"), {})  # noqa: S102 - the page's own
    # Middleware is put in place when a handler starts.
    visitor = Client()
    visitor.cookies = browser.cookies
    assert visitor.get(back).status_code == 302
    assert visitor.get("/airisk/").status_code == 200
    assert [span.attributes["http.route"] for span in spans.get_finished_spans() if span.attributes] == ["airisk/"]
    [code], [state] = (parse_qs(urlsplit(back).query)[name] for name in ("code", "state"))
    assert code not in told(spans)
    assert state not in told(spans)


SENTRY = """
import django
from django.conf import settings
from django.core.wsgi import get_wsgi_application
from django.test import RequestFactory
from sentry_sdk.transport import Transport


class Printing(Transport):
    def capture_envelope(self, envelope):
        for item in envelope.items:
            print(item.payload.get_bytes().decode())


hooks = sentry_sdk.get_client().options
kept = {name: hooks[name] for name in ("before_breadcrumb", "before_send", "before_send_transaction")}
sentry_sdk.init(dsn="http://key@localhost/1", transport=Printing, traces_sample_rate=1.0, **kept)
application = get_wsgi_application()
from airisk_oauth import conf
from airisk_oauth.oauth.code_flow import obtain_silently
from airisk_oauth.oauth.transport import OAuthClient

with sentry_sdk.start_transaction(name="a renewal"), OAuthClient(conf.deployment()) as client:
    client.run(obtain_silently, conf.deployment(), "user_42")
sentry_sdk.capture_message("What came before?")
settings.AIRISK_OAUTH = None
crash = application(RequestFactory().get("/airisk/callback/?code=x&state=y").environ, lambda *answer: None)
crash.close()
"""


@pytest.mark.once
def test_sentry_keeps_no_query(airisk: World, airisk_url: str, tmp_path: Path) -> None:
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "AIRISK_BASE_URL": f"{airisk_url}/sandbox"}
    kept = run_script(tmp_path, snippet("sentry_sdk.init") + SENTRY, **environment)
    assert kept.count("/sandbox/api/oauth2") >= 4
    assert kept.count("/airisk/callback/") >= 2
    assert "ImproperlyConfigured" in kept
    for canary in ("state=", "code=", "user_42", "secret-1"):
        assert canary not in kept


def test_record_factory_of_the_site_breaks_no_log(mia: User, airisk: World, caplog: pytest.LogCaptureFixture) -> None:
    token = give_token(mia, ends_in=-60)
    make = logging.getLogRecordFactory()

    def make_with_user(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.user_id = record.event = "the site's"
        return record

    logging.setLogRecordFactory(make_with_user)
    try:
        with caplog.at_level(logging.INFO, "airisk_oauth"), AIRiskSession.for_user(mia) as session:
            assert session.get("/api/Chat/ListAgents").status_code == 200
    finally:
        logging.setLogRecordFactory(make)
    [record] = [record for record in caplog.records if record.name == "airisk_oauth.renewal"]
    assert (vars(record)["event"], vars(record)["user_id"]) == ("token.renewed", mia.pk)
    assert record.funcName == "announce"
    assert record.getMessage() == f"AIRisk token {token.pk} of user {mia.pk} on default was renewed"

"""No secret is revealed, whatever happens to a flow, even if it crashes.

Canaries are looked for in responses, debug pages, mails, logs, what commands print, the database, dumps and pickles.
"""

import io
import json
import logging
import os
import pickle
import re
import secrets
import signal
import sys
import unittest.mock
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import product
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlencode

import django
import httpx2
import pytest
import requests
import responses
from cryptography.fernet import Fernet
from django.apps import apps
from django.contrib.auth.models import User
from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.core.signals import got_request_exception
from django.db import connection
from django.dispatch import Signal
from django.test import Client
from django.urls import reverse
from django.views.debug import ExceptionReporter

from airisk_oauth import conf, sealing, signals
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import World
from tests.support.browsing import at_each_request, start, state_of
from tests.support.database import committing, quoted
from tests.support.functions import name_deployments, name_keys, time_passes
from tests.support.options import set_option
from tests.support.people import give_token
from tests.support.signals import signals_sent
from tests.support.stored import everything_stored
from tests.support.tracebacks import shown_variables
from tests.support.wire import BASE_URL

pytestmark = committing
# Random, because debug pages also show the lines of this file.
STORED, GRANTED, CODE, CLIENT_SECRET = (f"canary-{secrets.token_hex(8)}" for _ in range(4))
KEY = Fernet.generate_key().decode()
CALLBACK = "https://app.example.com/airisk/callback/"
LIST = "admin:airisk_oauth_airisktoken_changelist"


Answer = tuple[int, dict[str, str], str]
#: By endpoint, what it answers to a request instead of its usual response.
Answers = dict[str, Callable[[Any], Answer]]


ENDPOINTS = {
    ("GET", "/api/oauth2"): "the authorization endpoint",
    ("POST", "/api/oauth2/Token"): "the token endpoint",
    ("GET", "/api/GetConversations"): "the API",
    ("GET", "/api/Echo"): "the API",
}


class Crash(Exception):
    """An error that nothing expects."""


class Wire:
    """AIRisk, with answers full of canaries.

    :ivar broken: the endpoint whose calls crash the client.
    :ivar states: the states that the authorization endpoint has seen.
    :ivar received: everything that AIRisk has received.
    """

    def __init__(self, broken: str, answers: Answers) -> None:
        self.broken, self.answers = broken, answers
        self.states: list[str] = []
        self.received = ""

    def answer(self, endpoint: str, request: Any) -> Answer:
        if self.broken == endpoint:
            raise Crash
        self.received += f"{request.url} {request.headers.get('Authorization')} {request.body}"
        if endpoint == "the authorization endpoint":
            self.states.append(request.params["state"])
        if endpoint in self.answers:
            return self.answers[endpoint](request)
        if endpoint == "the authorization endpoint":
            query = urlencode({"code": CODE, "state": self.states[-1]})
            return 302, {"Location": f"{CALLBACK}?{query}"}, ""
        if endpoint == "the token endpoint":
            return 200, {"Content-Type": "application/json"}, json.dumps({"access_token": GRANTED})
        return (401 if STORED in request.headers["Authorization"] else 200), {}, "[]"


@contextmanager
def wired(broken: str = "nothing", answers: Answers | None = None) -> Iterator[Wire]:
    """Fake AIRisk.

    :param broken: what crashes: an endpoint, or every SQL statement that contains these words.
    """
    wire = Wire(broken, answers or {})

    def execute(execute: Any, sql: str, *args: Any) -> Any:
        if broken in quoted(sql):
            raise Crash
        return execute(sql, *args)

    async def answer_async(_transport: Any, request: httpx2.Request) -> httpx2.Response:
        seen = SimpleNamespace(
            url=str(request.url),
            params=dict(request.url.params),
            body=request.content.decode(),
            headers=request.headers,
        )
        status, headers, body = wire.answer(ENDPOINTS[request.method, request.url.path], seen)
        return httpx2.Response(status, headers=headers, stream=httpx2.ByteStream(body.encode()))

    with (
        responses.RequestsMock(assert_all_requests_are_fired=False) as mock,
        unittest.mock.patch.object(httpx2.AsyncHTTPTransport, "handle_async_request", answer_async),
        connection.execute_wrapper(execute),
    ):
        for (method, path), endpoint in ENDPOINTS.items():

            def callback(request: Any, endpoint: str = endpoint) -> Any:
                return wire.answer(endpoint, request)

            mock.add_callback(method, f"{BASE_URL}{path}", callback)
        yield wire


Visit = Callable[[Client, User], Any]


def call_with_an_expired_token(browser: Client, mia: User) -> Any:
    give_token(mia, access_token=STORED, ends_in=-60)
    return lambda: browser.get("/conversations/")


def call_asynchronously_with_an_expired_token(browser: Client, mia: User) -> Any:
    give_token(mia, access_token=STORED, ends_in=-60)
    return lambda: browser.get("/conversations-async/")


def call_that_gets_a_401(browser: Client, mia: User) -> Any:
    give_token(mia, access_token=STORED)
    return lambda: browser.get("/conversations/")


def call_as_the_application(browser: Client, mia: User) -> Any:
    return lambda: browser.get("/application/")


def come_back(browser: Client, mia: User) -> Any:
    query = urlencode({"code": CODE, "state": state_of(start(browser))})
    return lambda: browser.get(f"{reverse('airisk_oauth:callback')}?{query}")


def renew_in_the_admin(browser: Client, mia: User) -> Any:
    return renew_in_the_admin_of(browser, give_token(mia, access_token=STORED))


def renew_in_the_admin_of(browser: Client, token: AIRiskToken) -> Any:
    return lambda: browser.post(reverse(LIST), {"action": "renew_now", "_selected_action": token.pk, "post": "yes"})


def obtain_in_the_admin(browser: Client, mia: User) -> Any:
    return lambda: browser.post(reverse("admin:airisk_oauth_airisktoken_obtain", args=["default"]))


SAVING = 'SET "sealed"'
CLAIMING = 'SET "lease"'


@pytest.mark.parametrize(
    ("prepare", "broken"),
    [
        (call_with_an_expired_token, "the authorization endpoint"),
        (call_with_an_expired_token, "the token endpoint"),
        (call_with_an_expired_token, "the API"),
        (call_with_an_expired_token, CLAIMING),
        (call_with_an_expired_token, SAVING),
        (call_asynchronously_with_an_expired_token, "the authorization endpoint"),
        (call_asynchronously_with_an_expired_token, "the token endpoint"),
        (call_asynchronously_with_an_expired_token, "the API"),
        (call_asynchronously_with_an_expired_token, SAVING),
        (call_that_gets_a_401, "the token endpoint"),
        (call_that_gets_a_401, SAVING),
        (call_as_the_application, "the token endpoint"),
        (call_as_the_application, SAVING),
        (come_back, "the token endpoint"),
        (come_back, 'INSERT INTO "airisk_oauth_airisktoken"'),
        (renew_in_the_admin, "the token endpoint"),
        (renew_in_the_admin, SAVING),
        (obtain_in_the_admin, "the token endpoint"),
        (obtain_in_the_admin, SAVING),
    ],
)
@pytest.mark.parametrize("debug", [True, False])
def test_crash_reveals_no_secret(
    browser: Client,
    mia: User,
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    prepare: Visit,
    broken: str,
    debug: bool,
) -> None:
    User.objects.update(is_staff=True, is_superuser=True)
    settings.DEBUG = debug
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [KEY]
    set_option(settings, CLIENT_SECRET=CLIENT_SECRET)
    visit = prepare(browser, mia)
    with wired(broken) as wire:
        seen = everything_revealed_by(visit, browser, settings, caplog)
    for canary in (STORED, GRANTED, CODE, CLIENT_SECRET, KEY, *wire.states):
        assert [text for text in seen if canary in text] == []


def name_deployments_that_fail_later(settings: Any) -> None:
    site = name_deployments(settings, settings.AIRISK_OAUTH)
    assert "default" in conf.aliases()
    site.returns = RuntimeError(CLIENT_SECRET)


def nest_too_little(settings: Any) -> None:
    settings.AIRISK_OAUTH = settings.AIRISK_OAUTH["default"]


def misspell_an_option(settings: Any) -> None:
    set_option(settings, CLIENT_ID="")


def add_a_wrong_key(settings: Any) -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [KEY, "not a key"]


def name_a_wrong_key(settings: Any) -> None:
    name_keys(settings, KEY, "not a key")


@pytest.mark.parametrize(
    ("break_settings", "use"),
    [
        (lambda _settings: None, lambda: conf.deployment("gone")),
        (lambda settings: name_deployments(settings, settings.AIRISK_OAUTH), lambda: conf.deployment("gone")),
        (lambda settings: name_deployments(settings, settings.AIRISK_OAUTH["default"]), conf.aliases),
        (name_deployments_that_fail_later, lambda: conf.deployment("gone")),
        (nest_too_little, conf.deployment),
        (misspell_an_option, conf.deployment),
        (add_a_wrong_key, sealing.key_ids),
        (name_a_wrong_key, sealing.key_ids),
    ],
)
def test_wrong_settings_reveal_no_secret(
    break_settings: Callable[[Any], object],
    use: Callable[[], object],
    settings: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_option(settings, CLIENT_SECRET=CLIENT_SECRET)
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [KEY]
    time_passes(monkeypatch)
    break_settings(settings)
    with pytest.raises(ImproperlyConfigured) as caught:
        use()
    seen = f"{shown_variables(caught.value)} {caught.value} {caplog.text}"
    for canary in (CLIENT_SECRET, KEY):
        assert canary not in seen


@pytest.mark.parametrize("path", ["/api/oauth2", "/api/oauth2/Token", "/api/GetConversations"])
def test_time_limit_reveals_no_secret(
    browser: Client, mia: User, settings: Any, caplog: pytest.LogCaptureFixture, airisk: World, path: str
) -> None:
    settings.DEBUG = True
    set_option(settings, CLIENT_SECRET=CLIENT_SECRET)
    give_token(mia, ends_in=-60)
    # The limit strikes before AIRisk answers.
    airisk.switches.latency = 0.2

    def strike(*_args: object) -> None:
        raise Crash

    before = signal.signal(signal.SIGALRM, strike)
    try:
        with at_each_request(path, lambda: os.kill(os.getpid(), signal.SIGALRM)):
            seen = everything_revealed_by(lambda: browser.get("/conversations/"), browser, settings, caplog)
    finally:
        signal.signal(signal.SIGALRM, before)
    token = str(AIRiskToken.objects.get().access_token)
    words = "|".join(seen)
    for canary in (CLIENT_SECRET, token):
        assert canary not in words
    assert not re.search(r"(?:code|state)=[-\w]{20}", words)


def echo(request: Any) -> Answer:
    """Refuse, and repeat what was sent, in a field that operators would read."""
    sent = parse_qs(request.body) if request.body else request.params
    words = " ".join(f"{sent[name]}" for name in ("code", "client_secret", "state") if name in sent)
    return 401, {"Content-Type": "application/problem+json"}, json.dumps({"title": words, "traceId": sent.get("state")})


def login_page(request: Any) -> Answer:
    return 200, {"Content-Type": "text/html"}, f"Sign in, please: {request.url}"


def another_state(request: Any) -> Answer:
    return 302, {"Location": f"{CALLBACK}?{urlencode({'code': CODE, 'state': request.params['state'] + 'x'})}"}, ""


def plain_echo(request: Any) -> Answer:
    sent = parse_qs(request.body)
    return 400, {"Content-Type": "text/plain"}, f"Invalid {sent['code'][0]} of {sent['client_secret'][0]}"


def expired_token(_request: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps({"access_token": GRANTED, "expires_in": -1})


def down(request: Any) -> Answer:
    return 503, {"Content-Type": "text/plain"}, f"{request.url} {request.body}"


def unreachable(request: Any) -> Answer:
    raise requests.ConnectionError(f"{request.url} {request.body} {request.headers}", request=request)


AUTHORIZATION, TOKEN, API = "the authorization endpoint", "the token endpoint", "the API"


@pytest.mark.parametrize(
    ("answers", "debug"),
    [
        ({}, True),
        ({}, False),
        ({AUTHORIZATION: login_page}, True),
        ({AUTHORIZATION: another_state}, True),
        ({AUTHORIZATION: echo}, True),
        ({TOKEN: echo}, True),
        ({TOKEN: echo}, False),
        ({TOKEN: plain_echo}, True),
        ({TOKEN: expired_token}, True),
        ({AUTHORIZATION: down, TOKEN: down}, True),
        ({AUTHORIZATION: unreachable, TOKEN: unreachable, API: unreachable}, True),
        ({AUTHORIZATION: unreachable, TOKEN: unreachable, API: unreachable}, False),
    ],
)
@pytest.mark.once
def test_no_path_of_a_flow_reveals_a_secret(
    browser: Client, mia: User, settings: Any, caplog: pytest.LogCaptureFixture, answers: Answers, debug: bool
) -> None:
    User.objects.update(is_staff=True, is_superuser=True)
    settings.DEBUG = debug
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [KEY]
    settings.AIRISK_OAUTH = {"default": settings.AIRISK_OAUTH["default"]}
    set_option(settings, CLIENT_SECRET=CLIENT_SECRET)
    browser.raise_request_exception = False
    seen: list[str] = []
    states: list[str] = []
    with wired(answers=answers) as wire, collecting_traces(settings, caplog) as traces:
        for visit in every_step(browser, mia, states):
            response = visit()
            headers = {name: value for name, value in response.items() if "/api/oauth2?" not in value}
            seen.append(f"{response.content.decode()}{headers}{response.cookies}{response!r}")
        for command in (["check_airisk"], ["refresh_airisk_tokens", "--all", "--json"], ["reseal_airisk_tokens"]):
            output = io.StringIO()
            try:
                call_command(*command, stdout=output, stderr=output)
            except CommandError as error:
                output.write(f"{error!r}{vars(error)}")
            seen.append(output.getvalue())
    seen += [*traces, repr(browser.session.items())]
    for canary in (STORED, CODE, CLIENT_SECRET, *([] if answers else [GRANTED])):
        assert canary in wire.received
    for canary in (STORED, GRANTED, CODE, CLIENT_SECRET, KEY, *states, *wire.states):
        assert [text for text in seen if canary in text] == []


def every_step(browser: Client, mia: User, states: list[str]) -> Iterator[Callable[[], Any]]:
    """Yield everything that people do with a connection, from the first click to the last."""
    callback = reverse("airisk_oauth:callback")
    connection_page = reverse("airisk_oauth:connection")

    def begin() -> Any:
        response = browser.post(reverse("airisk_oauth:connect"))
        states.append(state_of(response["Location"]))
        return response

    def come_back_with(**answer: str) -> Any:
        return browser.get(callback, {"state": states[-1], **answer})

    yield begin
    yield lambda: Client().get(callback, {"state": states[-1], "code": CODE})
    yield lambda: browser.get(callback, {"state": [states[-1]] * 2, "code": CODE})
    for _again in range(2):
        yield lambda: come_back_with(code=CODE)
    yield lambda: browser.get(connection_page)
    yield begin
    yield lambda: come_back_with(error="access_denied", error_description=CODE)
    for ends_in, page in product((-60, 60, 3600), ("/conversations/", "/conversations-async/")):
        AIRiskToken.objects.all().delete()
        token = give_token(mia, access_token=STORED, ends_in=ends_in)
        yield partial(browser.get, page)
        yield lambda: browser.get("/application/")
    for page in ("change", "delete", "history"):
        yield partial(browser.get, reverse(f"admin:airisk_oauth_airisktoken_{page}", args=[token.pk]))
    yield lambda: browser.get(reverse(LIST), {"q": STORED[:9]})
    yield renew_in_the_admin_of(browser, token)
    yield obtain_in_the_admin(browser, mia)
    yield lambda: browser.post(reverse("airisk_oauth:disconnect"))
    give_token(mia, access_token=STORED)
    yield lambda: browser.get(connection_page)


def everything_revealed_by(
    visit: Callable[[], Any], browser: Client, settings: Any, caplog: pytest.LogCaptureFixture
) -> list[str]:
    """Return what a crash reveals anywhere: on the page, in reports, mails, logs, the session and the database."""
    reports: list[str] = []

    def report(request: Any, **_kwargs: Any) -> None:
        kind, error, traceback = sys.exc_info()
        # Under DEBUG the response itself is such a report.
        reports.append(ExceptionReporter(request, kind, error, traceback, is_email=True).get_traceback_html())

    browser.raise_request_exception = False
    got_request_exception.connect(report)
    try:
        with collecting_traces(settings, caplog) as traces:
            response = visit()
    finally:
        got_request_exception.disconnect(report)
    assert response.status_code == 500
    assert ["Crash" in text for text in reports] == [True]
    assert len(mail.outbox) == (0 if settings.DEBUG else 1)
    return [response.content.decode(), *reports, *traces, repr(browser.session.items())]


@contextmanager
def collecting_traces(settings: Any, caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """Collect mails, logs, signals, and everything that is stored: as it is, dumped, as a ``repr`` and pickled."""
    settings.ADMINS = ["ops@example.com" if django.VERSION >= (6,) else ("Ops", "ops@example.com")]
    settings.MANAGERS = settings.ADMINS
    settings.AIRISK_OAUTH_NOTIFY = {"users": True, "managers": True}
    traces: list[str] = []
    ours = [each for each in vars(signals).values() if isinstance(each, Signal)]
    caplog.set_level(logging.DEBUG, logger="airisk_oauth.calls")
    with caplog.at_level(logging.DEBUG), signals_sent(*ours) as sent:
        yield traces
    traces += [f"{carried}{vars(carried['error']) if 'error' in carried else ''}" for _signal, carried in sent]
    # These loggers belong to the server and the HTTP client of the test itself.
    records = [record for record in caplog.records if not record.name.startswith(("urllib3", "django.server"))]
    # As JSON, too: a secret hides only in a repr, and log services get JSON.
    traces += [
        f"{record.__dict__}{json.dumps(record.__dict__, default=str)}{record.getMessage()}" for record in records
    ]
    traces += [str(each.message()) for each in mail.outbox]
    dumped = io.StringIO()
    call_command("dumpdata", stdout=dumped)
    models = apps.get_app_config("airisk_oauth").get_models()
    rows = [row for model in models for row in model._base_manager.all()]
    traces += [
        everything_stored(),
        dumped.getvalue(),
        repr(rows),
        repr([vars(row) for row in rows]),
        repr(pickle.dumps(rows)),
    ]

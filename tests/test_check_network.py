"""``check_airisk`` on the way to AIRisk, on its clock, and on unusual answers."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
import urllib3
from django.contrib.auth.models import User

from tests.support.doctor import NETWORK, SERVER, SITE, SUPPORT, check, fault, set_default
from tests.support.second_airisk import (
    AGENTS,
    AUTHORIZE,
    TOKEN,
    Answer,
    SecondAIRisk,
    answer_json,
    redirect,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once]


# Slow and unreachable hosts


@contextmanager
def held_up(other_airisk: SecondAIRisk, *call: str) -> Iterator[None]:
    """Answer a call only at the end of the block."""
    over = threading.Event()
    usual = other_airisk.answer

    def answer(method: str, path: str, given: dict[str, str], bearer: str) -> Answer:
        if (method, path) == call:
            over.wait(60)
        return usual(method, path, given, bearer)

    other_airisk.answer = answer  # type: ignore[method-assign]
    try:
        yield
    finally:
        over.set()


@pytest.mark.parametrize(
    ("call", "said", "option"),
    [
        (
            ("GET", "/"),
            "connection: {host} is slow: it accepted the connection, but did not answer within 1 s.",
            "TIMEOUT",
        ),
        (AUTHORIZE, "authorization: AIRisk is slow: it did not answer within 1 s.", "TIMEOUT"),
        (TOKEN, "token: AIRisk is slow: it did not answer within 1 s.", "TIMEOUT"),
        (
            AGENTS,
            "call: GET /api/Chat/ListAgents got no answer within 1 s: AIRisk is slow, or API_TIMEOUT is too short.",
            "",
        ),
    ],
)
def test_slow_is_not_reported_as_unreachable(
    other_airisk: SecondAIRisk, settings: Any, call: tuple[str, str], said: str, option: str
) -> None:
    set_default(settings, TIMEOUT=(1, 1), API_TIMEOUT=(1, 1))
    with held_up(other_airisk, *call):
        found, remedy = fault()
    assert found == said.format(host=other_airisk.url.removeprefix("http://"))
    assert remedy.startswith(SUPPORT)
    assert option in remedy


@pytest.mark.parametrize(
    ("error", "said", "remedy"),
    [
        (socket.gaierror(socket.EAI_NONAME, "Name or service not known"), "There is no host airisk.test.", SITE),
        (
            socket.gaierror(socket.EAI_AGAIN, "Try \x1b[31magain"),
            "The name airisk.test could not be looked up (Try ?[31magain).",
            NETWORK,
        ),
    ],
)
def test_unknown_name_differs_from_dns_failure(
    settings: Any, monkeypatch: pytest.MonkeyPatch, error: OSError, said: str, remedy: str
) -> None:
    def look_up(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    set_default(settings, BASE_URL="https://airisk.test")
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    found, fixed_by = fault()
    assert (found, fixed_by.startswith(remedy)) == (f"connection: {said}", True)


def test_no_connection_in_time_is_unreachable(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def connect(*_args: Any, **_kwargs: Any) -> Any:
        raise TimeoutError

    set_default(settings, BASE_URL="https://airisk.test")
    monkeypatch.setattr(urllib3.util.connection, "create_connection", connect)
    found, remedy = fault()
    assert found == "connection: airisk.test cannot be reached: no connection within 5 s."
    assert remedy.startswith(NETWORK)


def test_closed_connection_was_reachable(settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        set_default(settings, BASE_URL=f"http://{place}")

        def hang_up() -> None:
            connection, _address = server.accept()
            connection.recv(1000)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        found, remedy = fault()
        thread.join()
    assert found == f"connection: {place} accepted the connection, but closed it without answering."
    assert remedy.startswith(SUPPORT)


# Answers of AIRisk


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 -1200", "yesterday", "Fri, 99 Dec 2025", ""])
def test_invalid_date_header_is_no_fault(other_airisk: SecondAIRisk, date: str) -> None:
    other_airisk.date = date or " "
    status, said = check()
    assert (status, "no valid date" in said) == (0, True)


def test_date_without_a_zone_is_utc(other_airisk: SecondAIRisk) -> None:
    other_airisk.date = format_datetime(datetime.now(UTC)).replace("+0000", "-0000")
    assert "within 10 s of AIRisk's" in check()[1]


def test_wrong_clock_explains_a_past_expiry(other_airisk: SecondAIRisk) -> None:
    then = datetime.now(UTC) - timedelta(hours=2)
    ends = (then + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
    other_airisk.answers[TOKEN] = lambda given: answer_json({"access_token": "eyJ", "expiration": ends})
    found, remedy = fault()
    assert (found.startswith("token: AIRisk's answer has an expiry"), remedy.startswith(NETWORK)) == (True, True)
    other_airisk.date = format_datetime(then)
    status, said = check()
    assert (status, said.count("FAULT")) == (1, 2)
    assert f"{SERVER} First make sure that this server's clock is right." in said


@pytest.mark.parametrize(
    ("location", "said"),
    [
        (
            "https://app.example.com/airisk/\x1b[31m?code=code-canary",
            "redirects to 'https://app.example.com/airisk/?[31m', but",
        ),
        (
            "https://app.example.com/airisk/callback",
            "redirects to 'https://app.example.com/airisk/callback', but REDIRECT",
        ),
        ("https://app.example.com/\xe9\x9b", "redirects to 'https://app.example.com/??', but REDIRECT_URI is"),
        ("https://app.example.com/" + "x" * 300, "x...', but REDIRECT_URI is"),
        (
            "https://login\x1b]0;x\x07.example/?code=code-canary",
            "endpoint redirects to https://login?]0;x?.example/ instead",
        ),
        ("/Account/Login?code=code-canary", "endpoint redirects to {url}/Account/Login instead"),
        ("https://[?code=code-canary", "endpoint redirects to https://[ instead"),
        ("", "endpoint showed a page instead of redirecting at once."),
    ],
)
def test_addresses_are_shown_as_plain_text(other_airisk: SecondAIRisk, location: str, said: str) -> None:
    other_airisk.answers[AUTHORIZE] = lambda given: redirect(location)
    found, _remedy = fault()
    assert "[secret]" not in found
    assert said.format(url=other_airisk.url) in found


def test_username_cannot_control_the_terminal(other_airisk: SecondAIRisk) -> None:
    User.objects.create_user("a\x1b[31m\nb")
    assert "This site has no AIRisk userid for a?[31m?b" in fault(user="a\x1b[31m\nb")[0]

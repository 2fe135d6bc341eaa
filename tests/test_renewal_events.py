"""Renewals as signals and in the log."""

import logging
from functools import partial
from typing import Any

import pytest
import requests
import responses
from django.contrib.auth.models import User

from airisk_oauth.exceptions import AIRiskRefused
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import World
from airisk_oauth.signals import token_renewed
from tests.support.clock import set_clock
from tests.support.database import committing
from tests.support.people import credential, give_token, stored
from tests.support.signals import renewals_sent
from tests.support.threads import result_or_error
from tests.support.wire import silent_flow

pytestmark = pytest.mark.django_db


@committing
def test_renewals_are_signalled_and_logged(
    airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    token = give_token(mia, ends_in=-60)
    with renewals_sent() as sent, caplog.at_level(logging.INFO, "airisk_oauth.renewal"):
        credential()
        credential(mia)
        airisk.switches.refuse = True
        set_clock(monkeypatch, 3500)
        credential(mia)
    [(_name, failed)] = [each for each in sent if each[0] == "failed"]
    error = failed.pop("error")
    assert isinstance(error, AIRiskRefused)
    assert sent == [
        ("obtained", {"sender": AIRiskToken, "user_id": None, "deployment": "default"}),
        ("renewed", {"sender": AIRiskToken, "user_id": mia.pk, "deployment": "default"}),
        ("failed", {"sender": AIRiskToken, "user_id": mia.pk, "deployment": "default"}),
    ]
    failed_early = f"AIRisk token {token.pk} stays in use, because its early renewal failed: The stored token "
    failed_early += "could not be renewed."
    assert [(record.event, record.getMessage()) for record in caplog.records] == [  # type: ignore[attr-defined]
        ("token.obtained", f"AIRisk token {stored().pk} of deployment default was renewed"),
        ("token.renewed", f"AIRisk token {token.pk} of deployment default was renewed"),
        ("token.renewal_failed", f"AIRisk token {token.pk} of deployment default was not renewed: {error}"),
        ("token.early_renewal_failed", f"{failed_early} {error}"),
    ]


def test_failing_receiver_undoes_no_renewal(airisk: World, mia: User, caplog: pytest.LogCaptureFixture) -> None:
    def failing(**_arguments: Any) -> None:
        raise RuntimeError("from the receiver")

    token_renewed.connect(failing)
    try:
        give_token(mia, ends_in=-60)
        assert credential(mia).token == stored(mia).access_token != "stored-token"
    finally:
        token_renewed.disconnect(failing)
    assert "from the receiver" in caplog.text


@committing
@pytest.mark.parametrize(
    "answer",
    [
        {"json": {"access_token": "token-canary", "expires_in": 3600}},
        {"json": {"access_token": "token-canary", "expiration": "token-canary"}},
        {"status": 400, "body": "Invalid Code code-canary", "content_type": "text/plain"},
        {"status": 401, "json": {"title": "secret-1", "traceId": "code-canary"}},
        {"status": 500, "body": "token-canary"},
        {"body": requests.ConnectionError("secret-1")},
    ],
)
def test_no_log_record_of_renewals_holds_a_secret(
    mia: User, caplog: pytest.LogCaptureFixture, answer: dict[str, Any]
) -> None:
    caplog.set_level(logging.DEBUG)
    give_token(None, ends_in=200)
    give_token(mia, ends_in=-60)
    with responses.RequestsMock() as wire:
        states = silent_flow(wire, answer)
        credential()
        result_or_error(partial(credential, mia))
    assert len(states) == 2
    ours = [record for record in caplog.records if record.name.startswith("airisk_oauth")]
    assert ours
    text = "\n".join(logging.Formatter().format(record) for record in ours)
    for canary in ("stored-token", "token-canary", "code-canary", "secret-1", *states):
        assert canary not in text

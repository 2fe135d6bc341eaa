"""Refusals in JSON, and expiry times without an offset, on both sides of the package and for a browser."""

import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.test import Client

from airisk_oauth import conf
from airisk_oauth.exceptions import (
    AIRiskError,
    AIRiskInvalidResponse,
    AIRiskRefused,
    AIRiskUnavailable,
    ConnectionRequired,
)
from airisk_oauth.models import AIRiskToken
from airisk_oauth.oauth.async_transport import AsyncOAuthClient
from airisk_oauth.oauth.authorization import STATE_MISSING
from airisk_oauth.oauth.code_flow import obtain_silently
from airisk_oauth.oauth.messages import TokenGrant
from airisk_oauth.oauth.transport import OAuthClient
from tests.support.browsing import connect
from tests.support.doctor import set_default
from tests.support.second_airisk import AUTHORIZE, SecondAIRisk, answer_json, answer_text, page, problem, redirect


def obtain() -> TokenGrant:
    deployment = conf.deployment()
    with OAuthClient(deployment) as client:
        return client.run(obtain_silently, deployment, "user_42")


@async_to_sync
async def obtain_async() -> TokenGrant:
    deployment = conf.deployment()
    async with AsyncOAuthClient(deployment) as client:
        return await client.run(obtain_silently, deployment, "user_42")


both = pytest.mark.parametrize("obtain", [obtain, obtain_async])


@both
@pytest.mark.parametrize(
    ("answer", "target", "error"),
    [
        (answer_json({"title": "No", "traceId": "00-1"}), None, AIRiskRefused(200, "No", "00-1")),
        (redirect("/e?error=no&traceId=00-1"), None, AIRiskRefused(302, "no", "00-1")),
        (redirect("/e"), answer_json({"error": "no", "traceId": "00-1"}), AIRiskRefused(200, "no", "00-1")),
        (redirect("/e"), answer_text("No"), AIRiskRefused(400, "No", "")),
        (redirect("/e"), page("Gone", 503), AIRiskUnavailable),
        (redirect("/e"), page(), ConnectionRequired),
        (redirect("/e"), page(status=401), ConnectionRequired),
        (redirect("/e"), redirect("/e/2"), ConnectionRequired),
        (page(), None, ConnectionRequired),
        (redirect("https://login.example/?error=no"), None, ConnectionRequired),
    ],
)
def test_json_is_a_refusal_and_a_page_is_not(
    other_airisk: SecondAIRisk, obtain: Callable[[], TokenGrant], answer: Any, target: Any, error: Any
) -> None:
    other_airisk.answers[AUTHORIZE] = lambda given: answer
    other_airisk.answers["GET", "/e"] = lambda given: target
    with pytest.raises(AIRiskError) as raised:
        obtain()
    if isinstance(error, AIRiskRefused):
        assert repr(raised.value) == repr(error)
    else:
        assert type(raised.value) is error
    looks = [path for _method, path, _given in other_airisk.requests]
    assert looks == ["/api/oauth2", *(["/e"] if target else [])]


@both
def test_following_a_redirect_sends_no_secret(other_airisk: SecondAIRisk, obtain: Callable[[], TokenGrant]) -> None:
    other_airisk.answers[AUTHORIZE] = lambda given: redirect("/e?a=b#c")
    other_airisk.answers["GET", "/e"] = lambda given: problem()
    with pytest.raises(AIRiskRefused) as raised:
        obtain()
    assert other_airisk.requests[1:] == [("GET", "/e", {"a": "b"})]
    assert raised.value.status == 401


@both
def test_code_is_sent_to_no_other_address(other_airisk: SecondAIRisk, obtain: Callable[[], TokenGrant]) -> None:
    other_airisk.answers[AUTHORIZE] = lambda given: redirect(f"/airisk/callback/?code=c&state={given['state']}")
    with pytest.raises(ConnectionRequired):
        obtain()
    assert len(other_airisk.requests) == 1


@both
def test_following_a_redirect_obeys_the_deadline(
    other_airisk: SecondAIRisk, settings: Any, obtain: Callable[[], TokenGrant]
) -> None:
    set_default(settings, TIMEOUT=(0.4, 0.4))

    def late(answer: Any) -> Any:
        time.sleep(0.3)
        return answer

    other_airisk.answers[AUTHORIZE] = lambda given: late(redirect("/e"))
    other_airisk.answers["GET", "/e"] = lambda given: late(problem())
    with pytest.raises(AIRiskUnavailable):
        obtain()


@both
def test_code_without_state_is_not_exchanged(other_airisk: SecondAIRisk, obtain: Callable[[], TokenGrant]) -> None:
    other_airisk.returns_state = False
    with pytest.raises(AIRiskInvalidResponse, match=STATE_MISSING):
        obtain()
    assert len(other_airisk.requests) == 1


@pytest.mark.django_db
def test_callback_without_a_state_connects_nobody(other_airisk: SecondAIRisk, mia: User, browser: Client) -> None:
    other_airisk.returns_state = False
    assert connect(browser).status_code == 400
    assert not AIRiskToken.objects.exists()


@pytest.mark.django_db
def test_expiry_without_offset_is_utc(
    other_airisk: SecondAIRisk, settings: Any, monkeypatch: pytest.MonkeyPatch, mia: User, browser: Client
) -> None:
    settings.TIME_ZONE = "Asia/Tokyo"
    other_airisk.has_offset = False
    monkeypatch.setitem(os.environ, "TZ", "America/New_York")
    time.tzset()
    try:
        assert connect(browser).status_code == 302
        ends = AIRiskToken.objects.get().expires_at
    finally:
        monkeypatch.undo()
        time.tzset()
    assert ends is not None
    assert abs(ends - datetime.now(UTC) - timedelta(hours=1)) < timedelta(minutes=1)

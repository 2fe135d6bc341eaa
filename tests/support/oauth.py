"""Responses of AIRisk's OAuth endpoints, full of canaries, and what an error about them may show."""

import json
from datetime import UTC, datetime
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

from airisk_oauth.oauth.authorization import read_authorization
from airisk_oauth.oauth.deployment import Deployment
from airisk_oauth.oauth.messages import OAuthResponse, Secret

NOW = datetime(2025, 3, 31, 12, tzinfo=UTC)
REDIRECT_URI = "https://app.example.com/airisk/callback/"
AIRISK = "https://demo.aicrisk.com"
ENDPOINT = f"{AIRISK}/api/oauth2"
CODE, STATE, TOKEN, SECRET = "canary-code", "canary-state", "canary-token", "canary-secret"
CANARIES = (CODE, STATE, TOKEN, SECRET)
TRACE = "00-676e0f1d2c3b4a59687786a5b4c3d2e1-0123456789abcdef-00"
PROBLEM = {"type": "https://tools.ietf.org/html/rfc9110#section-15.5.2", "title": "Unauthorized", "status": 401}

#: For tests of generated input.
quickly = settings(max_examples=100, deadline=None)
statuses = st.sampled_from([200, 200, 200, 302, 400, 401, 429, 500, 503]) | st.integers(100, 999)


def deployment(**options: Any) -> Deployment:
    required: dict[str, Any] = {"base_url": AIRISK, "client_id": "c&1", "client_secret": SECRET}
    return Deployment("default", redirect_uri=REDIRECT_URI, **required, **options)


def answer(**values: Any) -> OAuthResponse:
    """Return the token endpoint's response, with these members instead of its usual ones."""
    return json_reply(**{"access_token": TOKEN, **values})


def json_reply(http_status: int = 200, **members: Any) -> OAuthResponse:
    return OAuthResponse(http_status, json.dumps(members).encode(), content_type="application/json")


def problem(status: int = 401, **members: Any) -> OAuthResponse:
    """Return a refusal as problem details (RFC 9457), with these members instead of the usual ones."""
    body = json.dumps({**PROBLEM, "traceId": TRACE, **members}).encode()
    return OAuthResponse(status, body, content_type="application/problem+json; charset=utf-8")


def redirect(query: str, target: str = REDIRECT_URI) -> OAuthResponse:
    return OAuthResponse(302, location=f"{target}?{query}")


def code_of(reply: OAuthResponse) -> Secret:
    """Return the code from the authorization endpoint's response. Errors: as :func:`read_authorization`."""
    return read_authorization(reply, endpoint=ENDPOINT, redirect_uri=REDIRECT_URI, state=STATE)


def shown(error: BaseException) -> str:
    """Return all that logs and crash reports could show of an error."""
    return f"{error} {error!r} {vars(error)}"


def assert_reveals_nothing(error: BaseException, canaries: tuple[str, ...] = CANARIES) -> None:
    """Check that an error can be shown and logged as it is."""
    assert len(shown(error)) < 1000
    assert shown(error).isascii()
    assert shown(error).isprintable()
    assert not [canary for canary in canaries if canary in shown(error)]
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__

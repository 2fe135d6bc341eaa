"""One authorized call: what each library adds to a request on a kept connection, or without a network."""

from datetime import datetime, timedelta
from io import BytesIO
from time import perf_counter
from typing import Any, Final

import requests
from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from django.conf import settings
from google.auth.transport.requests import AuthorizedSession
from google.oauth2.credentials import Credentials
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from requests_oauthlib import OAuth2Session

from airisk_oauth import AIRiskSession

from .airisk import API_BODY
from .contenders import Measure, Measurement
from .people import Queries, connected_users, migrated

PATH: Final = "/api/GetConversations"
STUB: Final = "stub"
HOUR: Final = 3600

Sessions = dict[str, tuple[requests.Session, str]]


class StubAdapter(HTTPAdapter):
    """Answers every request at once, without a network."""

    def send(self, request: requests.PreparedRequest, *_args: Any, **_kwargs: Any) -> requests.Response:
        response = requests.Response()
        response.status_code = 200
        response.reason = "OK"
        response.headers = CaseInsensitiveDict({"Content-Type": "application/json"})
        response.url = str(request.url)
        response.request = request
        response.connection = self  # type: ignore[attr-defined]
        response.raw = BytesIO(API_BODY)
        return response


def sessions() -> Sessions:
    """Return a session of each library, and the URL to call with it."""
    url = settings.AIRISK_URL + PATH
    token = {"access_token": "a-token", "token_type": "Bearer", "expires_in": HOUR}
    bare, least = requests.Session(), requests.Session()
    bare.headers["Authorization"] = least.headers["Authorization"] = "Bearer a-token"
    # This saves most of the cost of requests, which looks for proxies and .netrc on every call.
    least.trust_env = False
    # google-auth expects a naive time in UTC.
    credentials = Credentials("a-token", expiry=datetime.utcnow() + timedelta(seconds=HOUR))  # noqa: DTZ003
    (user,) = connected_users(1, expires_in=HOUR)
    return {
        "requests": (bare, url),
        "requests, environment unread": (least, url),
        "google-auth": (AuthorizedSession(credentials), url),
        "requests-oauthlib": (OAuth2Session(client_id="client-1", token=token), url),
        "Authlib": (AuthlibSession(client_id="client-1", token=token), url),
        "ours": (AIRiskSession.for_user(user), PATH),
    }


def measure_each(each: Sessions, calls: int, queries: Queries) -> Measure:
    def measure() -> Measurement:
        seconds: Measurement = {}
        queries.count = 0
        for name, (session, url) in each.items():
            start = perf_counter()
            for _ in range(calls):
                session.get(url)
            seconds[name] = (perf_counter() - start) / calls
        return {**seconds, "queries": queries.count}

    return measure


def prepare(transport: str, calls: str) -> Measure:
    migrated()
    each = sessions()
    if transport == STUB:
        for session, _url in each.values():
            session.mount("http://", StubAdapter())
    measure = measure_each(each, int(calls), Queries())
    measure()
    return measure

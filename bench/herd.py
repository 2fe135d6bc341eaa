"""Many callers of one token: how many renewals they cause, and how long they wait."""

import statistics
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from time import perf_counter, time

from authlib.integrations.requests_client import OAuth2Session as AuthlibSession
from django.conf import settings
from django.contrib.auth.models import User
from django.db import connections
from google.auth.transport.requests import AuthorizedSession
from google.oauth2.credentials import Credentials
from requests_oauthlib import OAuth2Session

from airisk_oauth import AIRiskSession

from .airisk import AIRisk
from .calls import PATH
from .contenders import Measure, Measurement
from .people import connected_users, expire_tokens, migrated

CLIENT = {"client_id": "client-1", "client_secret": "secret-1"}

#: Takes the seconds until the token expires, and returns a function that makes a call with a client of its own.
Caller = Callable[[float], Callable[[], object]]


def prepare(callers: str, latency: str, expires_in: str) -> Measure:
    migrated()
    connected_users(1, expires_in=float(expires_in))
    airisk = AIRisk(settings.AIRISK_URL)
    airisk.delay(float(latency))
    contenders: dict[str, Caller] = {
        "google-auth": google_auth,
        "requests-oauthlib": requests_oauthlib,
        "Authlib": authlib,
        "ours": ours,
    }

    def measure() -> Measurement:
        return {name: herd(airisk, caller, int(callers), float(expires_in)) for name, caller in contenders.items()}

    return measure


def herd(airisk: AIRisk, caller: Caller, callers: int, expires_in: float) -> Measurement:
    expire_tokens(expires_in)
    calls = [caller(expires_in) for _ in range(callers)]
    airisk.renewed()
    at_once = threading.Barrier(callers)
    with ThreadPoolExecutor(callers) as pool:
        waits = list(pool.map(partial(wait_for, at_once), calls))
    return {
        "renewals": airisk.renewed()["renewals"],
        "median": statistics.median(waits),
        "slowest": max(waits),
    }


def wait_for(at_once: threading.Barrier, call: Callable[[], object]) -> float:
    at_once.wait()
    start = perf_counter()
    call()
    seconds = perf_counter() - start
    connections.close_all()
    return seconds


def google_auth(expires_in: float) -> Callable[[], object]:
    credentials = Credentials(
        "a-token",
        refresh_token="refresh",
        token_uri=f"{settings.AIRISK_URL}/refresh",
        # google-auth expects a naive time in UTC.
        expiry=datetime.utcnow() + timedelta(seconds=expires_in),  # noqa: DTZ003
        **CLIENT,
    )
    return partial(AuthorizedSession(credentials).get, settings.AIRISK_URL + PATH)


def requests_oauthlib(expires_in: float) -> Callable[[], object]:
    session = OAuth2Session(
        client_id=CLIENT["client_id"],
        token={**stored(expires_in), "expires_in": expires_in},
        auto_refresh_url=f"{settings.AIRISK_URL}/refresh",
        auto_refresh_kwargs=CLIENT,
        token_updater=lambda _token: None,
    )
    return partial(session.get, settings.AIRISK_URL + PATH)


def authlib(expires_in: float) -> Callable[[], object]:
    session = AuthlibSession(**CLIENT, token=stored(expires_in), token_endpoint=f"{settings.AIRISK_URL}/refresh")
    return partial(session.get, settings.AIRISK_URL + PATH)


def stored(expires_in: float) -> dict[str, object]:
    return {
        "access_token": "a-token",
        "token_type": "Bearer",
        "refresh_token": "refresh",
        "expires_at": time() + expires_in,
    }


def ours(_expires_in: float) -> Callable[[], object]:
    return partial(AIRiskSession.for_user(User.objects.get()).get, PATH)

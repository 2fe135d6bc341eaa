"""Connecting: the statements that a person's way to AIRisk and back takes, transaction control included."""

from functools import partial
from typing import Final
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, build_opener

from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from airisk_oauth.models import AIRiskIdentity, AIRiskToken

from .contenders import Measure, Measurement
from .people import migrated

STARTS: Final = {"ours": "/airisk/connect/", "social-auth-app-django": "/social/login/airisk/"}


class Stay(HTTPRedirectHandler):
    """Raises an ``HTTPError`` for a redirect, instead of following it."""

    def redirect_request(self, *_args: object) -> None:
        return None


def prepare(contender: str) -> Measure:
    migrated()
    return partial(connect, STARTS[contender], contender == "ours")


def connect(start: str, is_ours: bool) -> Measurement:
    """Connect a new user, and count."""
    user = User.objects.create_user(f"user-{User.objects.count()}")
    AIRiskIdentity.objects.create(user=user, userid=f"airisk-{user.pk}")
    browser = Client()
    browser.force_login(user)
    with CaptureQueriesContext(connection) as begun:
        begin = browser.post(start)
    back = urlsplit(_location(begin["Location"]))
    with CaptureQueriesContext(connection) as ended:
        end = browser.get(f"{back.path}?{back.query}")
    stored = AIRiskToken.objects.filter(user=user) if is_ours else user.social_auth.all()  # type: ignore[attr-defined]
    if end.status_code != 302 or stored.count() != 1:
        raise RuntimeError(f"The way back ended with status {end.status_code}.")
    return {"statements": len(begun) + len(ended)}


def _location(url: str) -> str:
    """Visit AIRisk, and return where it sends the browser."""
    try:
        build_opener(Stay).open(url, timeout=10)
    except HTTPError as redirect:
        return str(redirect.headers["Location"])
    raise RuntimeError("AIRisk did not redirect.")

"""What goes on between browser, site and AIRisk, in one line."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import requests
from django.contrib.auth.models import User
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from airisk_oauth.models import AIRiskToken
from airisk_oauth.sandbox.world import Caller, Seen, World


def start(browser: Client, alias: str = "default", **data: str) -> str:
    """Click Connect, and return the URL on AIRisk that the browser is sent to."""
    response = browser.post(reverse("airisk_oauth:connect", args=[alias]), data)
    assert response.status_code == 302
    return response["Location"]


def authorize(url: str) -> str:
    """Visit AIRisk, and return the path and query that it sends the browser back to."""
    response = requests.get(url, allow_redirects=False, timeout=5)
    assert response.status_code == 302
    back = urlsplit(response.headers["Location"])
    return f"{back.path}?{back.query}"


def connect(browser: Client, alias: str = "default", **data: str) -> Any:
    """Go the whole way, and return the site's answer to the callback."""
    return browser.get(authorize(start(browser, alias, **data)))


@contextmanager
def at_each_request(path: str, work: Callable[[], object]) -> Iterator[None]:
    """Do this, in the sandbox's thread, when a request for this path has reached it and nobody answers it yet."""

    def begin(environ: dict[str, Any], **_kwargs: Any) -> None:
        if environ["PATH_INFO"] == f"/sandbox{path}":
            work()

    # The test client sends the same signal for the site.
    request_started.connect(begin, sender=WSGIHandler)
    try:
        yield
    finally:
        request_started.disconnect(begin, sender=WSGIHandler)


def give_token(user: User | None, *, ends_in: float | None = 3600, **values: Any) -> AIRiskToken:
    """Store a token that AIRisk never gave; ``ends_in`` is in seconds, negative for one that has ended."""
    now = timezone.now()
    userid = "" if user is None else "user_42"
    ends = None if ends_in is None else now + timedelta(seconds=ends_in)
    defaults = {"userid": userid, "access_token": "stored-token", "expires_at": ends}
    if ends_in is not None and ends_in < 3600:
        defaults["renewed_at"] = now + timedelta(seconds=ends_in) - timedelta(hours=1)
    return AIRiskToken.objects.create(user=user, **{**defaults, **values})


def stored(user: User | None = None) -> AIRiskToken:
    return AIRiskToken.objects.get(user=user, deployment="default")


def token_requests(airisk: World) -> list[Seen]:
    return [seen for seen in airisk.journal if seen.endpoint == "/api/oauth2/Token"]


def live_token(airisk: World, user: User | None = None, client_id: str = "client-1", **values: Any) -> AIRiskToken:
    """Store a token that AIRisk did give."""
    token, _ends = airisk.new_token(Caller(client_id, None if user is None else "user_42"))
    return give_token(user, access_token=token, **values)


def set_option(settings: Any, alias: str = "default", **options: Any) -> None:
    settings.AIRISK_OAUTH = {**settings.AIRISK_OAUTH, alias: {**settings.AIRISK_OAUTH[alias], **options}}

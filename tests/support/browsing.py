"""A browser, from Connect to the callback."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import requests
from django.core.handlers.wsgi import WSGIHandler
from django.core.signals import request_started
from django.test import Client
from django.urls import reverse


def state_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["state"][0]


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
    """Connect through AIRisk, and return the site's answer to the callback."""
    return browser.get(authorize(start(browser, alias, **data)))


@contextmanager
def at_each_request(path: str, work: Callable[[], object]) -> Iterator[None]:
    """Do some work in the sandbox's thread when it has received a request for this path, before it answers."""

    def begin(environ: dict[str, Any], **_kwargs: Any) -> None:
        if environ["PATH_INFO"] == f"/sandbox{path}":
            work()

    # The test client sends the same signal for the site.
    request_started.connect(begin, sender=WSGIHandler)
    try:
        yield
    finally:
        request_started.disconnect(begin, sender=WSGIHandler)

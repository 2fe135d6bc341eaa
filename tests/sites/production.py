"""A site in production, similar to cookiecutter-django's: PostgreSQL with a pool of four connections, a transaction
around every view, Django's per-site cache, a content security policy, and HTTPS only.

The pool is Django's; ``python -m tests.sites.production pgbouncer`` uses PgBouncer instead.
"""

import re
import sys
import threading
import time
from functools import partial
from itertools import count
from typing import Any

import django
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.urls import include, path
from django.views.decorators.cache import never_cache

from tests.sites import running
from tests.support import airisk, pgbouncer
from tests.support.threads import at_once

AIRISK = airisk.start()
DATABASE = running.postgresql("production", ATOMIC_REQUESTS=True, CONN_HEALTH_CHECKS=True)
if "pgbouncer" in sys.argv:
    socket_folder = pgbouncer.start(DATABASE["HOST"], DATABASE["USER"], connections=4)
    DATABASE.update(HOST=socket_folder, PORT=6432, DISABLE_SERVER_SIDE_CURSORS=True)
else:
    DATABASE["OPTIONS"] = {"pool": {"min_size": 1, "max_size": 4, "timeout": 10}}

CSP: dict[str, Any] = {}
if django.VERSION >= (6, 0):
    from django.utils.csp import CSP as SOURCES

    CSP_MIDDLEWARE = "django.middleware.csp.ContentSecurityPolicyMiddleware"
    CSP["SECURE_CSP"] = {"default-src": [SOURCES.SELF], "style-src": [SOURCES.SELF, SOURCES.NONCE]}
else:
    from csp.constants import NONCE, SELF

    CSP_MIDDLEWARE = "csp.middleware.CSPMiddleware"
    CSP["CONTENT_SECURITY_POLICY"] = {"DIRECTIVES": {"default-src": [SELF], "style-src": [SELF, NONCE]}}

running.configure(
    AIRISK.url,
    DATABASES={"default": DATABASE},
    MIDDLEWARE=[
        "django.middleware.cache.UpdateCacheMiddleware",
        CSP_MIDDLEWARE,
        *running.MIDDLEWARE,
        "django.middleware.cache.FetchFromCacheMiddleware",
    ],
    SECURE_SSL_REDIRECT=True,
    SECURE_HSTS_SECONDS=60,
    SESSION_COOKIE_SECURE=True,
    CSRF_COOKIE_SECURE=True,
    SESSION_COOKIE_NAME="__Secure-sessionid",
    CSRF_COOKIE_NAME="__Secure-csrftoken",
    **CSP,
)

from django.contrib.auth.models import User  # noqa: E402 - after the set-up
from django.core.management import call_command  # noqa: E402

from tests.sites import mission as people  # noqa: E402

SHOWN = count()
IS_CROWDED = threading.Event()
GATE = threading.Barrier(4, action=IS_CROWDED.set)


def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse(f"{User.objects.count()} users, rendered {next(SHOWN)} times")


def crowded(request: HttpRequest) -> HttpResponse:
    User.objects.count()
    GATE.wait(10)
    return running.conversations(request)


def careful(request: HttpRequest) -> HttpResponse:
    response = request.airisk.get(airisk.FORBIDDEN)  # type: ignore[attr-defined]
    response.raise_for_status()
    return HttpResponse(response)


urlpatterns = [
    path("", home),
    path("cached/", running.conversations),
    path("conversations/", never_cache(running.conversations)),
    path("crowded/", never_cache(crowded)),
    path("careful/", careful),
    path("airisk/", include("airisk_oauth.urls")),
]


def mission() -> None:
    people.mission(AIRISK, people.new_person("mia", "user_42"))


def per_site_cache_serves_everybody() -> None:
    ada, ben = (people.new_connected_person(AIRISK, name, name) for name in ("ada", "ben"))
    for browser in (people.new_browser(), ada.browser):
        pages = [people.text(browser.get("/", secure=True)) for _visit in range(2)]
        assert "users" in pages[0]
        assert pages[0] == pages[1]
        assert browser.get("/airisk/", secure=True).status_code == (200 if browser is ada.browser else 302)
    for person in (ada, ben, ada):
        person.page = "/cached/"
        people.assert_called(person)
    assert [call.userid for call in AIRISK.calls[-2:]] == ["ada", "ben"]


def style_of_pages_has_the_nonce_of_their_policy() -> None:
    page = people.new_person("cleo", "cleo").browser.get("/airisk/", secure=True)
    [nonce] = re.findall(r"'nonce-([^']+)'", page["Content-Security-Policy"])
    assert f'<style nonce="{nonce}">' in people.text(page)


def four_visitors_with_expired_tokens_are_answered_at_once() -> None:
    AIRISK.latency = 0.3
    visitors = [people.new_connected_person(AIRISK, f"visitor{n}", f"user_{n}", expires_in=-60) for n in range(4)]
    for visitor in visitors:
        visitor.page = "/crowded/"

    def visit_home() -> None:
        assert IS_CROWDED.wait(10)
        assert people.new_browser().get("/?again", secure=True).status_code == 200

    connections.close_all()
    began = time.monotonic()
    at_once(visit_home, *(partial(people.assert_called, visitor) for visitor in visitors))
    AIRISK.latency = 0
    assert time.monotonic() - began < 3


def ten_refused_calls_that_raise_cause_one_renewal() -> None:
    dan = people.new_connected_person(AIRISK, "dan", "dan")
    AIRISK.granted.clear()
    statuses = [dan.browser.get("/careful/", secure=True).status_code for _visit in range(10)]
    assert (statuses, AIRISK.granted) == ([500] * 10, ["dan"]), (statuses, AIRISK.granted)


call_command("migrate", verbosity=0)
running.keep(
    mission,
    per_site_cache_serves_everybody,
    style_of_pages_has_the_nonce_of_their_policy,
    four_visitors_with_expired_tokens_are_answered_at_once,
    ten_refused_calls_that_raise_cause_one_renewal,
)

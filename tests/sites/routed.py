"""Tenants by router: each host has a PostgreSQL database of its own, which is chosen by a context variable.

The same primary keys belong to different people in the two databases.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.core.management import call_command
from django.http import HttpRequest, HttpResponse
from django.urls import include, path

from tests.sites import running
from tests.support import airisk

AIRISK = airisk.start()
DATABASES = {name: running.postgresql(name, ATOMIC_REQUESTS=True) for name in ("default", "acme")}
TENANTS = {"public.example.com": "default", running.HOST: "acme"}
current: ContextVar[str] = ContextVar("tenant", default="default")


@contextmanager
def tenant(name: str) -> Iterator[None]:
    token = current.set(name)
    try:
        yield
    finally:
        current.reset(token)


class Router:
    def db_for_read(self, model: Any, **hints: Any) -> str:
        return current.get()

    db_for_write = db_for_read


def tenant_by_host(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    def middleware(request: HttpRequest) -> HttpResponse:
        with tenant(TENANTS[request.get_host()]):
            return get_response(request)

    return middleware


running.configure(
    AIRISK.url,
    DATABASES=DATABASES,
    DATABASE_ROUTERS=["__main__.Router"],
    MIDDLEWARE=["__main__.tenant_by_host", *running.MIDDLEWARE],
)

from tests.sites import mission as people  # noqa: E402 - after the set-up

urlpatterns = [
    path("airisk/", include("airisk_oauth.urls")),
    path("conversations/", running.conversations),
]
for database in DATABASES:
    call_command("migrate", database=database, verbosity=0)
with tenant("default"):
    ROOT = people.new_connected_person(AIRISK, "root", "root_of_default", host="public.example.com")
with tenant("acme"):
    MIA = people.new_person("mia", "mia_of_acme")
    MIA.tenant = lambda: tenant("acme")


def mission() -> None:
    people.mission(AIRISK, MIA)


def nobody_gets_the_token_of_another_tenant() -> None:
    people.keeps_to_own_tenant(AIRISK, MIA, namesake=ROOT)


running.keep(mission, nobody_gets_the_token_of_another_tenant)

"""The admin's list of tokens, with few and with many rows: the queries and the time that its pages take."""

from functools import partial
from time import perf_counter

from django.contrib.auth.models import User
from django.core.cache import cache
from django.db import connection
from django.db.models import F
from django.test import Client

from airisk_oauth.admin import AIRiskTokenAdmin
from airisk_oauth.admin.numbers import HEADER
from airisk_oauth.models import AIRiskToken
from airisk_oauth.tokens.status import Status

from .contenders import Measure, Measurement
from .people import Queries, connected_users, expire_tokens, migrated

URL = "/admin/airisk_oauth/airisktoken/"
#: A long list is counted once a minute, when its script asks for the numbers, after the first page has been shown.
UNCOUNTED, COUNTED = "first page, not counted yet", "numbers for the first page"
#: One token in this many has expired.
EXPIRED_IN = 10
TIMES = 3
#: How many are stored at a time.
AT_ONCE = 50_000


def prepare(number: str) -> Measure:
    migrated()
    for first in range(0, int(number), AT_ONCE):
        connected_users(min(AT_ONCE, int(number) - first), expires_in=3600, sealed=False, first=first)
    expire_tokens(-60, AIRiskToken.objects.annotate(part=F("user_id") % EXPIRED_IN).filter(part=0))
    with connection.cursor() as cursor:
        # Autovacuum would have done this on a site that has been running for a while.
        cursor.execute("ANALYZE")
    staff = User.objects.create_superuser("staff")
    browser = Client()
    browser.force_login(staff)
    measure = partial(visit_all, browser, pages_of(int(number)), Queries())
    measure()
    return measure


def pages_of(number: int) -> dict[str, str]:
    last = (number - 1) // AIRiskTokenAdmin.list_per_page + 1
    middle = number // 2
    return {
        UNCOUNTED: URL,
        COUNTED: URL,
        "first page": URL,
        "last page": f"{URL}?p={last}",
        "valid only": f"{URL}?status={Status.VALID}",
        "expired only": f"{URL}?status={Status.EXPIRED}",
        "failing only": f"{URL}?status={Status.FAILING}",
        "with “Show counts”": f"{URL}?_facets=True",
        "search for a username": f"{URL}?q=user-{middle}",
        "search for a userid": f"{URL}?q=airisk-{middle}",
        "search in vain": f"{URL}?q=nobody",
    }


def visit_all(browser: Client, pages: dict[str, str], queries: Queries) -> Measurement:
    return {name: visit(browser, name, url, queries) for name, url in pages.items()}


def visit(browser: Client, name: str, url: str, queries: Queries) -> Measurement:
    headers = {HEADER: "now"} if name == COUNTED else {}
    queries.count = 0
    start = perf_counter()
    for _ in range(TIMES):
        if name in (UNCOUNTED, COUNTED):
            cache.clear()
        response = browser.get(url, headers=headers)
        if response.status_code != 200:
            raise RuntimeError(f"{url} answered with status {response.status_code}")
    return {"seconds": (perf_counter() - start) / TIMES, "queries": queries.count / TIMES}

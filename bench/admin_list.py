"""The admin's list of tokens, with few and with many rows: the queries and the time that its pages take."""

from functools import partial
from time import perf_counter

from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from airisk_oauth.admin import AIRiskTokenAdmin
from airisk_oauth.models import AIRiskToken

from .contenders import Measure, Measurement
from .people import Queries, connected_users, expire_tokens, migrated

URL = "/admin/airisk_oauth/airisktoken/"
#: One token in this many has expired.
EXPIRED_IN = 10
TIMES = 3


def prepare(number: str) -> Measure:
    migrated()
    connected_users(int(number), expires_in=3600, sealed=False)
    expire_tokens(-60, AIRiskToken.objects.filter(user_id__in=User.objects.all()[::EXPIRED_IN]))
    with connection.cursor() as cursor:
        # Autovacuum would have done this on a site that has been running for a while.
        cursor.execute("ANALYZE")
    staff = User.objects.create_superuser("staff")
    browser = Client()
    browser.force_login(staff)
    last = (int(number) - 1) // AIRiskTokenAdmin.list_per_page + 1
    pages = {"first page": URL, "last page": f"{URL}?p={last}", "expired only": f"{URL}?status=ended"}
    measure = partial(visit_all, browser, pages, Queries())
    measure()
    return measure


def visit_all(browser: Client, pages: dict[str, str], queries: Queries) -> Measurement:
    return {name: visit(browser, url, queries) for name, url in pages.items()}


def visit(browser: Client, url: str, queries: Queries) -> Measurement:
    queries.count = 0
    start = perf_counter()
    for _ in range(TIMES):
        response = browser.get(url)
        if response.status_code != 200:
            raise RuntimeError(f"{url} answered with status {response.status_code}")
    return {"seconds": (perf_counter() - start) / TIMES, "queries": queries.count / TIMES}

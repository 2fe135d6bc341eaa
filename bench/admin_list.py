"""The admin's list of tokens, with few and with many rows: statements and time of its pages."""

from functools import partial
from time import perf_counter

from django.contrib.auth.models import User
from django.db import connection
from django.test import Client

from airisk_oauth.admin import AIRiskTokenAdmin
from airisk_oauth.models import AIRiskToken

from .contenders import Measure, Measurement
from .people import Queries, end_tokens, migrated, people_with_tokens

URL = "/admin/airisk_oauth/airisktoken/"
#: One token in so many has ended.
ENDED = 10
TIMES = 3


def prepare(number: str) -> Measure:
    migrated()
    people_with_tokens(int(number), ends_in=3600, sealed=False)
    end_tokens(-60, AIRiskToken.objects.filter(user_id__in=User.objects.all()[::ENDED]))
    with connection.cursor() as cursor:
        # As an autovacuum would have, on a site that has been up for a while.
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
            raise RuntimeError(f"{url} was answered with {response.status_code}")
    return {"seconds": (perf_counter() - start) / TIMES, "queries": queries.count / TIMES}

"""The admin's lists where there are very many rows: the same statuses and rows, found without reading all of them."""

import re
from collections import Counter
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.cache.backends.base import BaseCache
from django.db import connection
from django.http import HttpRequest
from django.test import Client
from django.test.utils import CaptureQueriesContext

from airisk_oauth.admin import AIRiskTokenAdmin, filters, searching
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.tokens import status as status_module
from airisk_oauth.tokens.status import Status, count_by_deployment, total_by_status
from tests.support.admin import identity_page, listed, person, text_of, token_page
from tests.support.clock import stop_clock
from tests.support.people import give_token
from tests.support.statuses import STATUSES, store

NOTE = "its numbers can be up to a minute old"
COUNTING = "The tokens are being counted."


class BrokenCache(BaseCache):
    """A cache whose server is away."""

    def __init__(self, _location: str, options: dict[str, Any]) -> None:
        super().__init__(options)

    def get(self, *_args: Any, **_kwargs: Any) -> Any:
        raise ConnectionRefusedError

    set = get


@pytest.fixture
def long_list(monkeypatch: pytest.MonkeyPatch, db: None) -> Any:
    """Every list of more than one row is long."""
    monkeypatch.setattr(searching, "LARGE", 1)
    cache.clear()
    yield
    cache.clear()


def store_all() -> dict[int, tuple[Status, str]]:
    """Store a token in each situation, and return its status and deployment by key."""
    # There is one token of the application only: the one that has not been obtained.
    of_users = [each for each in STATUSES if each[2].get("user", ...) is not None]
    return {
        store(name, values).pk: (status, values.get("deployment", "default"))
        for status, name, values in [*of_users, STATUSES[-1]]
    }


def shown_numbers(response: Any) -> dict[Status, int]:
    return {status: number for status, number, _link, _is_current in response.context["airisk_statuses"]}


def visit(browser: Client, **query: str) -> Any:
    """Open the list, and fetch it again for its numbers if its script would."""
    page = browser.get(token_page("changelist"), query)
    if page.context["airisk_come_later"]:
        page = browser.get(token_page("changelist"), query, headers={"X-AIRisk-Numbers": "now"})
    return page


@pytest.mark.usefixtures("second_by_hand", "long_list")
@pytest.mark.parametrize("few", [0, 1, 1000])
def test_long_list_shows_what_a_short_one_does(few: int, admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """In all combinations of filters, before and after the numbers are kept."""
    monkeypatch.setattr(status_module, "FEW", few)
    stop_clock(monkeypatch)
    rows = store_all()
    assert {status for status, _alias in rows.values()} == set(Status)
    for alias in ("", "default", "second", "!"):
        here = {
            pk: status
            for pk, (status, its_alias) in rows.items()
            if alias in ("", its_alias) or (alias == "!" and its_alias == "gone")
        }
        for status in ("", *Status):
            page = visit(admin_client, deployment=alias, status=status)
            expected = {pk for pk, its_status in here.items() if status in ("", its_status)}
            assert {token.pk for token in listed(page)} == expected
            assert page.context["cl"].result_count == len(expected)
            assert shown_numbers(page) == Counter(here.values())


@pytest.mark.usefixtures("second_by_hand", "db")
def test_tokens_are_counted_by_status(monkeypatch: pytest.MonkeyPatch) -> None:
    stop_clock(monkeypatch)
    rows = store_all()
    # Its identity does not count, because it needs a person, or has no key, anyway.
    for pk in (pk for pk, (status, _alias) in rows.items() if status in (Status.RECONNECT, Status.UNREADABLE)):
        AIRiskToken.objects.filter(pk=pk).update(userid="somebody-else")
    expected = Counter(status for status, _alias in rows.values())
    assert total_by_status(count_by_deployment(AIRiskToken.objects.all())) == expected
    assert total_by_status(count_by_deployment(AIRiskToken.objects.none())) == {}


def test_identities_of_removed_deployments_are_found(admin_client: Client) -> None:
    person("mia")
    tom = person("tom", deployment="gone")
    assert [row.user for row in listed(admin_client.get(identity_page("changelist"), {"deployment": "!"}))] == [tom]


@pytest.mark.usefixtures("long_list")
def test_long_list_is_shown_before_it_is_counted(admin_client: Client) -> None:
    """But not if a script would not come back, or the page is about one status."""
    for name in ("mia", "tom"):
        give_token(person(name))
    with CaptureQueriesContext(connection) as queries:
        page = admin_client.get(token_page("changelist"), {"p": "1", "o": "-4"})
    assert not [query["sql"] for query in queries if "GROUP BY" in query["sql"]]
    assert (len(listed(page)), page.context["cl"].result_count) == (2, 2)
    assert COUNTING in text_of(page)
    assert "2 valid" not in text_of(page)
    again = admin_client.get(token_page("changelist"))
    assert COUNTING not in text_of(again)
    assert "2 valid" in text_of(again)


@pytest.mark.usefixtures("long_list")
def test_numbers_come_despite_a_cache_for_the_site(admin_client: Client, settings: Any) -> None:
    update, fetch = (f"django.middleware.cache.{name}CacheMiddleware" for name in ("Update", "FetchFrom"))
    settings.MIDDLEWARE = [update, *settings.MIDDLEWARE, fetch]
    for name in ("mia", "tom"):
        give_token(person(name))
    assert COUNTING in text_of(admin_client.get(token_page("changelist")))
    assert shown_numbers(visit(admin_client)) == {Status.VALID: 2}


@pytest.mark.usefixtures("long_list")
@pytest.mark.parametrize("query", [{"status": "live"}, {"deployment": "default"}, {"q": "user_"}])
def test_chosen_rows_are_counted_at_once(query: dict[str, str], admin_client: Client) -> None:
    for name in ("mia", "tom"):
        give_token(person(name))
    page = admin_client.get(token_page("changelist"), query)
    assert shown_numbers(page) == {Status.VALID: 2}


@pytest.mark.usefixtures("long_list")
def test_numbers_of_long_list_are_counted_once(admin_client: Client) -> None:
    for name in ("mia", "tom"):
        give_token(person(name))
    visit(admin_client)
    AIRiskToken.objects.filter(user__username="tom").delete()
    with CaptureQueriesContext(connection) as queries:
        page = visit(admin_client, status="live")
    assert not [query["sql"] for query in queries if "COUNT(" in query["sql"]]
    assert shown_numbers(page) == {Status.VALID: 2}
    assert [token.user.username for token in listed(page)] == ["mia"]
    assert NOTE in text_of(page)


def test_short_list_is_counted_for_every_page(admin_client: Client) -> None:
    for number in (1, 2):
        give_token(person(str(number)))
        page = visit(admin_client)
        assert (shown_numbers(page), page.context["cl"].result_count) == ({Status.VALID: number}, number)
        assert "airisk-note" not in page.text.partition("<body")[2]
    assert "airisk-note" not in admin_client.get(identity_page("changelist")).text.partition("<body")[2]


@pytest.mark.usefixtures("long_list")
def test_kept_numbers_are_not_shared(admin_client: Client, desk: Client, staff: User) -> None:
    """Another member of staff, another admin site, and an admin of fewer rows count for themselves."""
    for name in ("mia", "tom", "eva"):
        give_token(person(name))
    assert shown_numbers(visit(admin_client)) == {Status.VALID: 3}
    AIRiskToken.objects.filter(user__username="eva").delete()
    User.objects.filter(pk=staff.pk).update(is_superuser=True)
    assert shown_numbers(visit(desk)) == {Status.VALID: 2}

    class FewerAdmin(AIRiskTokenAdmin):
        def get_queryset(self, request: HttpRequest) -> Any:
            return super().get_queryset(request).filter(user__username="mia")

    class NoneAdmin(AIRiskTokenAdmin):
        def get_queryset(self, request: HttpRequest) -> Any:
            return super().get_queryset(request).none()

    def count(kind: type[AIRiskTokenAdmin], site: str) -> int:
        request = HttpRequest()
        request.user = User.objects.get(username="admin")
        return kind(AIRiskToken, admin.AdminSite(site)).numbers(request).counts.total()

    assert count(AIRiskTokenAdmin, "admin") == 3
    assert count(AIRiskTokenAdmin, "other") == 2
    assert count(FewerAdmin, "admin") == 1
    assert count(NoneAdmin, "admin") == 0


@pytest.mark.usefixtures("long_list")
def test_hidden_rows_crowd_nothing_out_of_a_search(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "FOUND", 2)
    pks = [give_token(person(name), userid=f"user_{name}").pk for name in ("a", "b", "c", "d", "e")]

    class FewerAdmin(AIRiskTokenAdmin):
        def get_queryset(self, request: HttpRequest) -> Any:
            return super().get_queryset(request).filter(pk__in=pks[3:])

    request = HttpRequest()
    request.user = User.objects.get(username="admin")
    fewer: Any = FewerAdmin(AIRiskToken, admin.AdminSite())
    found, _may_have_duplicates = fewer.get_search_results(request, fewer.get_queryset(request), "user_")
    assert {token.pk for token in found} == set(pks[3:])


@pytest.mark.usefixtures("long_list")
def test_numbers_are_counted_without_a_cache(admin_client: Client, settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": f"{__name__}.BrokenCache"}}
    for name in ("mia", "tom"):
        give_token(person(name))
        page = visit(admin_client)
    assert shown_numbers(page) == {Status.VALID: 2}


@pytest.mark.usefixtures("long_list")
def test_pages_of_a_long_list_follow_each_other(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AIRiskTokenAdmin, "list_per_page", 2)
    tokens = [give_token(person(f"user-{number}")) for number in range(5)]
    pages = [listed(visit(admin_client, p=str(number))) for number in (1, 2, 3)]
    assert [token for page in pages for token in page] == tokens[::-1]
    by_expiry = [listed(visit(admin_client, p=str(number), o="-4")) for number in (1, 2, 3)]
    assert {token.pk for page in by_expiry for token in page} == {token.pk for token in tokens}


@pytest.mark.usefixtures("long_list")
@pytest.mark.parametrize("page", [token_page, identity_page])
@pytest.mark.parametrize(
    ("text", "is_found"),
    [
        ("mia", True),
        (" MIA ", True),
        ("mi", True),
        ("user_7", True),
        ("user_", True),
        ("mia@example.com", True),
        ("Mia@Example.COM", True),
        ("ia", False),
        ("example.com", False),
        ("%", False),
        ("nobody", False),
    ],
)
def test_long_list_is_searched_by_beginnings(text: str, is_found: bool, page: Any, admin_client: Client) -> None:
    mia = person("mia", "user_7")
    give_token(mia, userid="user_7")
    for name in ("tom", "eva"):
        give_token(person(name, f"other-{name}"), userid=f"other-{name}")
    response = admin_client.get(page("changelist"), {"q": text})
    assert [row.user for row in listed(response)] == ([mia] if is_found else [])
    assert "a search finds what begins with the text: at most 1000 entries." in text_of(response)


@pytest.mark.usefixtures("long_list")
def test_long_list_is_searched_by_what_the_log_names(admin_client: Client) -> None:
    token = give_token(person("mia"), failure_trace_id="00-676e1bd0-35ac77b2-00")
    give_token(person("tom"))
    for words in (str(token.pk), "00-676e1bd0-35ac77b2-00"):
        assert listed(visit(admin_client, q=words)) == [token]
    page = visit(admin_client, q="00-676e1bd0", status="live")
    assert (listed(page), shown_numbers(page)) == ([token], {Status.VALID: 1})


@pytest.mark.usefixtures("second_by_hand", "long_list")
@pytest.mark.parametrize(
    ("address", "query"),
    [
        (token_page("changelist"), "&status=live&deployment=second"),
        (token_page("changelist"), "&q=user_"),
        (identity_page("changelist"), "&deployment=default"),
        ("/admin/auth/user/", "&airisk_without=second"),
    ],
)
def test_show_counts_says_how_many_a_click_finds(
    address: str, query: str, admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_clock(monkeypatch)
    store_all()
    person("tom", "user_7", deployment="gone")
    changelist = admin_client.get(f"{address}?_facets=True{query}").context["cl"]
    ours = [each for each in changelist.filter_specs if isinstance(each, filters.Filter)]
    assert ours
    for choice in (choice for each in ours for choice in [*each.choices(changelist)][1:]):
        number = re.search(r" \((\d+)\)$", str(choice["display"]))
        found = admin_client.get(address + choice["query_string"]).context["cl"]
        assert number, choice
        assert found.result_count == int(number[1]), choice


@pytest.mark.usefixtures("long_list")
def test_show_counts_looks_no_row_up_in_a_subquery(admin_client: Client) -> None:
    """Where a choice is found by a subquery, PostgreSQL reads the result of it anew for each row."""
    for name in ("mia", "tom"):
        give_token(person(name))
    for address in (token_page("changelist"), identity_page("changelist"), "/admin/auth/user/"):
        with CaptureQueriesContext(connection) as queries:
            admin_client.get(f"{address}?_facets=True")
        assert not [query["sql"] for query in queries if "IN (SELECT" in query["sql"]]


@pytest.mark.usefixtures("long_list")
def test_search_finds_a_limited_number(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "FOUND", 2)
    for number in range(4):
        give_token(person(f"user-{number}"))
    page = visit(admin_client, q="user-")
    assert (len(listed(page)), shown_numbers(page)) == (2, {Status.VALID: 2})


@pytest.mark.usefixtures("long_list")
@pytest.mark.skipif(connection.vendor == "mysql", reason="explains in another way, and takes no index of a small table")
def test_search_of_a_long_list_uses_indexes(admin_client: Client) -> None:
    for name in ("mia", "tom"):
        give_token(person(name))
    with CaptureQueriesContext(connection) as queries:
        visit(admin_client, q="user_")
    searches = [query["sql"] for query in queries if "LIKE" in query["sql"]]
    assert len(searches) == 3
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            # A small table is read as a whole otherwise.
            cursor.execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off")
        for sql in searches:
            cursor.execute(f"EXPLAIN {'QUERY PLAN ' if connection.vendor == 'sqlite' else ''}{sql}")
            plan = str(cursor.fetchall())
            assert "Index Cond" in plan or "USING INDEX" in plan or "USING COVERING INDEX" in plan, plan


def test_long_lists_are_recognized_by_size(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searching, "LARGE", 2)
    cache.clear()
    for number in range(3):
        assert NOTE not in text_of(visit(admin_client))
        assert "a search finds" not in text_of(admin_client.get(identity_page("changelist")))
        give_token(person(f"user-{number}"))
    assert AIRiskIdentity.objects.count() == 3
    assert NOTE in text_of(visit(admin_client))
    assert "a search finds" in text_of(admin_client.get(identity_page("changelist")))
    cache.clear()

"""The admin's list of tokens and the page of one: what they show, and that nothing there decrypts or shows a token."""

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from django.contrib.admin import AdminSite
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from airisk_oauth.admin import AIRiskTokenAdmin
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from tests.support.admin import allow, identity_page, listed, person, text_of, token_page
from tests.support.options import replace_keys
from tests.support.people import give_token
from tests.support.statuses import store_described
from tests.support.stored import rows_of_flows_and_tokens

if TYPE_CHECKING:
    from pytest_django import Settings

CANARY = "Zq9-canary-0123456789-token"


@pytest.mark.parametrize("page", [token_page, identity_page])
def test_long_list_takes_no_more_queries(page: Any, admin_client: Client) -> None:
    counts = []
    for size in (3, 30):
        for number in range(size):
            give_token(person(f"{size}-{number}"))
        admin_client.get(page("changelist"))
        with CaptureQueriesContext(connection) as queries:
            listed(admin_client.get(page("changelist")))
        counts.append(len(queries))
        assert not any('"sealed",' in query["sql"] for query in queries)
    assert counts[0] == counts[1]


# What is shown


def test_pages_show_what_failed_and_when(admin_client: Client) -> None:
    answer: dict[str, Any] = {"failure_reason": "Unauthorized", "failure_trace_id": "00-1-2-00"}
    token = give_token(person("mia"), failure_kind="refused", failure_status=401, **answer)
    for page in (token_page("changelist"), token_page("change", token.pk)):
        text = text_of(admin_client.get(page))
        assert "mia" in text
        assert "refused by AIRisk · 401 · Unauthorized" in text
    assert "00-1-2-00" in text
    AIRiskToken.objects.all().delete()
    failed_at = timezone.now() - timedelta(hours=3)
    give_token(None, failure_kind="unavailable", failure_count=1, failed_at=failed_at)
    assert (
        "the application default failing AIRisk unavailable · 3 hours ago in 59 minutes less than a minute ago "
        "less than a minute ago -"
    ) in text_of(admin_client.get(token_page("changelist")))


@pytest.mark.usefixtures("second_by_hand")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("with an hour left", "valid in 59 minutes"),
        ("expired", "expired the next call renews it 1 minute ago"),
        ("expired, of an unknown deployment", "expired the settings have no such deployment"),
        ("by hand and expired", "reconnect needed a person has to connect"),
        ("identity removed", "reconnect needed the user's AIRisk identity has changed or was removed"),
        ("the application's, refused", "reconnect needed refused by AIRisk in"),
        ("issued elsewhere", "reconnect needed the token was issued by another address of AIRisk: the user has"),
        ("unknown key and more", "cannot be decrypted its encryption key is not in the settings · refused by AIRisk"),
        ("not obtained", "not obtained yet - - less than a minute ago"),
        ("of a deactivated user", "valid the user is deactivated in 59 minutes"),
    ],
)
def test_list_says_why_a_token_has_its_status(name: str, words: str, admin_client: Client) -> None:
    store_described(name)
    assert words in text_of(admin_client.get(token_page("changelist"))).partition("Deployment")[2]


@pytest.mark.parametrize(
    ("ends_in", "words"),
    [
        (7260, "in 2 hours"),
        (50, "in less than a minute"),
        (-50, "less than a minute ago"),
        (-200, "3 minutes ago"),
        (None, "no expiry"),
    ],
)
def test_list_tells_times_as_people_do(ends_in: float | None, words: str, admin_client: Client) -> None:
    give_token(None, ends_in=ends_in, last_used_at=timezone.now() - timedelta(days=3))
    text = text_of(admin_client.get(token_page("changelist")))
    assert words in text
    assert "3 days ago" in text


def test_list_counts_each_status_and_links_to_it(admin_client: Client) -> None:
    give_token(None, ends_in=-60)
    for name in ("mia", "tom"):
        give_token(person(name))
    page = admin_client.get(token_page("changelist"))
    assert "2 valid 1 expired" in text_of(page)
    links = re.findall(r'<a href="(\?status=\w+)"><span', page.content.decode())
    assert [len(listed(admin_client.get(token_page("changelist") + link))) for link in links] == [2, 1]


def test_numbers_keep_the_filters_and_the_search(admin_client: Client) -> None:
    for name in ("mia", "tom"):
        give_token(person(name), deployment="second", ends_in=-60)
        give_token(person(f"{name}2"))
    page = admin_client.get(token_page("changelist"), {"deployment": "second", "q": "mia", "status": "live"})
    assert "1 reconnect needed" in text_of(page)
    [link] = re.findall(r'<a href="(\?[^"]*)"><span', page.content.decode())
    [found] = listed(admin_client.get(token_page("changelist") + link.replace("&amp;", "&")))
    assert (found.user.username, found.deployment) == ("mia", "second")


def test_deployment_is_named_where_there_are_several(admin_client: Client, settings: "Settings") -> None:
    give_token(None)
    assert 'class="field-deployment' in admin_client.get(token_page("changelist")).text
    settings.AIRISK_OAUTH = {"default": settings.AIRISK_OAUTH["default"]}
    assert 'class="field-deployment' not in admin_client.get(token_page("changelist")).text


def test_tokens_of_removed_deployments_are_found(admin_client: Client) -> None:
    give_token(person("mia"))
    give_token(person("tom"), deployment="gone")
    [found] = listed(admin_client.get(token_page("changelist"), {"deployment": "!"}))
    assert found.deployment == "gone"


def test_tokens_are_found_by_what_the_log_names(admin_client: Client) -> None:
    token = give_token(person("mia"), failure_trace_id="00-676e1bd0-35ac77b2-00")
    give_token(person("tom"))
    for words in (str(token.pk), f" {token.pk} ", "676e1bd0"):
        assert listed(admin_client.get(token_page("changelist"), {"q": words})) == [token]


def test_page_of_a_token_shows_the_identity_now(admin_client: Client) -> None:
    mia = person("mia")
    token = give_token(mia)
    identity = AIRiskIdentity.objects.get(user=mia)
    AIRiskIdentity.objects.update(userid="user_now")
    link = f'<a href="{identity_page("change", identity.pk)}">user_now</a>'
    assert link in admin_client.get(token_page("change", token.pk)).text
    for application in (False, True):
        AIRiskIdentity.objects.all().delete()
        token = give_token(None) if application else token
        assert "user_now" not in admin_client.get(token_page("change", token.pk)).text


def test_page_of_a_token_offers_to_renew_it(admin_client: Client, desk: Client, staff: User) -> None:
    token = give_token(person("mia"))
    page = admin_client.get(token_page("change", token.pk)).text
    form = r'<form method="post" action="([^"]+)">.*?name="action" value="(\w+)">.*?value="(\d+)">'
    [(address, action, chosen)] = re.findall(form, page, re.DOTALL)
    confirm = admin_client.post(address, {"action": action, "_selected_action": chosen})
    assert "Renew 1 token now?" in text_of(confirm)
    allow(staff, "view_airisktoken")
    assert "Renew now" not in desk.get(token_page("change", token.pk)).text


def test_token_links_to_its_user(admin_client: Client) -> None:
    mia = person("mia")
    token = give_token(mia)
    link = f'<a href="{reverse("admin:auth_user_change", args=[mia.pk])}">mia</a>'
    for page in (token_page("changelist"), token_page("change", token.pk)):
        assert link in admin_client.get(page).content.decode()
    assert f'<a href="{token_page("change", token.pk)}"' in admin_client.get(token_page("changelist")).content.decode()
    bare = AdminSite()
    bare.register(AIRiskToken, AIRiskTokenAdmin)
    admin: Any = bare.get_model_admin(AIRiskToken)
    assert (admin.owner_link(token), admin.identity(token)) == ("mia", "user_42")


@pytest.mark.parametrize("page", [token_page, identity_page])
@pytest.mark.parametrize("words", ["mia", "mia@example.com", "user_7"])
def test_users_are_found_by_name_email_and_userid(page: Any, words: str, admin_client: Client) -> None:
    mia, tom = person("mia", "user_7"), person("tom")
    give_token(mia, userid="user_7")
    give_token(tom)
    give_token(None)
    [found] = listed(admin_client.get(page("changelist"), {"q": words}))
    assert found.user == mia


@pytest.mark.parametrize("page", [token_page, identity_page])
def test_lists_are_filtered_by_deployment(page: Any, admin_client: Client) -> None:
    mia = person("mia")
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_7")
    give_token(mia)
    give_token(mia, deployment="second")
    assert len(listed(admin_client.get(page("changelist")))) == 2
    [found] = listed(admin_client.get(page("changelist"), {"deployment": "second"}))
    assert found.deployment == "second"


# What is not


def test_no_page_decrypts_a_token(admin_client: Client, settings: "Settings") -> None:
    replace_keys(settings)
    token = give_token(person("mia"))
    replace_keys(settings)
    assert "cannot be decrypted" in text_of(admin_client.get(token_page("changelist")))
    for page in ("change", "delete", "history"):
        assert admin_client.get(token_page(page, token.pk)).status_code == 200


def assert_shown_nowhere(browser: Client, token: AIRiskToken, *urls: str) -> None:
    """Visit the list and the pages of a token whose plain text is :data:`CANARY`, and these."""
    pages = [
        token_page("changelist"),
        f"{token_page('changelist')}?q=user_42",
        f"{token_page('changelist')}?status=reconnect",
        *(token_page(page, token.pk) for page in ("change", "history")),
        identity_page("changelist"),
        *urls,
    ]
    for url in pages:
        response = browser.get(url)
        assert response.status_code == 200
        page = response.content.decode()
        for secret in (CANARY, token.sealed):
            assert all(secret[start : start + 8] not in page for start in range(len(secret) - 8))
    for part in (CANARY, CANARY[:6], token.sealed, token.sealed[:8]):
        assert listed(browser.get(token_page("changelist"), {"q": part})) == []


@pytest.fixture
def canary(db: None) -> AIRiskToken:
    """Mia's token, which was refused; the application has one of the same plain text."""
    give_token(None, access_token=CANARY)
    return give_token(person("mia"), access_token=CANARY, failure_kind="refused", failure_count=1)


def test_superuser_sees_no_part_of_a_token(admin_client: Client, canary: AIRiskToken) -> None:
    deletion = reverse("admin:auth_user_delete", args=[canary.user_id])
    assert_shown_nowhere(admin_client, canary, token_page("delete", canary.pk), deletion, reverse("admin:index"))


def test_viewer_sees_no_part_of_a_token(desk: Client, staff: User, canary: AIRiskToken) -> None:
    allow(staff, "view_airisktoken", "view_airiskidentity")
    assert_shown_nowhere(desk, canary)


def test_tokens_can_neither_be_added_nor_changed(admin_client: Client) -> None:
    token = give_token(person("mia"))
    before = rows_of_flows_and_tokens()
    page = admin_client.get(token_page("change", token.pk)).content.decode()
    assert not re.search(r'name="(_save|user|userid|sealed|access_token|deployment|expires_at)"', page)
    assert admin_client.get(token_page("add")).status_code == 403
    for url in (token_page("add"), token_page("change", token.pk)):
        assert admin_client.post(url, {"userid": "user_1", "user": "", "deployment": "second"}).status_code == 403
    assert rows_of_flows_and_tokens() == before


@pytest.mark.parametrize("codenames", [(), ("view_airiskidentity",)])
def test_without_permission_nothing_is_shown(codenames: tuple[str, ...], desk: Client, staff: User) -> None:
    allow(staff, *codenames)
    token = give_token(person("mia"))
    for url in (token_page("changelist"), token_page("change", token.pk), token_page("delete", token.pk)):
        assert desk.get(url).status_code == 403

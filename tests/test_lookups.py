"""What staff who may only look learn of a token's sealed text by asking the admin for lists: nothing."""

from typing import Any
from urllib.parse import parse_qsl

import pytest
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.auth.models import Permission, User
from django.core.exceptions import FieldError
from django.core.management import call_command
from django.db import models
from django.db.models import F, Q
from django.db.models.functions import Length, Lower
from django.test import Client
from django.urls import path

from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from tests.support.people import give_token

#: All of Django's own look-ups, and those that take a function's result.
SEARCHES = ["startswith", "istartswith", "contains", "icontains", "endswith", "iendswith", "regex", "iregex", "iexact"]
SEARCHES += ["gt", "gte", "lt", "lte", "range", "length", "lower__startswith"]
TOKENS, IDENTITIES, USERS = (
    f"/admin/{name}/" for name in ("airisk_oauth/airisktoken", "airisk_oauth/airiskidentity", "auth/user")
)


class LooseSite(AdminSite):
    """A site whose own admin of our tokens knows nothing of ours."""


loose = LooseSite("loose")
loose.register(AIRiskToken, ModelAdmin)
loose.register(User, type("UserAdmin", (ModelAdmin,), {"list_filter": ["airisk_tokens__deployment"]}))
urlpatterns: list[Any] = [path("loose/", loose.urls)]


@pytest.fixture
def looker(mia: User, client: Client) -> Client:
    """The browser of staff who may see everything and change nothing; there is one token to be seen."""
    give_token(mia)
    staff = User.objects.create_user("sam", is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client.force_login(staff)
    return client


def is_told_nothing(looker: Client, page: str, lookup: str) -> bool:
    """Ask for what is there and for what is not, and tell whether the answers are the same refusal."""
    answers = []
    for value in (AIRiskToken.objects.get().sealed[:3], "nothing"):
        response = looker.get(page, {lookup: value})
        answers.append((response.status_code, response.get("Location")))
    # Django leads away from a look-up that cannot be.
    return answers[0] == answers[1] and answers[0] in ((400, None), (302, f"{page}?e=1"))


@pytest.mark.parametrize("column", ["sealed", "key_id", "lease", "lease_until"])
def test_list_is_not_filtered_by_hidden_columns(column: str, looker: Client) -> None:
    for search in (*SEARCHES, "isnull", "in", "exact"):
        assert is_told_nothing(looker, TOKENS, f"{column}__{search}"), search


@pytest.mark.parametrize(
    ("page", "path"),
    [
        (TOKENS, "sealed"),
        (TOKENS, "user__airisk_tokens__sealed"),
        (TOKENS, "user__airisk_identities__user__airisk_tokens__sealed"),
        (IDENTITIES, "user__airisk_tokens__sealed"),
        (USERS, "airisk_tokens__sealed"),
    ],
)
def test_no_list_is_filtered_by_sealed_text(page: str, path: str, looker: Client) -> None:
    for search in SEARCHES:
        assert is_told_nothing(looker, page, f"{path}__{search}"), search


@pytest.mark.urls(__name__)
def test_other_admin_cannot_search_sealed_text(looker: Client) -> None:
    for search in SEARCHES:
        assert is_told_nothing(looker, "/loose/airisk_oauth/airisktoken/", f"sealed__{search}"), search
        assert is_told_nothing(looker, "/loose/auth/user/", f"airisk_tokens__sealed__{search}"), search


@pytest.mark.parametrize("query", ["o=99", "o=-99", "o=8.9", "_facets=1", "all="])
def test_order_and_facets_tell_nothing(query: str, looker: Client) -> None:
    response = looker.get(f"{TOKENS}?{query}")
    assert response.status_code == 200
    assert AIRiskToken.objects.get().sealed[:6] not in response.content.decode()
    assert "sealed" not in str(response.context["cl"].queryset.query).partition("ORDER BY")[2]


@pytest.mark.parametrize("column", ["sealed", "key_id"])
def test_search_finds_no_hidden_column(column: str, looker: Client) -> None:
    words = getattr(AIRiskToken.objects.get(), column)[:6]
    assert not looker.get(TOKENS, {"q": words}).context["cl"].result_list
    assert looker.get(TOKENS, {"q": "user_42"}).context["cl"].result_list


@pytest.mark.parametrize("page", [TOKENS, f"{TOKENS}1/change/"])
def test_popup_does_not_give_a_hidden_column(page: str, looker: Client) -> None:
    AIRiskToken.objects.update(id=1)
    assert looker.get(page, {"_to_field": "sealed", "_popup": "1"}).status_code == 400


def test_shown_columns_can_still_be_filtered_by(looker: Client) -> None:
    for query in ("userid__startswith=user", "status=live", "deployment=default", "failure_count__gt=-1", "user__id=1"):
        assert looker.get(f"{TOKENS}?{query}").status_code == 200


@pytest.mark.parametrize("query", ["state=live&q=42", "q=42&state=failing&state=live&status=ended"])
def test_bookmark_with_state_still_filters(query: str, looker: Client) -> None:
    """The parameter was called ``state`` in version 1.0."""
    page = looker.get(f"{TOKENS}?{query}", follow=True)
    assert page.redirect_chain == [(f"{TOKENS}?{page.request['QUERY_STRING']}", 302)]
    assert page.status_code == 200
    assert dict(parse_qsl(page.request["QUERY_STRING"])) == {"q": "42", "status": "live"}
    assert [token.userid for token in page.context["cl"].result_list] == ["user_42"]


@pytest.mark.parametrize("search", SEARCHES)
def test_sealed_column_cannot_be_searched(search: str, db: None) -> None:
    for tokens in (AIRiskToken.objects, User.objects, AIRiskIdentity.objects):
        way = {AIRiskToken: "", User: "airisk_tokens__", AIRiskIdentity: "user__airisk_tokens__"}[tokens.model]
        with pytest.raises(FieldError):
            tokens.filter(**{f"{way}sealed__{search}": "g"}).exists()


def test_sealed_column_can_be_compared_as_a_whole(mia: User) -> None:
    token = give_token(mia)
    for condition in (Q(sealed=token.sealed), Q(sealed__in=[token.sealed, ""]), ~Q(sealed=""), Q(sealed=F("sealed"))):
        assert AIRiskToken.objects.get(condition) == token
    # What the package's own code computes of it is no look-up that came in a URL.
    assert AIRiskToken.objects.annotate(size=Length(Lower("sealed"))).get().size == len(token.sealed)


def test_migrations_see_a_plain_text_column(db: None) -> None:
    field = AIRiskToken._meta.get_field("sealed")
    assert field.deconstruct()[:2] == ("sealed", "django.db.models.TextField")
    assert isinstance(field.clone(), models.TextField)
    call_command("makemigrations", check=True, dry_run=True, verbosity=0)

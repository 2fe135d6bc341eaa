"""Identities on the pages of users, and users who have none."""

from typing import TYPE_CHECKING, Any

import pytest
from django.contrib import admin
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from airisk_oauth.admin import AIRiskIdentityAdmin, AIRiskIdentityFilter, AIRiskIdentityInline
from airisk_oauth.admin.users import extend_djangos_user_admin
from airisk_oauth.models import AIRiskIdentity
from tests.support.admin import allow, identity_page, listed, person, text_of
from tests.support.statuses import GONE

if TYPE_CHECKING:
    from pytest_django import Settings

USERS = "/admin/auth/user/"
PREFIX = "airisk_identities"


def save_user(browser: Client, user: User, *rows: dict[str, Any], stored: int = 0) -> Any:
    """Submit a user's page with these identities, of which the first ones are stored already."""
    page = f"{USERS}{user.pk}/change/"
    given = browser.get(page).context["adminform"].form.initial
    kept = {name: value for name, value in given.items() if isinstance(value, str) and value}
    rest = {"date_joined_0": "2026-01-01", "date_joined_1": "10:00:00", "is_active": "on"}
    management = {f"{PREFIX}-TOTAL_FORMS": len(rows), f"{PREFIX}-INITIAL_FORMS": stored}
    fields = {f"{PREFIX}-{at}-{name}": value for at, row in enumerate(rows) for name, value in row.items()}
    return browser.post(page, {**kept, **rest, **management, **fields, "user": user.pk})


def test_identities_are_edited_on_a_users_page(admin_client: Client) -> None:
    mia = person("mia", deployment=GONE)
    identity = AIRiskIdentity.objects.get()
    assert GONE in admin_client.get(f"{USERS}{mia.pk}/change/").text
    kept = {"id": identity.pk, "user": mia.pk, "deployment": GONE, "userid": "user_43"}
    new = {"id": "", "user": mia.pk, "deployment": "second", "userid": "user_7"}
    assert save_user(admin_client, mia, kept, new, stored=1).status_code == 302
    found = set(AIRiskIdentity.objects.values_list("user", "deployment", "userid"))
    assert found == {(mia.pk, GONE, "user_43"), (mia.pk, "second", "user_7")}
    wrong = {"id": "", "user": mia.pk, "deployment": "default", "userid": "user\u202e7"}
    assert "This cannot be a userid" in text_of(save_user(admin_client, mia, wrong))


def test_identity_can_be_given_with_a_new_user(admin_client: Client) -> None:
    page = admin_client.get(f"{USERS}add/")
    assert f'name="{PREFIX}-TOTAL_FORMS"' in page.text


def test_users_page_hides_identities_as_permitted(desk: Client, staff: User) -> None:
    mia = person("mia")
    view_user = Permission.objects.get(content_type__app_label="auth", codename="view_user")
    for codenames, is_shown in ((["view_airisktoken"], False), (["view_airiskidentity"], True)):
        allow(staff, *codenames)
        staff.user_permissions.add(view_user)
        assert ("user_42" in desk.get(f"{USERS}{mia.pk}/change/").text) == is_shown


def test_users_can_be_edited_with_wrong_settings(admin_client: Client, settings: "Settings") -> None:
    mia = person("mia")
    settings.AIRISK_OAUTH = {}
    for page in (USERS, f"{USERS}{mia.pk}/change/"):
        assert "mia" in text_of(admin_client.get(page))


def test_users_without_an_identity_are_listed(admin_client: Client, admin_user: User) -> None:
    person("mia")
    tom = person("tom", deployment="second")
    page = admin_client.get(identity_page("changelist")).text
    link = f"{USERS}?airisk_without=default"
    assert f'<a href="{link}"' in page
    assert set(listed(admin_client.get(link))) == {tom, admin_user}
    assert len(listed(admin_client.get(USERS))) == 3


def test_filter_uses_nothing_of_a_sites_own_admin(admin_user: User, rf: Any) -> None:
    own: Any = type("Own", (UserAdmin,), {"list_filter": (AIRiskIdentityFilter,), "numbers": "one, two"})
    request = rf.get("/", {"airisk_without": "default", "_facets": "True"})
    request.user = admin_user
    changelist = own(User, AdminSite()).get_changelist_instance(request)
    [ours] = changelist.filter_specs
    shown = [str(choice["display"]) for choice in ours.choices(changelist)]
    assert "none for “default” (1)" in shown
    assert list(changelist.result_list) == [admin_user]


def test_no_link_to_users_that_cannot_be_filtered(admin_client: Client, admin_user: User, rf: Any) -> None:
    request = rf.get("/")
    request.user = admin_user
    site = AdminSite()
    shown = AIRiskIdentityAdmin(AIRiskIdentity, site)
    assert len([*shown._tools(request)]) == 1
    site.register(User, ModelAdmin)
    assert len([*shown._tools(request)]) == 1


@pytest.mark.parametrize(
    ("kind", "is_extended"),
    [(UserAdmin, True), (type("Own", (UserAdmin,), {}), False), (ModelAdmin, False)],
)
def test_only_djangos_own_user_admin_is_extended(kind: type[Any], is_extended: bool) -> None:
    site = AdminSite()
    extend_djangos_user_admin(site)
    site.register(User, kind)
    extend_djangos_user_admin(site)
    registered: Any = site.get_model_admin(User)
    assert (AIRiskIdentityInline in registered.inlines) == is_extended
    assert (AIRiskIdentityFilter in registered.list_filter) == is_extended
    assert AIRiskIdentityInline not in kind.inlines
    assert registered.check() == []


def test_extended_admin_is_the_sites() -> None:
    assert AIRiskIdentityInline in admin.site.get_model_admin(User).inlines
    assert reverse("admin:auth_user_changelist") == USERS

"""Identities in the admin: who is who on AIRisk, edited by staff."""

import re
from typing import Any

import pytest
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.widgets import AutocompleteSelect, ForeignKeyRawIdWidget
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from airisk_oauth.admin import AIRiskIdentityAdmin
from airisk_oauth.models import AIRiskIdentity, AIRiskToken, PendingAuthorization
from tests.support.admin import identity_page, person, text_of
from tests.support.browsing import start
from tests.support.people import give_token
from tests.support.statuses import GONE


def test_identity_is_added_and_edited(admin_client: Client) -> None:
    user = User.objects.create_user("mia")
    form = admin_client.get(identity_page("add")).content.decode()
    select = re.search(r'<select name="deployment".*?</select>', form, re.DOTALL)
    assert select is not None
    assert re.findall(r'value="(\w+)"', select[0]) == ["default", "second"]
    given = {"user": user.pk, "deployment": "second", "userid": " user_7 "}
    assert admin_client.post(identity_page("add"), given).status_code == 302
    identity = AIRiskIdentity.objects.get()
    assert (identity.user, identity.deployment, identity.userid) == (user, "second", "user_7")
    assert "user_7" in text_of(admin_client.get(identity_page("changelist")))
    given = {"user": user.pk, "deployment": "second", "userid": "user_8"}
    assert admin_client.post(identity_page("change", identity.pk), given).status_code == 302
    assert AIRiskIdentity.objects.get().userid == "user_8"


@pytest.mark.parametrize(
    ("userid", "words"),
    [
        ("user\t42", "This cannot be a userid"),
        ("user\u202e42", "This cannot be a userid"),
        ("", "This field is required"),
        ("x" * 256, "at most 255 characters"),
    ],
)
def test_impossible_userid_is_refused(userid: str, words: str, admin_client: Client) -> None:
    user = User.objects.create_user("mia")
    given = {"user": user.pk, "deployment": "default", "userid": userid}
    assert words in text_of(admin_client.post(identity_page("add"), given))
    assert not AIRiskIdentity.objects.exists()


def test_second_identity_of_a_user_is_refused(admin_client: Client) -> None:
    given = {"user": person("mia").pk, "deployment": "default", "userid": "user_1"}
    assert "already exists" in text_of(admin_client.post(identity_page("add"), given))
    assert AIRiskIdentity.objects.get().userid == "user_42"


def test_editing_keeps_an_identitys_deployment(admin_client: Client) -> None:
    """Nor one whose deployment is not in the settings any more: what the form shows is what a browser sends."""
    person("mia", deployment=GONE)
    identity = AIRiskIdentity.objects.get()
    form = admin_client.get(identity_page("change", identity.pk)).content.decode()
    assert re.search(rf'<option value="{GONE}"[^>]*selected', form)


Searchable = type("Searchable", (ModelAdmin,), {"search_fields": ("username",)})


@pytest.mark.parametrize(
    ("users", "widget"),
    [(None, ForeignKeyRawIdWidget), (ModelAdmin, ForeignKeyRawIdWidget), (Searchable, AutocompleteSelect)],
)
def test_user_field_suits_the_sites_own_admin(users: Any, widget: type[Any], rf: Any, admin_user: User) -> None:
    site = AdminSite()
    if users is not None:
        site.register(User, users)
    request = rf.get("/")
    request.user = admin_user
    field = AIRiskIdentityAdmin(AIRiskIdentity, site).get_form(request).base_fields["user"]
    assert type(getattr(field.widget, "widget", field.widget)) is widget


def test_deleting_a_user_deletes_their_rows(admin_client: Client, mia: User, browser: Client) -> None:
    start(browser)
    give_token(mia)
    application = give_token(None)
    response = admin_client.post(reverse("admin:auth_user_delete", args=[mia.pk]), {"post": "yes"})
    assert response.status_code == 302
    assert not User.objects.filter(pk=mia.pk).exists()
    assert not AIRiskIdentity.objects.exists()
    assert not PendingAuthorization.objects.exists()
    assert list(AIRiskToken.objects.all()) == [application]

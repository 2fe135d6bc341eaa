"""A site whose users sign in with django-allauth."""

from typing import Any

from django.urls import include, path

from tests.sites import frameworks, running
from tests.sites.frameworks import AIRISK, snippet
from tests.support.pages import module

DEPLOYMENTS: Any = running.deployments(AIRISK.url)
DEPLOYMENTS["default"]["USERID"] = "mysite.userids.from_company_account"
frameworks.configure(
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    snippet=snippet("ACCOUNT_ADAPTER"),
    MIDDLEWARE=[*running.MIDDLEWARE, "allauth.account.middleware.AccountMiddleware"],
    AUTHENTICATION_BACKENDS=["allauth.account.auth_backends.AuthenticationBackend"],
    AIRISK_OAUTH=DEPLOYMENTS,
    LOGIN_REDIRECT_URL="/home/",
)

from allauth.socialaccount.models import SocialAccount  # noqa: E402 - after the set-up
from django.contrib.auth.models import User  # noqa: E402

from airisk_oauth.decorators import airisk_required  # noqa: E402
from tests.sites import mission as people  # noqa: E402

module("mysite.adapters", snippet("class AccountAdapter"))
module("mysite.userids", snippet("def from_company_account"))
urlpatterns = [
    path("accounts/", include("allauth.urls")),
    path("airisk/", include("airisk_oauth.urls")),
    path("conversations/", airisk_required(running.conversations)),
]


def new_person(name: str, uid: str = "") -> people.Person:
    """Create a user who is not signed in; with an account at the company if ``uid`` is given."""
    user = User.objects.create_user(name, password="password of a person")
    if uid:
        SocialAccount.objects.create(user=user, provider="company", uid=uid)
    browser = people.new_browser()
    return people.Person(user, uid, browser, caller=browser)


def sign_in(person: people.Person, page: str = "/accounts/login/") -> str:
    """Sign in, and return where the browser is sent."""
    person.browser.handler.enforce_csrf_checks = False
    form = {"login": person.user.username, "password": "password of a person"}
    response = person.browser.post(page, form, secure=True)
    assert response.status_code == 302, people.why(response)
    return str(response["Location"])


def visitor_signs_in_and_connects() -> None:
    mia = new_person("mia", "user_42")
    login = mia.call()["Location"]
    assert login == "/accounts/login/?next=/conversations/", login
    assert sign_in(mia, login) == "/conversations/"
    assert mia.call()["Location"] == "/airisk/connect/?next=%2Fconversations%2F"
    people.connect(mia)
    people.assert_called(mia)


def unconnected_user_is_asked_to_connect_after_login() -> None:
    assert sign_in(new_person("max", "user_43")) == "/airisk/connect/?next=%2Fhome%2F"


def others_are_asked_nothing_after_login() -> None:
    assert sign_in(new_person("noid")) == "/home/"
    ada = new_person("ada", "ada")
    people.give_token(ada, AIRISK.new_token("ada"), expires_in=3600)
    assert sign_in(ada) == "/home/"


running.keep(
    visitor_signs_in_and_connects,
    unconnected_user_is_asked_to_connect_after_login,
    others_are_asked_nothing_after_login,
)

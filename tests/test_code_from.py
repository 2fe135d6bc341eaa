"""Whose token a connection stores, on deployments that check which user a code is for, and on others."""

from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from django.urls import reverse

from airisk_oauth import AIRiskSession
from airisk_oauth.models import AIRiskToken
from tests.support.browsing import authorize, start
from tests.support.second_airisk import SecondAIRisk, answer_text, page, problem, redirect, second_airisk

pytestmark = pytest.mark.django_db
TOKEN = ("POST", "/api/oauth2/Token")


@pytest.fixture
def airisk(settings: Any) -> Iterator[SecondAIRisk]:
    with second_airisk(settings, codes_carry_user=True) as airisk:
        yield airisk


def code_from(settings: Any, where: str, **options: Any) -> None:
    default = {**settings.AIRISK_OAUTH["default"], "CODE_FROM": where, **options}
    settings.AIRISK_OAUTH = {**settings.AIRISK_OAUTH, "default": default}


def edited(url: str, **changes: str) -> str:
    """Change an address, as anybody can in the address bar."""
    parts = urlsplit(url)
    return parts._replace(query=urlencode({**dict(parse_qsl(parts.query)), **changes})).geturl()


def forms(airisk: SecondAIRisk) -> list[dict[str, str]]:
    return [given for method, path, given in airisk.requests if (method, path) == TOKEN]


def seen_by(user: User) -> Any:
    with AIRiskSession.for_user(user) as session:
        return session.get("/api/GetConversations").json()[0]["userID"]


@pytest.mark.parametrize(("where", "reached"), [("server", "user_42"), ("browser", "user_7")])
def test_edited_userid_reaches_nobody_with_server(
    airisk: SecondAIRisk, settings: Any, mia: User, browser: Client, where: str, reached: str
) -> None:
    """With ``browser`` nothing can tell: state, browser and user all fit, and the row names user_42."""
    code_from(settings, where)
    back = browser.get(authorize(edited(start(browser), userid="user_7")))
    assert (back.status_code, back["Location"]) == (302, reverse("airisk_oauth:connection"))
    assert AIRiskToken.objects.get().userid == "user_42"
    assert seen_by(mia) == reached


def test_browsers_code_is_never_sent_with_server(
    airisk: SecondAIRisk, settings: Any, mia: User, browser: Client
) -> None:
    code_from(settings, "server")
    back = authorize(start(browser))
    browser.get(back)
    [form] = forms(airisk)
    assert form["code"] not in back
    assert form["userid"] == "user_42"
    assert seen_by(mia) == "user_42"


def test_edited_userid_spares_the_application(airisk: SecondAIRisk, settings: Any, mia: User, browser: Client) -> None:
    """Even where this server does not renew by itself, and staff have to connect the application."""
    code_from(settings, "server", SILENT_RENEWAL=False)
    User.objects.filter(pk=mia.pk).update(is_staff=True)
    mia.user_permissions.add(*Permission.objects.filter(codename__in=["change_airisktoken", "view_airisktoken"]))
    started = browser.post(reverse("admin:airisk_oauth_airisktoken_obtain", args=["default"]))
    browser.get(authorize(edited(started["Location"], userid="user_7")))
    assert airisk.tokens[AIRiskToken.objects.get(user=None).access_token] is None


@pytest.mark.parametrize(
    "shown", [page, lambda: redirect("https://login.example/"), lambda: redirect("/Account/Login")]
)
def test_browsers_code_is_used_after_a_page(
    airisk: SecondAIRisk, settings: Any, mia: User, browser: Client, shown: Any
) -> None:
    code_from(settings, "server")
    back = authorize(start(browser))
    airisk.answers["GET", "/api/oauth2"] = lambda given: shown()
    airisk.answers["GET", "/Account/Login"] = lambda given: page()
    assert browser.get(back).status_code == 302
    [form] = forms(airisk)
    assert form["code"] in back
    assert seen_by(mia) == "user_42"


@pytest.mark.parametrize(
    "refused",
    [
        problem,
        lambda: answer_text("Invalid userid"),
        lambda: redirect("/api/error?error=access_denied"),
        lambda: redirect("/api/error"),
        lambda: (503, {}, b""),
    ],
)
def test_refusal_to_our_server_connects_nobody(
    airisk: SecondAIRisk, settings: Any, mia: User, browser: Client, refused: Any
) -> None:
    code_from(settings, "server")
    back = authorize(start(browser))
    airisk.answers["GET", "/api/oauth2"] = lambda given: refused()
    airisk.answers["GET", "/api/error"] = lambda given: problem(400, "Invalid userid")
    browser.get(back)
    assert not AIRiskToken.objects.exists()
    assert forms(airisk) == []


def test_repeated_callback_fetches_no_second_code(
    airisk: SecondAIRisk, settings: Any, mia: User, browser: Client
) -> None:
    code_from(settings, "server")
    back = authorize(start(browser))
    assert [browser.get(back).status_code for _hit in range(2)] == [302, 302]
    assert len(forms(airisk)) == 1


def test_forged_callback_fetches_no_code(airisk: SecondAIRisk, settings: Any, browser: Client) -> None:
    code_from(settings, "server")
    start(browser)
    assert browser.get("/airisk/callback/?code=x&state=y").status_code == 403
    assert airisk.requests == []


def test_edited_userid_is_refused_by_bound_codes(settings: Any, mia: User, browser: Client) -> None:
    with second_airisk(settings) as airisk:
        back = authorize(edited(start(browser), userid="user_7"))
        browser.get(back)
        assert [form["userid"] for form in forms(airisk)] == ["user_42"]
        assert not AIRiskToken.objects.exists()

"""The admin's button that obtains the application's token."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

import pytest
import requests
from django.contrib.auth.models import User
from django.db import connections
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from airisk_oauth.models import AIRiskIdentity, AIRiskToken, PendingAuthorization
from airisk_oauth.sandbox.world import Caller, World
from airisk_oauth.signals import token_obtained
from tests.support.admin import act, allow, messages_in, obtain_page, person, token_page
from tests.support.browsing import at_each_request, authorize, start
from tests.support.options import replace_keys, set_option
from tests.support.people import give_token, token_requests
from tests.support.signals import signals_sent
from tests.support.statuses import GONE
from tests.support.stored import rows_of_flows_and_tokens

if TYPE_CHECKING:
    from pytest_django import Settings


def press(url: str) -> str:
    """Press the button of AIRisk's login page, and return the path that AIRisk sends the browser back to."""
    with requests.Session() as session:
        page = session.get(url, timeout=5)
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
        fields = {name: unescape(value) for name, value in fields.items()}
        action = re.search(r'action="([^"]+)"', page.text)
        assert action is not None
        response = session.post(urljoin(page.url, action[1]), fields, allow_redirects=False, timeout=5)
    assert response.status_code == 302
    back = urlsplit(response.headers["Location"])
    return f"{back.path}?{back.query}"


def applications_token(airisk: World) -> Caller | None:
    token = AIRiskToken.objects.get(user=None)
    return airisk.caller_of(token.access_token)


@pytest.mark.parametrize(("alias", "client_id"), [("default", "client-1"), ("second", "client-2")])
def test_button_obtains_the_applications_token(
    alias: str, client_id: str, desk: Client, staff: User, airisk: World
) -> None:
    allow(staff, "change_airisktoken")
    assert f'action="{obtain_page(alias)}"' in desk.get(token_page("changelist")).content.decode()
    with signals_sent(token_obtained) as sent:
        response = desk.post(obtain_page(alias))
        assert (response.status_code, response["Location"]) == (302, token_page("changelist"))
    assert messages_in(desk) == ["The application's token was obtained."]
    assert applications_token(airisk) == Caller(client_id, None)
    assert sent == [(token_obtained, {"sender": AIRiskToken, "user_id": None, "deployment": alias})]
    assert not PendingAuthorization.objects.exists()


def page_is_shown(airisk: World, settings: "Settings") -> None:
    airisk.switches.login_page = True


def renewed_by_hand(airisk: World, settings: "Settings") -> None:
    set_option(settings, SILENT_RENEWAL=False)


def cannot_be_decrypted(airisk: World, settings: "Settings") -> None:
    replace_keys(settings)
    give_token(None)
    replace_keys(settings)


@pytest.mark.parametrize(
    ("arrange", "visit"),
    [(page_is_shown, press), (renewed_by_hand, authorize), (cannot_be_decrypted, authorize)],
)
def test_button_leads_to_airisk_and_back(
    arrange: Callable[[World, "Settings"], None],
    visit: Callable[[str], str],
    desk: Client,
    staff: User,
    airisk: World,
    settings: "Settings",
) -> None:
    """That is if AIRisk requires a person."""
    allow(staff, "change_airisktoken")
    AIRiskIdentity.objects.create(user=staff, userid="user_42")
    arrange(airisk, settings)
    url = desk.post(obtain_page())["Location"]
    assert urlsplit(url).netloc == urlsplit(settings.AIRISK_OAUTH["default"]["BASE_URL"]).netloc
    assert "userid" not in url
    back = visit(url)
    with signals_sent(token_obtained) as sent:
        response = desk.get(back)
        assert (response.status_code, response["Location"]) == (302, token_page("changelist"))
    assert messages_in(desk)[-1] == "You are connected to AIRisk."
    assert applications_token(airisk) == Caller("client-1", None)
    assert sent == [(token_obtained, {"sender": AIRiskToken, "user_id": None, "deployment": "default"})]


def assert_nothing_was_obtained(desk: Client, airisk: World) -> None:
    assert "You are connected" not in desk.get(reverse("airisk_oauth:connection")).content.decode()
    assert len(token_requests(airisk)) == 0
    assert not AIRiskToken.objects.exclude(sealed="").exists()


@pytest.fixture
def way_back(desk: Client, staff: User, airisk: World) -> str:
    """The path that AIRisk has sent Sam's browser back to."""
    allow(staff, "change_airisktoken")
    airisk.switches.login_page = True
    return press(desk.post(obtain_page())["Location"])


def test_lost_permission_obtains_nothing(
    way_back: str, desk: Client, staff: User, airisk: World, caplog: pytest.LogCaptureFixture
) -> None:
    allow(staff)
    assert desk.get(way_back).status_code == 302
    assert ": not permitted\n" in caplog.text
    assert_nothing_was_obtained(desk, airisk)


def test_deactivated_staff_obtains_nothing(way_back: str, desk: Client, staff: User, airisk: World) -> None:
    User.objects.filter(pk=staff.pk).update(is_active=False)
    assert desk.get(way_back).status_code == 403
    assert_nothing_was_obtained(desk, airisk)


def test_application_flow_is_bound_to_its_browser(way_back: str, staff: User, airisk: World) -> None:
    other = Client()
    other.force_login(staff)
    assert other.get(way_back).status_code == 403
    assert len(token_requests(airisk)) == 0


def test_users_flow_stores_no_application_token(admin_client: Client, admin_user: User, airisk: World) -> None:
    AIRiskIdentity.objects.create(user=admin_user, userid="user_42")
    admin_client.get(authorize(start(admin_client)))
    assert AIRiskToken.objects.get().user == admin_user


@pytest.mark.parametrize(
    ("trouble", "words"), [("outage", "AIRisk answered with status 503."), ("refuse", "by redirect: access_denied")]
)
def test_failure_to_obtain_is_a_message(trouble: str, words: str, admin_client: Client, airisk: World) -> None:
    setattr(airisk.switches, trouble, True)
    response = admin_client.post(obtain_page())
    assert (response.status_code, response["Location"]) == (302, token_page("changelist"))
    [message] = messages_in(admin_client)
    assert words in message


@pytest.mark.parametrize("codenames", [(), ("view_airisktoken",), ("view_airisktoken", "delete_airisktoken")])
def test_obtaining_needs_its_permission(codenames: tuple[str, ...], desk: Client, staff: User, airisk: World) -> None:
    allow(staff, *codenames)
    assert desk.post(obtain_page()).status_code == 403
    if codenames:
        assert obtain_page() not in desk.get(token_page("changelist")).content.decode()
    assert (airisk.journal, rows_of_flows_and_tokens()) == ([], [])


def test_obtaining_needs_a_post_from_our_own_page(admin_user: User, client: Client, airisk: World) -> None:
    assert client.post(obtain_page())["Location"].startswith("/admin/login/")
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(admin_user)
    assert careful.post(obtain_page()).status_code == 403
    assert careful.get(obtain_page()).status_code == 405
    assert (airisk.journal, rows_of_flows_and_tokens()) == ([], [])


def test_obtaining_for_unknown_deployment_is_404(admin_client: Client) -> None:
    assert admin_client.post(obtain_page(GONE)).status_code == 404


def test_obtaining_elsewhere_is_a_message(admin_client: Client, airisk: World) -> None:
    give_token(None, lease=uuid4(), lease_until=timezone.now() + timedelta(seconds=30))
    admin_client.post(obtain_page())
    assert messages_in(admin_client) == ["Another process is obtaining it."]
    assert airisk.journal == []


@pytest.mark.django_db(transaction=True)
def test_admin_calls_airisk_outside_a_transaction(
    admin_client: Client, airisk: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ``ATOMIC_REQUESTS`` a page of the admin would hold its transaction, and its locks, while AIRisk answers."""
    here = connections["default"]
    monkeypatch.setitem(here.settings_dict, name="ATOMIC_REQUESTS", value=True)
    token = give_token(person("mia"), ends_in=-60)
    seen = []
    with at_each_request("/api/oauth2/Token", lambda: seen.append(here.in_atomic_block)):
        assert act(admin_client, "renew_now", token) == ["1 token was renewed."]
        admin_client.post(obtain_page())
    assert messages_in(admin_client) == ["The application's token was obtained."]
    assert seen == [False, False]

"""{% airisk_notice %}: a line for those whose connection is lost, and nothing for anybody else."""

import re
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.core.exceptions import ImproperlyConfigured
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.template import Context, RequestContext, Template
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import include, path
from django.utils import timezone

from airisk_oauth.exceptions import AIRiskRefused
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import World
from airisk_oauth.tokens import losses
from tests.support.browsing import authorize
from tests.support.commands import refresh_json
from tests.support.options import set_option
from tests.support.pages import snippet
from tests.support.people import credential, give_token, live_token
from tests.support.threads import result_or_error

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__), pytest.mark.usefixtures("save_soon")]

DOCUMENTATION = "docs/pages.md"


def own_page(request: HttpRequest) -> HttpResponse:
    tags = snippet(DOCUMENTATION, "{% airisk_notice %}")
    return HttpResponse(Template(f"<main>{tags}</main>").render(RequestContext(request)))


urlpatterns = [path("own/", own_page), path("", include("tests.urls"))]


def notice(browser: Client) -> str:
    """Return what stands on the site's own page."""
    [shown] = re.findall("<main>(.*)</main>", browser.get("/own/?a=b").content.decode(), re.DOTALL)
    return str(shown).strip()


def lose(mia: User, airisk: World, **values: Any) -> None:
    """Have an early renewal refused: the token itself is still valid."""
    live_token(airisk, mia, **{"ends_in": 60, **values})
    airisk.switches.refuse = True
    credential(mia)
    airisk.switches.refuse = False


def test_lost_connection_shows_line_with_button(browser: Client, mia: User, airisk: World) -> None:
    lose(mia, airisk)
    shown = notice(browser)
    assert "Your connection to AIRisk was lost." in shown
    assert shown.count("<button") == 1
    assert ">Connect</button>" in shown
    assert "style" not in shown
    [action] = re.findall('action="([^"]+)"', shown)
    [back] = re.findall('name="next" value="([^"]+)"', shown)
    response = browser.post(action, {"next": back})
    assert browser.get(authorize(response["Location"]))["Location"] == "/own/?a=b"
    assert notice(browser) == ""


def test_notice_button_works_with_csrf_protection(mia: User, airisk: World) -> None:
    lose(mia, airisk)
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(mia)
    [token] = re.findall('name="csrfmiddlewaretoken" value="([^"]+)"', notice(strict))
    assert strict.post("/airisk/connect/").status_code == 403
    assert strict.post("/airisk/connect/", {"csrfmiddlewaretoken": token}).status_code == 302


def test_notice_names_another_deployment(browser: Client, mia: User) -> None:
    AIRiskIdentity.objects.create(user=mia, userid="user_42", deployment="second")
    give_token(mia, deployment="second", lost_at=timezone.now(), failure_kind="person", failure_count=1)
    shown = notice(browser)
    assert "Your connection to AIRisk “second” was lost." in shown
    assert 'action="/airisk/connect/second/"' in shown


def test_expired_token_is_lost_without_renewal(browser: Client, mia: User, settings: Any) -> None:
    give_token(mia, ends_in=-60)
    assert notice(browser) == ""
    set_option(settings, SILENT_RENEWAL=False)
    assert "was lost" in notice(browser)


def test_token_of_another_address_is_lost(browser: Client, mia: User) -> None:
    give_token(mia)
    AIRiskToken.objects.update(origin="https://elsewhere.example:443")
    assert "was lost" in notice(browser)


def test_changed_identity_shows_the_notice(browser: Client, mia: User, airisk: World) -> None:
    give_token(mia, ends_in=60)
    AIRiskIdentity.objects.update(userid="user_7")
    refresh_json()
    assert "was lost" in notice(browser)


def test_corrected_identity_hides_the_notice(browser: Client, mia: User, airisk: World) -> None:
    give_token(mia, ends_in=60)
    AIRiskIdentity.objects.update(userid="user_7")
    refresh_json()
    AIRiskIdentity.objects.update(userid="user_42")
    assert notice(browser) == ""


def _never_connected(mia: User, airisk: World) -> None:
    pass


def _fine(mia: User, airisk: World) -> None:
    give_token(mia)


def _about_to_expire(mia: User, airisk: World) -> None:
    give_token(mia, ends_in=-60)


def _airisk_down(mia: User, airisk: World) -> None:
    give_token(mia, ends_in=-60)
    airisk.switches.outage = True
    result_or_error(partial(credential, mia))


def _site_refused(mia: User, airisk: World) -> None:
    token, refused = give_token(mia), AIRiskRefused(401, "Unauthorized", "00-676e-00")
    AIRiskToken.objects.filter(pk=token.pk).update(**token.record_failure(refused, timezone.now()))
    losses.note_failure(token, refused)


def _disconnected(mia: User, airisk: World) -> None:
    lose(mia, airisk)
    AIRiskToken.objects.all().delete()


def _without_identity(mia: User, airisk: World) -> None:
    lose(mia, airisk)
    AIRiskIdentity.objects.all().delete()


@pytest.mark.parametrize(
    "happened",
    [_never_connected, _fine, _about_to_expire, _airisk_down, _site_refused, _disconnected, _without_identity],
)
def test_notice_shows_nothing_otherwise(
    browser: Client, mia: User, airisk: World, happened: Callable[[User, World], None]
) -> None:
    happened(mia, airisk)
    assert notice(browser) == ""


def test_notice_is_for_the_user_alone(browser: Client, mia: User, airisk: World) -> None:
    lose(mia, airisk)
    assert notice(Client()) == ""
    session = browser.session
    session["hijack_history"] = ["1"]
    session.save()
    assert notice(browser) == ""


def test_notice_needs_the_connect_page(browser: Client, mia: User, airisk: World, settings: Any) -> None:
    lose(mia, airisk)
    request = RequestFactory().get("/")
    request.user = mia
    request.session = browser.session
    template = Template("{% load airisk_oauth %}{% airisk_notice %}")
    assert "was lost" in template.render(Context({"request": request}))
    settings.ROOT_URLCONF = "tests.support.echo"
    assert template.render(Context({"request": request})) == ""


def test_notice_costs_one_query(mia: User) -> None:
    give_token(mia)
    template = Template("{% load airisk_oauth %}{% airisk_notice %}")
    for user, number in ((mia, 1), (AnonymousUser(), 0), (None, 0)):
        request = RequestFactory().get("/")
        if user is not None:
            request.user = user
        with CaptureQueriesContext(connection) as queries:
            assert template.render(Context({"request": request})) == ""
        assert len(queries) == number


def test_notice_after_a_post_leads_nowhere_back(browser: Client, mia: User, airisk: World) -> None:
    lose(mia, airisk)
    page = browser.post("/own/").content.decode()
    assert "was lost" in page
    assert 'name="next"' not in page


def test_notice_without_a_request_says_so() -> None:
    with pytest.raises(ImproperlyConfigured, match=r"\{% airisk_notice %\} needs the request"):
        Template("{% load airisk_oauth %}{% airisk_notice %}").render(Context())


def test_loss_long_ago_still_shows_the_notice(browser: Client, mia: User, airisk: World) -> None:
    lose(mia, airisk)
    AIRiskToken.objects.update(lost_at=timezone.now() - timedelta(days=90))
    assert "was lost" in notice(browser)

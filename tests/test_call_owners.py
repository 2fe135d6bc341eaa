"""In whose name AIRisk's API is called: a user's or the application's, and never another's."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser, User
from django.utils import timezone

from airisk_oauth import AIRiskAuth, AIRiskSession, AsyncAIRiskClient, conf
from airisk_oauth.connecting import flow
from airisk_oauth.exceptions import AIRiskError, AIRiskUnavailable, ConnectionRequired
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import Caller, World
from tests.support.api_clients import OtherServer, with_each_client
from tests.support.clock import set_clock
from tests.support.database import committing
from tests.support.options import set_option
from tests.support.people import api_statuses, give_token, live_token, stored, token_requests
from tests.support.threads import in_threads

pytestmark = pytest.mark.django_db


# Users


@pytest.mark.parametrize("client_class", [AIRiskAuth, AIRiskSession, AsyncAIRiskClient])
def test_missing_user_is_an_error_at_once(client_class: Any) -> None:
    with pytest.raises(TypeError, match="for_application"):
        client_class.for_user(None)


def anybody(_user: Any, _deployment: str) -> str:
    """A site's own ``USERID``."""
    return "user_42"


@with_each_client
@pytest.mark.parametrize("user", [AnonymousUser(), User(username="unsaved")], ids=["anonymous", "unsaved"])
def test_anonymous_user_is_not_the_application(airisk: World, settings: Any, user: Any, client_class: Any) -> None:
    set_option(settings, USERID=f"{__name__}.anybody")
    live_token(airisk)
    with client_class.for_user(user) as session, pytest.raises(ConnectionRequired):
        session.get("/api/Chat/ListAgents")
    assert airisk.journal == []


def disconnect(mia: User) -> None:
    flow.disconnect(stored(mia))


def change_userid(mia: User) -> None:
    AIRiskIdentity.objects.update(userid="user_7")


def remove_identity(mia: User) -> None:
    AIRiskIdentity.objects.all().delete()


def damage_token(mia: User) -> None:
    AIRiskToken.objects.update(sealed="damaged")


def take_application_token(mia: User) -> None:
    AIRiskToken.objects.filter(user=mia).update(sealed=stored(None).sealed)


@with_each_client
@pytest.mark.parametrize("change", [disconnect, change_userid, remove_identity, damage_token, take_application_token])
@pytest.mark.parametrize("ends_in", [3600, -60])
def test_user_is_asked_to_connect_without_a_call(
    airisk: World, mia: User, change: Callable[[User], None], ends_in: float, client_class: Any
) -> None:
    live_token(airisk)
    live_token(airisk, mia, ends_in=ends_in)
    change(mia)
    rows = list(AIRiskToken.objects.order_by("pk").values("pk", "sealed", "expires_at", "failure_count"))
    with client_class.for_user(mia) as session, pytest.raises(ConnectionRequired) as raised:
        session.get("/api/GetConversations")
    assert (raised.value.deployment, raised.value.connect_url) == ("default", "/airisk/connect/")
    assert list(AIRiskToken.objects.order_by("pk").values("pk", "sealed", "expires_at", "failure_count")) == rows
    assert not airisk.journal


@with_each_client
@pytest.mark.parametrize("alias", ["default", "second"])
@pytest.mark.parametrize("is_anonymous", [True, False])
def test_user_never_gets_the_applications_token(
    airisk: World, mia: User, alias: str, is_anonymous: bool, client_class: Any
) -> None:
    """A user who has not connected gets an error instead."""
    live_token(airisk, deployment=alias)
    user = AnonymousUser() if is_anonymous else mia
    with client_class.for_user(user, alias) as session, pytest.raises(ConnectionRequired) as raised:
        session.get("/api/Chat/ListAgents")
    assert raised.value.connect_url == ("/airisk/connect/" if alias == "default" else "/airisk/connect/second/")
    assert not airisk.journal


# Sessions that are open for long


@pytest.mark.parametrize("change", [disconnect, change_userid, remove_identity])
def test_open_session_notices_changes_in_60_s(
    api_client: Any, airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch, change: Callable[[User], None]
) -> None:
    assert api_client.get("/api/GetConversations").status_code == 200
    change(mia)
    set_clock(monkeypatch, 60)
    with pytest.raises(ConnectionRequired):
        api_client.get("/api/GetConversations")
    assert api_statuses(airisk) == [200]


@with_each_client
@committing
def test_open_session_renews_its_token_when_due(
    airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch, client_class: Any
) -> None:
    live_token(airisk, mia, ends_in=310)
    with client_class.for_user(mia) as session:
        for seconds, renewals in ((0, 0), (9, 0), (11, 1)):
            set_clock(monkeypatch, seconds)
            assert session.get("/api/GetConversations").status_code == 200
            assert len(token_requests(airisk)) == renewals


@with_each_client
@committing
def test_open_session_notices_a_renewal_in_5_s(
    airisk: World, mia: User, monkeypatch: pytest.MonkeyPatch, client_class: Any
) -> None:
    """While a renewal is due, another process may renew the token at any moment."""
    token = live_token(airisk, mia, ends_in=200, retry_at=timezone.now() + timedelta(hours=1))
    with client_class.for_user(mia) as session:
        session.get("/api/Chat/ListAgents")
        airisk.end_all_tokens()
        token.access_token, _expires_at = airisk.new_token(Caller("client-1", "user_42"))
        token.save()
        set_clock(monkeypatch, 5)
        session.get("/api/Chat/ListAgents")
    assert api_statuses(airisk) == [200, 200]


# Origins


@with_each_client
@pytest.mark.parametrize("ends_in", [3600, -60])
def test_token_is_sent_to_its_own_origin_only(
    airisk: World, settings: Any, mia: User, other_server: OtherServer, client_class: Any, ends_in: float
) -> None:
    give_token(mia, ends_in=ends_in)
    set_option(settings, BASE_URL=f"http://{other_server.host}")
    with client_class.for_user(mia) as session, pytest.raises(ConnectionRequired, match="another address"):
        session.get("/api/Chat/ListAgents")
    assert other_server.connections == 0


def test_application_gets_a_token_of_a_new_origin(airisk: World, settings: Any) -> None:
    new_url = settings.AIRISK_OAUTH["default"]["BASE_URL"]
    set_option(settings, BASE_URL="https://former.aicrisk.com")
    give_token(None)
    set_option(settings, BASE_URL=new_url)
    with AIRiskSession.for_application() as session:
        assert session.get("/api/Answer").status_code == 200
    assert stored(None).origin == conf.deployment().origin_text


def test_token_without_a_noted_origin_is_used(session: AIRiskSession) -> None:
    """An earlier version stored tokens without their origin."""
    AIRiskToken.objects.update(origin="")
    assert session.get("/api/Chat/ListAgents").status_code == 200


# The application


@committing
def test_callers_share_the_applications_token(airisk: World) -> None:
    def call() -> int:
        with AIRiskSession.for_application() as session:
            return session.get("/api/Echo").status_code

    airisk.switches.latency = 0.05
    assert in_threads(40, call) == [200] * 40
    assert len(token_requests(airisk)) == 1
    assert AIRiskToken.objects.count() == 1


@with_each_client
@pytest.mark.parametrize(
    ("switches", "is_silent", "error"),
    [
        ({"login_page": True}, True, ConnectionRequired),
        ({"outage": True}, True, AIRiskUnavailable),
        ({}, False, ConnectionRequired),
    ],
    ids=["login page", "outage", "not silent"],
)
def test_application_token_is_tried_for_again(
    airisk: World,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    switches: dict[str, bool],
    is_silent: bool,
    error: type[AIRiskError],
    client_class: Any,
) -> None:
    """The failure leaves a row, and names no page, because there is nobody to connect."""
    set_option(settings, SILENT_RENEWAL=is_silent)
    for name, value in switches.items():
        setattr(airisk.switches, name, value)
    with pytest.raises(error) as raised, client_class.for_application() as session:
        session.get("/api/Echo")
    assert getattr(raised.value, "connect_url", None) is None
    assert stored().sealed == ""
    assert not api_statuses(airisk)
    airisk.reset()
    set_option(settings, SILENT_RENEWAL=True)
    set_clock(monkeypatch, 6)
    with client_class.for_application() as session:
        assert session.get("/api/Echo").status_code == 200


@with_each_client
def test_application_gets_403_for_calls_of_users(airisk: World, client_class: Any) -> None:
    with client_class.for_application() as session:
        assert session.get("/api/GetConversations").status_code == 403
    assert api_statuses(airisk) == [403]

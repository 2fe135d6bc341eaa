"""``AIRISK_OAUTH`` as the path of a function: deployments that come and go, and a function that fails."""

from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from django.contrib.auth.models import User
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection
from django.template import engines
from django.test import Client, RequestFactory
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from airisk_oauth import AIRiskSession, AsyncAIRiskClient, conf
from airisk_oauth.conf import DEPLOYMENTS
from airisk_oauth.exceptions import ConnectionRequired
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.providers.source import SettingUnavailable
from airisk_oauth.refresh import refresh_tokens
from airisk_oauth.sandbox.registry import clients
from airisk_oauth.sandbox.world import World
from airisk_oauth.testing import FakeAIRisk
from tests.support.admin import act, identity_page, messages_in, obtain_page, person, text_of, token_page
from tests.support.browsing import authorize, connect, start
from tests.support.commands import refresh, refresh_json
from tests.support.database import committing
from tests.support.doctor import check
from tests.support.functions import SiteFunction, name_deployments, time_passes
from tests.support.people import connected_users, credential, give_token, renewed_of

if TYPE_CHECKING:
    from pytest_django import Settings

PATH = "tests.support.functions.deployments"
RAISED = f"AIRISK_OAUTH: {PATH} raised LookupError."
CONNECTION = reverse("airisk_oauth:connection")
JSON = {"Accept": "application/json"}


@pytest.fixture
def function(settings: "Settings", airisk: World) -> SiteFunction:
    """The function, which returns the deployments of the settings."""
    settings.AIRISK_OAUTH_SANDBOX_CLIENTS = clients()
    return name_deployments(settings, settings.AIRISK_OAUTH)


@pytest.fixture
def outage(function: SiteFunction, mia: User) -> SiteFunction:
    """A function that has failed since the process began; Mia has a token."""
    give_token(mia, ends_in=60)
    DEPLOYMENTS.forget()
    function.returns, function.calls = LookupError("canary"), 0
    return function


def copies(function: SiteFunction, number: int) -> None:
    """Make the function return this number of deployments, the first of which is ``default``."""
    default = function.returns["default"]
    function.returns = {"default": default} | {f"tenant-{each}": default for each in range(1, number)}


def spoil(function: SiteFunction) -> None:
    """Make the second deployment wrong from now on."""
    DEPLOYMENTS.forget()
    function.returns = {**function.returns, "second": {**function.returns["second"], "BASE_URL": "canary"}}


def numbers(*, deploy: bool = False) -> set[str]:
    """Return the ids of the checks that find something in our settings."""
    found = run_checks(tags=["airisk_oauth", "security"], include_deployment_checks=deploy)
    return {str(message.id) for message in found if str(message.id).startswith("airisk_oauth.")}


# When it is called


def test_deployments_are_asked_for_every_ten_s(function: SiteFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    assert [conf.deployment(alias).alias for alias in conf.aliases()] == ["default", "second"]
    assert conf.is_set("default", "BASE_URL")
    assert (function.calls, DEPLOYMENTS.every) == (1, 10)
    time_passes(monkeypatch)
    assert conf.aliases()
    assert function.calls == 2


def test_no_check_of_a_start_calls_it(outage: SiteFunction) -> None:
    assert numbers() == set()
    call_command("check", "--database", "default")
    assert outage.calls == 0


def test_new_deployment_is_there_at_once(
    function: SiteFunction, browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DEPLOYMENTS.again == 1
    monkeypatch.setattr(DEPLOYMENTS, "again", 0.0)
    copies(function, 1)
    assert browser.get(CONNECTION).status_code == 200
    page = reverse("airisk_oauth:connect", args=["tenant-1"])
    assert browser.get(page).status_code == 404
    copies(function, 2)
    assert browser.get(page).status_code == 200
    assert browser.get(page).status_code == 200
    assert function.calls == 3


def test_unknown_alias_is_not_asked_for_often(
    function: SiteFunction, browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DEPLOYMENTS, "again", 60.0)
    for _click in range(3):
        assert browser.get(reverse("airisk_oauth:connect", args=["nowhere"])).status_code == 404
    with pytest.raises(ImproperlyConfigured, match="AIRISK_OAUTH has no deployment 'nowhere'"):
        conf.deployment("nowhere")
    assert function.calls == 2


@pytest.mark.parametrize("page", [CONNECTION, reverse("airisk_oauth:connect")])
def test_page_makes_as_many_queries_for_forty(page: str, function: SiteFunction, browser: Client) -> None:
    answer, counts = function.returns, []
    function.returns = lambda: answer if User.objects.exists() else {}
    for number in (1, 40):
        answer = {"default": answer["default"]} | {f"tenant-{each}": answer["default"] for each in range(1, number)}
        DEPLOYMENTS.forget()
        with CaptureQueriesContext(connection) as queries:
            assert browser.get(page).status_code == 200
        counts.append(len(queries))
    assert (counts[0], function.calls) == (counts[1], 2)


@committing
def test_event_loop_finds_a_new_deployment(function: SiteFunction, mia: User) -> None:
    async def use(alias: str) -> None:
        await AsyncAIRiskClient.for_user(mia, alias).aclose()

    answer = function.returns
    function.returns = lambda: {"default": answer["default"]} if User.objects.exists() else {}
    async_to_sync(use)("default")
    function.returns = lambda: answer if User.objects.exists() else {}
    async_to_sync(use)("second")
    with pytest.raises(ImproperlyConfigured, match="no deployment 'nowhere'"):
        async_to_sync(use)("nowhere")
    assert function.calls == 3


@committing
def test_closed_connection_is_replaced(function: SiteFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = function.returns
    function.returns = lambda: answer if User.objects.count() == 0 else {}
    connection.ensure_connection()
    connection.connection.close()
    with pytest.raises(SettingUnavailable):
        conf.aliases()
    time_passes(monkeypatch)
    assert conf.aliases()


def test_fake_airisk_forgets_what_it_returned(function: SiteFunction) -> None:
    assert len(conf.aliases()) == 2
    copies(function, 1)
    with FakeAIRisk():
        assert conf.aliases() == ["default"]
        copies(function, 2)
    assert len(conf.aliases()) == 2


def test_sandbox_knows_the_clients(function: SiteFunction, settings: "Settings") -> None:
    del settings.AIRISK_OAUTH_SANDBOX_CLIENTS
    assert list(clients()) == ["client-1", "client-2"]


# Deployments that change


def test_changed_address_gets_no_old_token(
    function: SiteFunction, browser: Client, mia: User, airisk: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(browser)
    behind = AIRiskSession.for_user(mia)
    time_passes(monkeypatch)
    moved = {**function.returns["default"], "BASE_URL": "http://127.0.0.1:9"}
    function.returns = {"default": moved}
    with AIRiskSession.for_user(mia) as ahead, pytest.raises(ConnectionRequired):
        ahead.get("/api/Chat/ListAgents")
    assert refresh(all=True)[0] == 1
    # Another process has not heard of it, and goes on where the token was issued.
    with behind:
        assert behind.get("/api/Chat/ListAgents").status_code == 200


def test_removed_deployment_keeps_its_tokens(
    function: SiteFunction, db: None, admin_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = connected_users(1, "second")
    time_passes(monkeypatch)
    answer = function.returns
    copies(function, 1)
    assert refresh_json()[1]["deployments"].keys() == {"default"}
    assert "the settings have no deployment “second”" in text_of(admin_client.get(token_page("changelist")))
    assert act(admin_client, "renew_now", tokens[0])[-1].startswith("1 token was skipped: AIRISK_OAUTH has no")
    assert renewed_of(tokens) == [False]
    function.returns = answer
    assert refresh_json()[1]["deployments"]["second"]["renewed"] == 1


def test_site_without_tenants_is_healthy(function: SiteFunction, browser: Client, admin_client: Client) -> None:
    function.returns = {}
    assert "You have no AIRisk identity yet" in text_of(browser.get(CONNECTION))
    assert refresh_json()[1]["deployments"] == {}
    call_command("check_airisk")
    for page in (token_page("changelist"), identity_page("changelist"), identity_page("import")):
        assert admin_client.get(page).status_code == 200
    assert admin_client.get(reverse("admin:auth_user_changelist")).status_code == 200
    assert "airisk_oauth.E001" not in numbers(deploy=True)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "must be a dictionary"),
        ([], "must be a dictionary"),
        ({"BASE_URL": "canary", "CLIENT_SECRET": "canary"}, "has the options of a deployment where aliases belong"),
    ],
)
def test_unusable_deployments_are_a_failure(function: SiteFunction, returned: Any, said: str) -> None:
    function.returns = returned
    with pytest.raises(SettingUnavailable, match=said) as raised:
        conf.aliases()
    assert str(raised.value).startswith(f"AIRISK_OAUTH: {PATH} returned something that cannot be used. ")
    assert "canary" not in str(raised.value)


# One wrong deployment


def test_wrong_deployment_costs_only_itself(function: SiteFunction, browser: Client, airisk: World) -> None:
    mine, theirs = connected_users(1), connected_users(1, "second")
    spoil(function)
    status, said = refresh()
    assert (status, renewed_of(mine + theirs)) == (1, [True, False])
    assert "default: 1 renewed" in said
    with pytest.raises(CommandError, match=r"AIRISK_OAUTH\['second'\] has an invalid BASE_URL"):
        call_command("refresh_airisk_tokens")
    with pytest.raises(ImproperlyConfigured, match=r"AIRISK_OAUTH\['second'\] has an invalid BASE_URL"):
        refresh_tokens()
    assert refresh_tokens(deployment="default")["deployments"].keys() == {"default"}
    assert refresh(deployment="second")[0] == 2
    assert browser.get(CONNECTION).status_code == 200
    connect(browser)


def test_deployment_may_disappear_at_any_moment(function: SiteFunction, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even between two looks at it."""
    time_passes(monkeypatch)
    still_there, default_only = iter([function.returns]), {"default": function.returns["default"]}
    function.returns = lambda: next(still_there, default_only)
    with pytest.raises(ImproperlyConfigured, match="AIRISK_OAUTH has no deployment 'second'"):
        conf.deployment("second")


@pytest.mark.parametrize("alias", ["bad alias", "müller", "", "a/b"])
def test_wrong_alias_costs_no_page(
    alias: str, function: SiteFunction, browser: Client, mia: User, admin_client: Client
) -> None:
    function.returns = {**function.returns, alias: function.returns["second"]}
    person("tom", deployment=alias)
    for page in (token_page("changelist"), identity_page("changelist"), "/admin/auth/user/"):
        assert admin_client.get(page).status_code == 200
    tokens = admin_client.get(token_page("changelist")).text
    assert [name in tokens for name in ("for “second”", f"for “{alias}”")] == [True, False]
    AIRiskIdentity.objects.create(user=mia, deployment=alias, userid="user_7")
    assert browser.get(CONNECTION).status_code == 200


def test_admin_and_doctor_see_a_wrong_deployment(function: SiteFunction, admin_client: Client) -> None:
    connected_users(1, "second", failure_kind="")
    AIRiskIdentity.objects.all().delete()
    spoil(function)
    assert "second" in text_of(admin_client.get(token_page("changelist")))
    assert {"airisk_oauth.E005"} <= numbers(deploy=True)
    assert "airisk_oauth.E005" not in numbers()
    status, said = check(deployment="second")
    assert (status, "has an invalid BASE_URL" in said) == (1, True)


def test_deploy_checks_look_at_each_deployment(function: SiteFunction) -> None:
    assert "airisk_oauth.W010" in numbers(deploy=True)
    second = {**function.returns["second"], "REDIRECT_URI": "https://app.example.com/elsewhere/"}
    function.returns = {"default": function.returns["default"], "second": second}
    DEPLOYMENTS.forget()
    assert "airisk_oauth.W001" in numbers(deploy=True)
    assert numbers() == set()


# A function that fails


@pytest.mark.parametrize("page", ["connection", "connect"])
def test_pages_without_deployments_are_a_503(page: str, outage: SiteFunction, browser: Client) -> None:
    url = reverse(f"airisk_oauth:{page}")
    response = browser.get(url)
    assert response.status_code == 503
    assert "AIRisk is not available on this site at the moment" in response.content.decode()
    script = browser.get(url, headers=JSON)
    assert (script.status_code, script.json()["code"]) == (503, "settings_unavailable")
    assert outage.calls == 1


def test_callback_without_deployments_can_be_repeated(
    function: SiteFunction, browser: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    back = authorize(start(browser))
    answer, function.returns = function.returns, LookupError()
    DEPLOYMENTS.forget()
    assert browser.get(back).status_code == 503
    function.returns = answer
    time_passes(monkeypatch)
    assert browser.get(back).status_code == 302


def test_tags_show_nothing_without_deployments(outage: SiteFunction, mia: User) -> None:
    request = RequestFactory().get("/")
    request.user = mia
    source = "{% load airisk_oauth %}<{% airisk_notice %}|{% airisk_connection %}>"
    shown = engines["django"].from_string(source).render({}, request)
    assert "".join(shown.split()) == "<|>"


def test_admin_works_without_deployments(outage: SiteFunction, mia: User, admin_client: Client) -> None:
    token = AIRiskToken.objects.get()
    pages = [token_page("changelist"), token_page("change", token.pk), identity_page("changelist")]
    pages += [identity_page("import"), identity_page("add"), reverse("admin:auth_user_change", args=[mia.pk])]
    for page in [*pages, reverse("admin:auth_user_changelist")]:
        assert admin_client.get(page).status_code == 200
    assert "the settings have no deployment" not in text_of(admin_client.get(pages[0]))
    assert messages_in(admin_client) == [RAISED]
    response = admin_client.post(obtain_page(), follow=True)
    said = [str(message) for message in response.context["messages"]]
    assert "AIRisk is not available on this site at the moment. Nothing was saved." in said[0]
    assert act(admin_client, "renew_now", token)[0] == f"1 token was skipped: {RAISED}"
    assert act(admin_client, "delete_selected", token)[0] == "1 token was disconnected."


def test_commands_stop_without_deployments(outage: SiteFunction, mia: User) -> None:
    before = list(AIRiskToken.objects.values())
    assert refresh()[0] == refresh(deployment="default")[0] == 2
    with pytest.raises(ImproperlyConfigured, match=rf"^{RAISED}$"):
        refresh_tokens()
    assert check() == (1, f"default:\n{RAISED}")
    with pytest.raises(CommandError, match=rf"^{RAISED}$"):
        call_command("check_airisk")
    with pytest.raises(SettingUnavailable):
        credential(mia)
    # Without its origin, a token could be sent to another server later.
    with pytest.raises(SettingUnavailable):
        AIRiskToken(user=mia).access_token = "token"
    assert "airisk_oauth.W015" in numbers(deploy=True)
    assert list(AIRiskToken.objects.values()) == before


def test_last_good_deployments_stay_in_use(
    function: SiteFunction, browser: Client, mia: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert conf.aliases()
    time_passes(monkeypatch)
    function.returns = LookupError("canary")
    connect(browser)
    assert credential(mia).token
    assert refresh(all=True)[0] == 0
    assert browser.get(CONNECTION).status_code == 200
    # It may be one that only the next answer has.
    assert browser.get(reverse("airisk_oauth:connect", args=["nowhere"])).status_code == 503

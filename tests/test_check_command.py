"""``check_airisk``: which fault it finds, and whom it sends to mend it."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import requests
import responses
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command

from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import World
from tests.flows import give_token, set_option
from tests.support.wire import Certificate, Serve, http, saying
from tests.test_renewal import BASE_URL, silent_flow, travel, trouble

pytestmark = pytest.mark.django_db
SITE, ADMINISTRATOR, NETWORK, SUPPORT = (
    "In this site's settings:",
    "An AIRisk administrator:",
    "Whoever runs this server's network:",
    "AIRisk's support:",
)


def check(**options: Any) -> tuple[int, str]:
    """Run the command on one deployment; it stores nothing and tells no secret, whatever it finds."""
    before = list(AIRiskToken.objects.values())
    out = io.StringIO()
    status = 0
    try:
        call_command("check_airisk", **{"deployment": "default", **options}, stdout=out)
    except CommandError as error:
        status = error.returncode
        out.write(str(error))
    said = out.getvalue()
    assert list(AIRiskToken.objects.values()) == before
    assert not [secret for secret in ("secret-1", "code-canary", "token-canary", "eyJ") if secret in said]
    return status, said


def fault(**options: Any) -> tuple[str, str]:
    """Return the one fault that there is, with what precedes it being well, and its remedy."""
    status, said = check(**options)
    assert status == 1
    lines = said.splitlines()
    [at] = [number for number, line in enumerate(lines) if line.startswith("  FAULT")]
    assert all(line.startswith(("default:", "  ok")) for line in lines[:at])
    return lines[at].removeprefix("  FAULT "), lines[at + 1].strip()


def test_a_healthy_deployment_is_walked_to_the_end(airisk: World, mia: User) -> None:
    give_token(mia)
    for options, path in (({}, "/api/GetModels"), ({"user": "mia"}, "/api/GetConversations")):
        status, said = check(**options)
        assert status == 0
        steps = ["settings", "connection", "clock", "authorization", "token", "life", "call"]
        assert [line.split()[1].rstrip(":") for line in said.splitlines()[1:]] == steps
        assert f"GET {path} was answered with status 200" in said
        assert "the token ends in 60 minutes" in said
    assert "mia is user_42 on AIRisk" in said


def test_all_deployments_are_tried_and_one_that_ails_is_enough(airisk: World, settings: Any) -> None:
    assert check(deployment=None)[0] == 0
    _wrong_path(airisk, settings)
    status, said = check(deployment=None)
    assert (status, said.count("FAULT")) == (1, 1)
    assert "second:\n  ok    settings" in said


def _unknown_client(airisk: World, settings: Any) -> None:
    trouble(airisk, settings, "unknown client")


def _wrong_secret(airisk: World, settings: Any) -> None:
    clients = {"client-1": {"client_secret": "another", "redirect_uris": "https://app.example.com/airisk/callback/"}}
    settings.AIRISK_OAUTH_SANDBOX_CLIENTS = clients


def _unknown_redirect_uri(airisk: World, settings: Any) -> None:
    settings.AIRISK_OAUTH_SANDBOX_CLIENTS = {
        "client-1": {"client_secret": "secret-1", "redirect_uris": "https://elsewhere.example.com/"}
    }


def _wrong_path(airisk: World, settings: Any) -> None:
    set_option(settings, AUTHORIZE_PATH="/api/nowhere")


def _unknown_userid(airisk: World, settings: Any) -> None:
    AIRiskIdentity.objects.update(userid="unknown_9")


def _no_identity(airisk: World, settings: Any) -> None:
    AIRiskIdentity.objects.all().delete()


def _switch(name: str, value: Any = True) -> Callable[[World, Any], None]:
    return lambda airisk, settings: setattr(airisk.switches, name, value)


@pytest.mark.parametrize(
    ("ails", "said", "remedy"),
    [
        (_unknown_client, "authorization: AIRisk does not know CLIENT_ID client-1.", SITE),
        (_unknown_redirect_uri, "authorization: AIRisk does not know REDIRECT_URI https://app.", ADMINISTRATOR),
        (_wrong_path, "authorization: There is no authorization endpoint at http://127", f"{SITE} correct BASE_URL"),
        (_wrong_secret, "token: AIRisk does not accept CLIENT_SECRET.", f"{SITE} set CLIENT_SECRET"),
        (_unknown_userid, "authorization: AIRisk has no ApplicationUser unknown_9.", "Staff of this site: correct"),
        (_no_identity, "settings: mia is nobody on AIRisk", "Staff of this site: add"),
        (_switch("refuse"), "authorization: AIRisk refused", ADMINISTRATOR),
        (_switch("login_page"), "authorization: A page came", f"{SITE} if Connect leads to a page"),
        (_switch("outage"), "authorization: AIRisk answered with status 503", SUPPORT),
        (_switch("malformed"), "token: AIRisk's answer is not the JSON", f"{NETWORK} if a proxy answers"),
    ],
)
def test_each_fault_is_named_with_the_one_who_can_mend_it(
    airisk: World, settings: Any, mia: User, ails: Callable[[World, Any], None], said: str, remedy: str
) -> None:
    ails(airisk, settings)
    found, mended_by = fault(user="mia")
    assert found.startswith(said)
    assert mended_by.startswith(remedy)


@pytest.mark.parametrize(
    ("answers", "said", "remedy"),
    [
        ([{"status": 200}], "A page came where AIRisk redirects at once.", f"{SITE} if Connect leads to a page"),
        (
            [{"status": 302, "headers": {"Location": "http://login.corp/?back=code-canary"}}],
            "A redirect to login.corp came",
            f"{SITE} if Connect leads to a page",
        ),
        (
            [{"status": 302, "headers": {"Location": "https://app.example.com/airisk/callback?code=code-canary"}}],
            "AIRisk redirects to 'https://app.example.com/airisk/callback', and REDIRECT_URI is 'https://app.example.",
            f"{SITE} make REDIRECT_URI the same",
        ),
        ([{"status": 200}, {"body": requests.ConnectTimeout()}], "A page came", SITE),
        (
            [{"status": 403, "body": "<p>", "content_type": "text/html"}],
            "AIRisk refused with status 403, without a reason",
            NETWORK,
        ),
        (
            [{"status": 401, "body": "<p>", "content_type": "text/html"}],
            "AIRisk refused with status 401, without a reason",
            NETWORK,
        ),
    ],
)
def test_what_comes_in_place_of_airisk_is_told_from_it(answers: list[dict[str, Any]], said: str, remedy: str) -> None:
    with responses.RequestsMock() as wire:
        wire.get(BASE_URL)
        for answer in answers:
            wire.get(f"{BASE_URL}/api/oauth2", **answer)
        found, mended_by = fault()
    assert found.startswith(f"authorization: {said}")
    assert mended_by.startswith(remedy)


def _no_answer(user: Any, deployment: str) -> str:
    raise KeyError(user)


def test_a_function_of_the_site_that_fails_is_told(settings: Any, mia: User) -> None:
    set_option(settings, USERID=f"{__name__}._no_answer")
    found, remedy = fault(user="mia")
    assert found == f"settings: {__name__}._no_answer fails for mia (KeyError)."
    assert remedy.startswith(f"{SITE} correct USERID")


def test_a_page_is_well_where_a_person_is_expected(airisk: World, settings: Any) -> None:
    set_option(settings, SILENT_RENEWAL=False)
    airisk.switches.login_page = True
    status, said = check()
    assert (status, said.splitlines()[-1].split(";")[0]) == (
        0,
        "  ok    authorization: AIRisk shows a page, as SILENT_RENEWAL = False says",
    )


@pytest.mark.parametrize(("seconds", "way"), [(60, "ahead of"), (-60, "behind")])
def test_a_clock_that_is_off_is_told_and_the_rest_tried_all_the_same(
    airisk: World, monkeypatch: pytest.MonkeyPatch, seconds: int, way: str
) -> None:
    travel(monkeypatch, seconds)
    status, said = check()
    assert status == 1
    assert f"s {way} AIRisk's.\n        Whoever runs this server: set its clock" in said
    assert "  ok    call: " in said


def test_a_token_that_hardly_lives_is_told_and_one_without_an_end_is_well(airisk: World) -> None:
    airisk.switches.token_life = 60
    assert fault()[1].startswith(ADMINISTRATOR)
    airisk.switches.token_life = None
    assert "AIRisk names no end" in check()[1]


# Who cannot be reached


@pytest.mark.parametrize(
    ("url", "said", "remedy"),
    [
        ("http://127.0.0.1:9", "127.0.0.1:9 cannot be reached", f"{NETWORK} let this server reach 127.0.0.1:9"),
        ("https://nowhere.invalid", "There is no host nowhere.invalid", f"{SITE} correct BASE_URL"),
    ],
)
def test_an_address_that_leads_nowhere_is_told_as_what_it_is(settings: Any, url: str, said: str, remedy: str) -> None:
    set_option(settings, BASE_URL=url)
    found, mended_by = fault()
    assert (found.startswith(f"connection: {said}"), mended_by.startswith(remedy)) == (True, True)


@pytest.mark.parametrize("speaks_tls", [True, False])
def test_a_host_that_does_not_prove_who_it_is_is_told(
    settings: Any,
    airisk_url: str,
    serve: Serve,
    certificate: Certificate,
    speaks_tls: bool,
) -> None:
    url = serve(saying(http()), certificate("127.0.0.1")[0]).url if speaks_tls else airisk_url
    set_option(settings, BASE_URL=url.replace("http:", "https:"))
    found, remedy = fault()
    assert found.endswith("self-signed certificate." if speaks_tls else "it speaks no TLS.")
    assert remedy.startswith(NETWORK)
    assert "REQUESTS_CA_BUNDLE" in remedy


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("https_proxy", "http://127.0.0.1:9", "The proxy does not lead to demo.aicrisk.com"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem", "The CA bundle is not there"),
    ],
)
def test_what_the_environment_gets_wrong_is_told(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv(variable, value)
    found, remedy = fault()
    assert said in found
    assert remedy.startswith(NETWORK)


# What the API answers


@pytest.mark.parametrize(
    ("answer", "said", "remedy"),
    [
        ({"status": 401}, "AIRisk refuses the token that it has just given", SUPPORT),
        ({"status": 502}, "GET /api/GetModels was answered with status 502", SUPPORT),
        ({"body": "<html>", "content_type": "text/html"}, "was answered with a page", NETWORK),
        ({"body": requests.ReadTimeout("token-canary")}, "got no answer (ReadTimeout)", SUPPORT),
    ],
)
@pytest.mark.parametrize("date", [{}, {"Date": "yesterday"}])
def test_a_call_that_fails_is_told(answer: dict[str, Any], said: str, remedy: str, date: dict[str, str]) -> None:
    with responses.RequestsMock() as wire:
        wire.get(BASE_URL, headers=date)
        silent_flow(wire, {"json": {"access_token": "token-canary"}})
        wire.get(f"{BASE_URL}/api/GetModels", **answer)
        found, mended_by = fault()
    assert (said in found, mended_by.startswith(remedy)) == (True, True)


@pytest.mark.parametrize("status", [400, 429])
def test_a_code_that_is_not_taken_is_a_matter_for_airisk(status: int) -> None:
    with responses.RequestsMock() as wire:
        wire.get(BASE_URL)
        silent_flow(wire, {"status": status, "body": "Invalid Code", "content_type": "text/plain"})
        found, remedy = fault()
    assert ("Invalid Code" in found) == (status == 400)
    assert remedy.startswith(ADMINISTRATOR if status == 400 else SUPPORT)


# Settings


def test_wrong_settings_are_told_all_at_once_and_nothing_is_sent(settings: Any) -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = ["no key"]
    set_option(settings, BASE_URL="ftp://x", UNKNOWN=1)
    with responses.RequestsMock():
        status, said = check()
    assert (status, said.count("FAULT settings:"), said.count(SITE)) == (1, 3, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"deployment": "third"}, "no deployment 'third'"), ({"user": "nobody"}, "There is no user 'nobody'.")],
)
def test_a_name_that_nothing_has_is_told(options: dict[str, str], said: str) -> None:
    status, words = check(**options)
    assert (status, said in words) == (1, True)


def test_without_the_setting_there_is_nothing_to_try(settings: Any) -> None:
    del settings.AIRISK_OAUTH
    assert check(deployment=None)[0] == 1

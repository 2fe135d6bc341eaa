"""``check_airisk`` finds a fault, and says who can fix it."""

from collections.abc import Callable
from typing import Any

import pytest
import requests
import responses
from django.contrib.auth.models import User

from airisk_oauth.models import AIRiskIdentity
from airisk_oauth.sandbox.world import World
from tests.support.clock import set_clock
from tests.support.doctor import ADMINISTRATOR, NETWORK, SITE, STAFF, SUPPORT, check, fault
from tests.support.options import set_option, trouble
from tests.support.people import give_token
from tests.support.second_airisk import (
    AGENTS,
    SecondAIRisk,
    answer_json,
    page,
    problem,
    redirect,
)
from tests.support.wire import BASE_URL, Certificate, Serve, http, saying, silent_flow

pytestmark = [pytest.mark.django_db, pytest.mark.once]


def steps_of(said: str) -> list[str]:
    return [line.split()[1].rstrip(":") for line in said.splitlines()[1:]]


STEPS = ["settings", "database", "callback", "connection", "clock", "authorization", "token", "life", "call", "codes"]


def test_healthy_deployment_passes_every_step(airisk: World, mia: User) -> None:
    give_token(mia)
    status, said = check()
    assert (status, steps_of(said)) == (0, STEPS)
    assert "GET /api/Chat/ListAgents was answered with status 403; AIRisk does not document which calls" in said
    status, said = check(user="mia")
    assert (status, steps_of(said)) == (0, [*STEPS[:2], "user", *STEPS[2:]])
    assert "the token expires in 60 minutes" in said
    assert "mia is user_42 on AIRisk" in said
    assert "GET /api/Chat/ListAgents was answered with status 200: user_42 has 3 agents" in said


def test_second_airisk_is_healthy_too(other_airisk: SecondAIRisk, mia: User) -> None:
    status, said = check(user="mia")
    assert (status, "user_42 has 1 agent\n" in said) == (0, True)
    assert check()[0] == 0


def test_one_faulty_deployment_fails_the_command(airisk: World, settings: Any) -> None:
    assert check(deployment=None)[0] == 0
    _wrong_path(airisk, settings)
    status, said = check(deployment=None)
    assert (status, said.count("FAULT")) == (1, 1)
    assert "second:\n  ok    settings" in said
    assert "There is no authorization endpoint at http://127" in said


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
        (_wrong_path, "authorization: There is no authorization endpoint at http://127", f"{SITE} Correct BASE_URL"),
        (_wrong_secret, "token: AIRisk does not accept CLIENT_SECRET.", f"{SITE} Set CLIENT_SECRET"),
        (_unknown_userid, "authorization: AIRisk refuses the userid unknown_9, but not the same", f"{STAFF} Correct"),
        (_no_identity, "user: This site has no AIRisk userid for mia", f"{STAFF} Add"),
        (_switch("refuse"), "authorization: AIRisk refused", ADMINISTRATOR),
        (
            _switch("login_page"),
            "authorization: The authorization endpoint showed a page",
            f"{SITE} If Connect leads to a page",
        ),
        (_switch("outage"), "authorization: AIRisk answered with status 503", SUPPORT),
        (
            _switch("state_missing"),
            "authorization: AIRisk's redirect has no state",
            f"{SUPPORT} Ask them to make the deployment",
        ),
        (_switch("malformed"), "token: AIRisk's answer is not the JSON", f"{NETWORK} If a proxy answers"),
    ],
)
def test_each_fault_names_who_can_fix_it(
    airisk: World, settings: Any, mia: User, ails: Callable[[World, Any], None], said: str, remedy: str
) -> None:
    ails(airisk, settings)
    found, fixed_by = fault(user="mia")
    assert found.startswith(said)
    assert fixed_by.startswith(remedy)


@pytest.mark.parametrize(
    ("answers", "said", "remedy"),
    [
        (
            [{"status": 200}],
            "The authorization endpoint showed a page instead of redirecting at once.",
            f"{SITE} If Connect leads to a page",
        ),
        (
            [{"status": 302, "headers": {"Location": "http://login.corp/?back=code-canary"}}],
            "The authorization endpoint redirects to login.corp instead",
            f"{SITE} If Connect leads to a page",
        ),
        (
            [{"status": 302, "headers": {"Location": "https://app.example.com/airisk/callback?code=code-canary"}}],
            "AIRisk redirects to 'https://app.example.com/airisk/callback', but REDIRECT_URI is 'https://app.example.",
            f"{SITE} Make REDIRECT_URI the same",
        ),
        ([{"status": 200}, {"body": requests.ConnectTimeout()}], "The authorization endpoint showed a page", SITE),
        (
            [{"status": 403, "body": "<p>", "content_type": "text/html"}],
            "AIRisk refused: HTTP 403. The answer gives no reason",
            NETWORK,
        ),
        (
            [{"status": 401, "body": "<p>", "content_type": "text/html"}],
            "AIRisk refused: HTTP 401. The answer gives no reason",
            NETWORK,
        ),
    ],
)
def test_answers_of_others_are_recognized(answers: list[dict[str, Any]], said: str, remedy: str) -> None:
    with responses.RequestsMock() as wire:
        wire.get(BASE_URL)
        for answer in answers:
            wire.get(f"{BASE_URL}/api/oauth2", **answer)
        found, fixed_by = fault()
    assert found.startswith(f"authorization: {said}")
    assert fixed_by.startswith(remedy)


def _no_answer(user: Any, deployment: str) -> str:
    raise KeyError(user)


def test_failing_userid_function_is_reported(settings: Any, mia: User) -> None:
    set_option(settings, USERID=f"{__name__}._no_answer")
    found, remedy = fault(user="mia")
    assert found == f"user: {__name__}._no_answer raised KeyError for mia."
    assert remedy.startswith(f"{SITE} Correct USERID")


def _no_userid(user: Any, deployment: str) -> str:
    return "two\nlines"


def _nobody(user: Any, deployment: str) -> None:
    return None


def _unknown(user: Any, deployment: str) -> str:
    return "user_9"


@pytest.mark.parametrize(
    ("function", "said", "remedy"),
    [
        (_no_userid, "returned something that is no userid", "Correct USERID, or fix the function"),
        (_nobody, "This site has no AIRisk userid for mia", "Correct what {} returns"),
        (_unknown, "AIRisk refuses the userid user_9", "Correct what {} returns"),
    ],
)
def test_wrong_userid_function_is_the_sites_fault(
    other_airisk: SecondAIRisk, settings: Any, mia: User, function: Any, said: str, remedy: str
) -> None:
    name = f"{__name__}.{function.__name__}"
    set_option(settings, USERID=name)
    found, fixed_by = fault(user="mia")
    assert said in found
    assert fixed_by.startswith(f"{SITE} {remedy.format(name)}")


def test_page_is_fine_without_silent_renewal(airisk: World, settings: Any) -> None:
    set_option(settings, SILENT_RENEWAL=False)
    airisk.switches.login_page = True
    status, said = check()
    assert (status, said.splitlines()[-1].split(";")[0]) == (
        0,
        "  ok    authorization: AIRisk shows a page, as expected with SILENT_RENEWAL = False",
    )
    assert "CODE_FROM" not in said
    set_option(settings, CODE_FROM="server")
    assert 'CODE_FROM = "server" has no effect here: where a page is shown, only the browser gets a code' in check()[1]


@pytest.mark.parametrize(("seconds", "way"), [(60, "ahead of"), (-60, "behind")])
def test_wrong_clock_is_reported_and_steps_go_on(
    airisk: World, monkeypatch: pytest.MonkeyPatch, seconds: int, way: str
) -> None:
    set_clock(monkeypatch, seconds)
    status, said = check()
    assert status == 1
    assert f"s {way} AIRisk's.\n        Server administrator: Set the clock" in said
    assert "  ok    call: " in said


def test_short_token_lifetime_is_reported(airisk: World) -> None:
    airisk.switches.token_life = 60
    assert fault()[1].startswith(ADMINISTRATOR)
    airisk.switches.token_life = None
    assert "AIRisk named no expiry" in check()[1]


# Unreachable hosts


@pytest.mark.parametrize(
    ("url", "said", "remedy"),
    [
        ("http://127.0.0.1:9", "127.0.0.1:9 cannot be reached", f"{NETWORK} Let this server connect to 127.0.0.1:9"),
        ("https://nowhere.invalid", "There is no host nowhere.invalid", f"{SITE} Correct BASE_URL"),
    ],
)
def test_unreachable_address_is_reported(settings: Any, url: str, said: str, remedy: str) -> None:
    set_option(settings, BASE_URL=url)
    found, fixed_by = fault()
    assert (found.startswith(f"connection: {said}"), fixed_by.startswith(remedy)) == (True, True)


@pytest.mark.parametrize("speaks_tls", [True, False])
def test_unverified_host_is_reported(
    settings: Any,
    airisk_url: str,
    serve: Serve,
    certificate: Certificate,
    speaks_tls: bool,
) -> None:
    url = serve(saying(http()), certificate("127.0.0.1")[0]).url if speaks_tls else airisk_url
    set_option(settings, BASE_URL=url.replace("http:", "https:"))
    found, remedy = fault()
    assert found.endswith("self-signed certificate." if speaks_tls else "it does not use TLS.")
    assert remedy.startswith(NETWORK)
    assert "REQUESTS_CA_BUNDLE" in remedy


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("https_proxy", "http://127.0.0.1:9", "demo.aicrisk.com cannot be reached through the proxy"),
        ("REQUESTS_CA_BUNDLE", "/nowhere/bundle.pem", "the CA certificate bundle that REQUESTS_CA_BUNDLE"),
    ],
)
def test_faults_of_the_environment_are_reported(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv("no_proxy", "")
    monkeypatch.setenv(variable, value)
    found, remedy = fault()
    assert said in found
    assert remedy.startswith(NETWORK)


# What the API answers


def set_answers(airisk: SecondAIRisk, call: tuple[str, str], *answers: Any) -> None:
    """Set the answers to a call, one after the other; the last one is repeated."""
    left = list(answers)
    airisk.answers[call] = lambda given: left.pop(0) if len(left) > 1 else left[0]


@pytest.mark.parametrize(
    ("answer", "said", "remedy"),
    [
        (problem(), "AIRisk refuses the token that it has just issued", SUPPORT),
        (
            problem(403, "Forbidden"),
            "with status 403: user_42 has no permission",
            f"{ADMINISTRATOR} Check this user",
        ),
        (problem(404, "Not Found"), "was answered with status 404", f"{SUPPORT} Ask them whether this deployment has"),
        (redirect("/login"), "was answered with status 302", SUPPORT),
        ((502, {}, b""), "was answered with status 502", f"{SUPPORT} Ask them why, or try again later"),
        ((429, {}, b""), "was answered with status 429", f"{SUPPORT} Ask them why, or try again later"),
        (page(), "was answered with status 200 and a page", NETWORK),
    ],
)
def test_failing_call_of_a_user_is_reported(
    other_airisk: SecondAIRisk, mia: User, answer: Any, said: str, remedy: str
) -> None:
    set_answers(other_airisk, AGENTS, answer)
    found, fixed_by = fault(user="mia")
    assert found.startswith("call: ")
    assert (said in found, fixed_by.startswith(remedy)) == (True, True)


@pytest.mark.parametrize("status", [200, 400, 401, 403, 404])
def test_application_call_claims_nothing_unknown(other_airisk: SecondAIRisk, status: int) -> None:
    set_answers(other_airisk, AGENTS, problem(status))
    code, said = check()
    assert code == 0
    assert f"with status {status}; AIRisk does not document which calls the application's own token can make" in said


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (answer_json([]), "user_42 has no agents to chat with"),
        (answer_json([{}, {}]), "user_42 has 2 agents"),
        (answer_json({"agents": []}), "with status 200\n"),
        ((200, {}, b"["), "with status 200\n"),
        ((200, {}, b""), "with status 200\n"),
        ((200, {}, b"[" * 60_000), "with status 200\n"),
        (answer_json(["x" * 70_000]), "with status 200\n"),
    ],
)
def test_agents_are_counted_if_possible(other_airisk: SecondAIRisk, mia: User, answer: Any, said: str) -> None:
    set_answers(other_airisk, AGENTS, answer)
    status, words = check(user="mia")
    assert (
        status,
        f"GET /api/Chat/ListAgents was answered with status 200{'' if '200' in said else ': '}" in words,
    ) == (0, True)
    assert said in words


@pytest.mark.parametrize(
    ("failure", "said"),
    [
        (requests.ReadTimeout("token-canary"), "got no answer (ReadTimeout)"),
        (OSError(), "got no answer (ConnectionError)"),
    ],
)
def test_call_without_answer_is_reported(failure: OSError, said: str) -> None:
    with responses.RequestsMock() as wire:
        wire.get(BASE_URL, headers={"Date": "yesterday"})
        silent_flow(wire, {"json": {"access_token": "token-canary"}})
        wire.get(f"{BASE_URL}/api/Chat/ListAgents", body=failure)
        status, words = check()
    assert (status, said in words) == (1, True)
    assert "no valid date" in words


def test_dripping_call_is_reported_as_slow(settings: Any) -> None:
    set_option(settings, API_TIMEOUT=(5, 1e-9))
    with responses.RequestsMock() as wire:
        wire.get(BASE_URL)
        silent_flow(wire, {"json": {"access_token": "token-canary"}})
        wire.get(f"{BASE_URL}/api/Chat/ListAgents", body="[" * 5000)
        assert "GET /api/Chat/ListAgents got no answer within 1e-09 s: AIRisk is slow" in check()[1]


def test_other_tls_error_is_named() -> None:
    with responses.RequestsMock() as wire:
        wire.get(BASE_URL, body=requests.exceptions.SSLError("[SSL: TLSV1_ALERT_PROTOCOL_VERSION] tlsv1 alert"))
        found, remedy = fault()
    assert found == "connection: No TLS connection to demo.aicrisk.com could be made (TLSV1_ALERT_PROTOCOL_VERSION)."
    assert remedy.startswith(SUPPORT)


@pytest.mark.parametrize("status", [400, 429])
def test_refused_code_is_airisks_fault(status: int) -> None:
    with responses.RequestsMock() as wire:
        wire.get(BASE_URL)
        silent_flow(wire, {"status": status, "body": "Invalid Code", "content_type": "text/plain"})
        found, remedy = fault()
    assert ("Invalid Code" in found) == (status == 400)
    assert remedy.startswith(ADMINISTRATOR if status == 400 else SUPPORT)


# Settings


def test_wrong_settings_are_all_listed_at_once(settings: Any) -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = ["no key"]
    set_option(settings, BASE_URL="ftp://x", UNKNOWN=1)
    with responses.RequestsMock():
        status, said = check()
    assert (status, said.count("FAULT settings:"), said.count(SITE)) == (1, 3, 3)


@pytest.mark.parametrize(
    ("options", "said"),
    [({"deployment": "third"}, "no deployment 'third'"), ({"user": "nobody"}, "There is no user 'nobody'.")],
)
def test_unknown_name_is_reported(options: dict[str, str], said: str) -> None:
    status, words = check(**options)
    assert (status, said in words) == (1, True)


def test_missing_setting_fails_the_command(settings: Any) -> None:
    del settings.AIRISK_OAUTH
    assert check(deployment=None)[0] == 1


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [("USE_TZ", False, "USE_TZ is not True."), ("AIRISK_OAUTH_IMPERSONATED", "x.y", "AIRISK_OAUTH_IMPERSONATED")],
)
def test_site_settings_are_reported_first(settings: Any, name: str, value: Any, said: str) -> None:
    setattr(settings, name, value)
    found, remedy = fault()
    assert said in found
    assert remedy.startswith(SITE)

"""``check_airisk`` blames an option only if it has established that as the cause of a refusal."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User

from tests.support.doctor import ADMINISTRATOR, NETWORK, SITE, STAFF, check, fault, set_default
from tests.support.second_airisk import (
    AUTHORIZE,
    CALLBACK,
    TOKEN,
    Answer,
    SecondAIRisk,
    answer_json,
    answer_text,
    page,
    problem,
    redirect,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once]

NOT_THIS_SITES = "https://app.example.com/airisk/calback/"


def _by_error_redirect(plain: Answer) -> Answer:
    return redirect("/oauth/error?error=invalid_request&traceId=00-1-00")


def _by_redirect_to_json(plain: Answer) -> Answer:
    return redirect("/oauth/error")


def _by_json(plain: Answer) -> Answer:
    return 200, *plain[1:2], plain[2] if b"{" in plain[2] else b'{"error": "invalid_request"}'


SHAPES = [lambda plain: plain, _by_error_redirect, _by_redirect_to_json, _by_json]
in_each_shape = pytest.mark.parametrize("shape", SHAPES, ids=["status", "error", "redirect", "json"])


def refuse_by(other_airisk: SecondAIRisk, shape: Callable[[Answer], Answer]) -> None:
    def refuses_by(plain: Answer) -> Answer:
        status, headers, body = shape(plain)
        if status == 200:
            headers = {"Content-Type": "application/json"}
        return status, headers, body

    other_airisk.refuses_by = refuses_by
    other_airisk.answers["GET", "/oauth/error"] = lambda given: answer_json({"error": "invalid_request"})


@in_each_shape
@pytest.mark.parametrize("unknown_user", [problem, lambda: answer_text("Invalid userid"), lambda: (400, {}, b"")])
def test_unknown_userid_does_not_blame_the_client(
    other_airisk: SecondAIRisk, mia: User, shape: Any, unknown_user: Callable[[], Answer]
) -> None:
    """Changing CLIENT_ID because of one user would break the site for everybody."""
    refuse_by(other_airisk, shape)
    other_airisk.users, other_airisk.unknown_user = ("user_7",), unknown_user
    found, remedy = fault(user="mia")
    assert found.startswith("authorization: AIRisk refuses the userid user_42, but not the same request")
    assert remedy.startswith(f"{STAFF} Correct the user's AIRisk identity")
    assert ADMINISTRATOR in remedy


@in_each_shape
@pytest.mark.parametrize("options", [{}, {"user": "mia"}])
def test_unknown_client_is_blamed_on_client_id(
    other_airisk: SecondAIRisk, mia: User, shape: Any, options: dict[str, str]
) -> None:
    refuse_by(other_airisk, shape)
    other_airisk.client_id = "another"
    found, remedy = fault(**options)
    assert found.startswith("authorization: AIRisk does not know CLIENT_ID client-1.")
    assert remedy.startswith(f"{SITE} Set CLIENT_ID")


@in_each_shape
@pytest.mark.parametrize("all_alike", [False, True])
def test_unregistered_address_blames_redirect_uri(other_airisk: SecondAIRisk, shape: Any, all_alike: bool) -> None:
    refuse_by(other_airisk, shape)
    other_airisk.refuses_all_alike, other_airisk.redirect_uris = all_alike, ("https://app.example.com/",)
    found, remedy = fault()
    assert found.startswith(f"authorization: AIRisk does not know REDIRECT_URI {CALLBACK}.")
    assert remedy.startswith(f"{ADMINISTRATOR} If that is this site's address, add exactly this")
    assert f"{SITE} If it is misspelled, correct it." in remedy


@pytest.mark.parametrize("unknown_user", [lambda: problem(400, "Bad Request"), lambda: answer_text("Invalid userid")])
def test_userid_is_blamed_if_clients_need_one(
    other_airisk: SecondAIRisk, mia: User, unknown_user: Callable[[], Answer]
) -> None:
    """Without a userid, this client is refused as well, but for another reason."""
    usual = other_airisk.authorize
    other_airisk.users, other_airisk.unknown_user = ("user_7",), unknown_user
    other_airisk.answers[AUTHORIZE] = lambda given: usual(given) if "userid" in given else problem(403, "Forbidden")
    found, remedy = fault(user="mia")
    assert found.startswith("authorization: AIRisk refuses the userid user_42. Its answer: ")
    assert "HTTP 400" in found
    assert remedy.startswith(f"{STAFF} Correct the user's AIRisk identity")


@pytest.mark.parametrize("reason", ["Invalid client_id", "Invalid redirect_uri"])
def test_option_named_by_airisk_is_blamed(other_airisk: SecondAIRisk, reason: str) -> None:
    other_airisk.answers[AUTHORIZE] = lambda given: answer_text(reason)
    assert f"AIRisk does not know {reason.removeprefix('Invalid ').upper()}" in fault()[0]
    assert [path for _method, path, _given in other_airisk.requests].count("/api/oauth2/Token") == 0


def test_misspelt_redirect_uri_is_to_be_corrected(other_airisk: SecondAIRisk, settings: Any) -> None:
    set_default(settings, REDIRECT_URI=NOT_THIS_SITES)
    status, said = check()
    assert (status, said.count("FAULT")) == (1, 2)
    assert f"FAULT callback: REDIRECT_URI {NOT_THIS_SITES} is not this deployment's callback" in said
    assert f"{SITE} First correct REDIRECT_URI" in said
    assert ADMINISTRATOR not in said


@pytest.mark.parametrize(
    "at_token_endpoint",
    [(503, {}, b""), answer_text("Something is missing"), page(status=403), answer_json({"access_token": "x"})],
)
def test_two_possible_causes_are_both_named(other_airisk: SecondAIRisk, at_token_endpoint: Answer) -> None:
    other_airisk.answers[AUTHORIZE] = lambda given: problem()
    other_airisk.answers[TOKEN] = lambda given: at_token_endpoint
    found, remedy = fault()
    assert "does not know CLIENT_ID client-1, or does not know REDIRECT_URI https://app" in found
    assert remedy.startswith(f"{ADMINISTRATOR} Compare both")


def _refuse_us(given: dict[str, str]) -> Answer:
    known = (
        given["client_id"] == "client-1"
        and given["redirect_uri"] == CALLBACK
        and given.get("userid", "user_42") == "user_42"
    )
    return problem(403, "Forbidden") if known else problem()


def _refuse_at_our_address(given: dict[str, str]) -> Answer:
    return redirect(f"{CALLBACK}?error=access_denied&state={given['state']}")


def _refuse_without_state(given: dict[str, str]) -> Answer:
    return redirect(f"{CALLBACK}?error=access_denied")


def _refuse_unless_elsewhere(given: dict[str, str]) -> Answer:
    if given["redirect_uri"] != CALLBACK:
        return page("Choose")
    return problem()


def _refuse_all_users(given: dict[str, str]) -> Answer:
    known = given["client_id"] == "client-1" and given["redirect_uri"] == CALLBACK
    return problem(403, "Forbidden") if known else problem()


@pytest.mark.parametrize("refuse", [_refuse_us, _refuse_all_users, _refuse_at_our_address, _refuse_without_state])
@pytest.mark.parametrize("options", [{}, {"user": "mia"}])
def test_other_refusals_blame_no_option(
    other_airisk: SecondAIRisk, mia: User, refuse: Any, options: dict[str, str]
) -> None:
    other_airisk.answers[AUTHORIZE] = refuse
    found, remedy = fault(**options)
    assert found.startswith("authorization: AIRisk refused")
    assert remedy == f"{ADMINISTRATOR} Find out why the APIUser client-1 is refused."


def test_refusal_of_this_client_blames_client_id(other_airisk: SecondAIRisk) -> None:
    other_airisk.answers[AUTHORIZE] = _refuse_unless_elsewhere
    assert "AIRisk does not know CLIENT_ID client-1." in fault()[0]


def test_outage_meanwhile_blames_no_option(other_airisk: SecondAIRisk) -> None:
    answers = [problem(), (503, {}, b"")]
    other_airisk.answers[AUTHORIZE] = lambda given: answers.pop(0) if len(answers) > 1 else answers[0]
    found, remedy = fault()
    assert (found.count("CLIENT_ID"), remedy.startswith(ADMINISTRATOR)) == (0, True)


def test_wrong_secret_is_blamed_on_client_secret(other_airisk: SecondAIRisk, mia: User) -> None:
    other_airisk.client_secret = "another"
    found, remedy = fault(user="mia")
    assert (found.startswith("token: AIRisk does not accept CLIENT_SECRET."), remedy.startswith(SITE)) == (True, True)
    other_airisk.answers[TOKEN] = lambda given: answer_text("Invalid client_secret")
    assert "does not accept CLIENT_SECRET" in fault()[0]


def _code_first(other_airisk: SecondAIRisk, given: dict[str, str]) -> Answer:
    return other_airisk.trade(given) if given["code"] in other_airisk.codes else answer_text("Invalid Code")


def test_wrong_secret_after_code_check_is_blamed(other_airisk: SecondAIRisk) -> None:
    """If AIRisk checks the code first, a made-up code shows nothing about the client."""
    other_airisk.client_secret = "another"
    other_airisk.answers[TOKEN] = lambda given: _code_first(other_airisk, given)
    found, remedy = fault()
    assert found.startswith("token: AIRisk refused: Unauthorized (HTTP 401, traceId 00-")
    assert found.endswith("). AIRisk documents this status for a client that it does not know.")
    assert (remedy.startswith(f"{SITE} Set CLIENT_SECRET"), ADMINISTRATOR in remedy) == (True, True)


def test_wrong_client_after_code_check_is_blamed(other_airisk: SecondAIRisk) -> None:
    other_airisk.client_id = "another"
    other_airisk.answers[TOKEN] = lambda given: _code_first(other_airisk, given)
    assert "AIRisk does not know CLIENT_ID client-1, or does not know REDIRECT_URI" in fault()[0]


def test_refused_code_does_not_blame_the_secret(other_airisk: SecondAIRisk) -> None:
    def trade(given: dict[str, str]) -> Answer:
        is_ours = (given["client_id"], given["client_secret"]) == ("client-1", "secret-1")
        return answer_text("Invalid Code") if is_ours and given["code"] not in other_airisk.codes else problem()

    other_airisk.answers[TOKEN] = trade
    found, remedy = fault()
    assert found.startswith("token: AIRisk refused: Unauthorized (HTTP 401")
    assert remedy.startswith(f"{ADMINISTRATOR} Find out why")
    other_airisk.answers[TOKEN] = lambda given: answer_text("Invalid Code")
    assert fault()[1].startswith(f"{ADMINISTRATOR} Find out why")


def test_userid_refused_with_the_code_is_blamed(other_airisk: SecondAIRisk, mia: User) -> None:
    usual = other_airisk.trade
    other_airisk.answers[TOKEN] = lambda given: problem() if "userid" in given else usual(given)
    found, remedy = fault(user="mia")
    assert found.startswith("token: AIRisk refuses to issue a token for the userid user_42, but issues one without")
    assert remedy.startswith(f"{STAFF} Correct the user's AIRisk identity")


@pytest.mark.parametrize("status", [401, 403])
def test_page_instead_of_token_blames_no_option(other_airisk: SecondAIRisk, status: int) -> None:
    other_airisk.answers[TOKEN] = lambda given: page(status=status)
    found, remedy = fault()
    assert found.startswith(f"token: AIRisk refused: HTTP {status}. The answer gives no reason")
    assert remedy.startswith(f"{NETWORK} If a proxy answers")


@pytest.mark.parametrize("status", [404, 405])
def test_missing_endpoints_are_reported(other_airisk: SecondAIRisk, status: int) -> None:
    other_airisk.answers[TOKEN] = lambda given: problem(status, "Not Found")
    assert fault()[0].startswith(f"token: There is no token endpoint at {other_airisk.url}/api/oauth2/Token: ")
    other_airisk.answers[AUTHORIZE] = lambda given: (status, {}, b"")
    assert fault()[0].startswith(
        f"authorization: There is no authorization endpoint at {other_airisk.url}/api/oauth2: HTTP {status}."
    )

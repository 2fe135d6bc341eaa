"""``check_airisk`` on what AIRisk's authorization codes are good for."""

from typing import Any

import pytest
from django.contrib.auth.models import User

from airisk_oauth.models import AIRiskIdentity
from tests.support.doctor import SITE, SUPPORT, check, fault, set_default
from tests.support.second_airisk import (
    AGENTS,
    AUTHORIZE,
    TOKEN,
    Answer,
    SecondAIRisk,
    page,
)

pytestmark = [pytest.mark.django_db, pytest.mark.once]


UNBOUND = (
    "A code for user_42 was exchanged with a made-up userid and without a userid: AIRisk does not compare userids, and "
    "the token may belong to the user that the authorization URL named."
)


def test_codes_that_carry_users_need_code_from(other_airisk: SecondAIRisk, mia: User) -> None:
    other_airisk.codes_carry_user = True
    found, remedy = fault(user="mia")
    assert found.startswith(f"codes: {UNBOUND} Whoever edits userid=")
    assert remedy == f'{SITE} Set CODE_FROM to "server".'


def test_application_shows_codes_carry_users(other_airisk: SecondAIRisk) -> None:
    other_airisk.codes_carry_user = True
    found, remedy = fault()
    assert found.startswith(
        "codes: A code for the application was exchanged with a made-up userid: AIRisk does not compare userids"
    )
    assert remedy.endswith('Set CODE_FROM to "server".')


def test_other_users_id_proves_more_than_made_up(other_airisk: SecondAIRisk, mia: User) -> None:
    """Here a made-up userid is refused, but not the userid of another user of this site."""
    other_airisk.codes_carry_user = other_airisk.asks_for_known_userid = True
    status, said = check(user="mia")
    assert (status, "refused with a made-up userid, without a userid, a second time" in said) == (0, True)
    assert 'CODE_FROM = "browser" is safe as far as this test can tell\n' in said
    ben = User.objects.create_user("ben")
    AIRiskIdentity.objects.create(user=ben, userid="user_7")
    assert fault(user="mia")[0].startswith("codes: A code for user_42 was exchanged with another userid: AIRisk does")


def test_code_from_server_tolerates_loose_codes(other_airisk: SecondAIRisk, settings: Any, mia: User) -> None:
    set_default(settings, CODE_FROM="server")
    other_airisk.codes_carry_user = other_airisk.codes_reusable = other_airisk.any_redirect_uri = True
    status, said = check(user="mia")
    assert status == 0
    assert f'{UNBOUND} This site needs CODE_FROM = "server", and has it.' in said
    assert said.count('With CODE_FROM = "server" this site exchanges no code that came through a browser.') == 2


@pytest.mark.parametrize(
    ("switch", "said"),
    [("codes_reusable", "works a second time."), ("any_redirect_uri", "works with another redirect URI.")],
)
@pytest.mark.parametrize(("options", "whose"), [({}, "the application"), ({"user": "mia"}, "user_42")])
def test_loose_codes_are_reported(
    other_airisk: SecondAIRisk, mia: User, switch: str, said: str, options: dict[str, str], whose: str
) -> None:
    setattr(other_airisk, switch, True)
    found, remedy = fault(**options)
    assert found == f"codes: A code for {whose} {said}"
    assert remedy.startswith(f"{SUPPORT} Ask them to let each code work only once")
    assert remedy.endswith(f'{SITE} Until then, set CODE_FROM to "server".')


def test_bound_codes_are_reported_as_safe(other_airisk: SecondAIRisk, settings: Any, mia: User) -> None:
    AIRiskIdentity.objects.create(user=User.objects.create_user("ben"), userid="user_7")
    ways = "with another userid, without a userid, a second time and with another redirect URI"
    assert f'a code for user_42 is refused {ways}; CODE_FROM = "browser" is safe\n' in check(user="mia")[1]
    ways = "with another userid, a second time and with another redirect URI"
    assert f"a code for the application is refused {ways}; to test the codes of a user, add --user NAME\n" in check()[1]
    set_default(settings, CODE_FROM="server")
    assert "and with another redirect URI\n" in check(user="mia")[1]


@pytest.mark.parametrize(
    ("call", "header", "wait"),
    [
        (AUTHORIZE, "30", "30 s"),
        (TOKEN, "3600", "60 s"),
        (AGENTS, "30", "30 s"),
        (AGENTS, "soon", ""),
    ],
)
def test_requested_wait_is_reported(
    other_airisk: SecondAIRisk, mia: User, call: tuple[str, str], header: str, wait: str
) -> None:
    other_airisk.answers[call] = lambda given: (503, {"Retry-After": header}, b"")
    found, remedy = fault(user="mia")
    asks = f" AIRisk asks clients to wait at least {wait} (Retry-After)." if wait else ""
    assert found.endswith(f"answered with status 503.{asks}")
    assert remedy == f"{SUPPORT} Ask them why, or try again later."


@pytest.mark.parametrize("answer", [(500, {}, b""), page()])
def test_failed_trial_proves_nothing(other_airisk: SecondAIRisk, mia: User, answer: Answer) -> None:
    usual = other_airisk.trade
    other_airisk.answers[TOKEN] = lambda given: usual(given) if given.get("userid") == "user_42" else answer
    status, said = check(user="mia")
    assert status == 0
    assert "it is not known whether a code for user_42 is refused without a userid: AIRisk" in said
    assert "a code for user_42 is refused a second time and with another redirect URI\n" in said
    assert "is safe" not in said


def test_page_during_a_trial_proves_nothing(other_airisk: SecondAIRisk) -> None:
    usual, seen = other_airisk.authorize, []

    def authorize(given: dict[str, str]) -> Answer:
        seen.append(given)
        return usual(given) if len(seen) == 1 else page()

    other_airisk.answers[AUTHORIZE] = authorize
    status, said = check()
    assert (status, said.count(": AIRisk showed a page.")) == (0, 3)


def test_trials_leave_no_token_behind(other_airisk: SecondAIRisk, mia: User) -> None:
    other_airisk.codes_carry_user = other_airisk.codes_reusable = other_airisk.any_redirect_uri = True
    assert check(user="mia")[0] == 1
    assert len(other_airisk.tokens) == 6

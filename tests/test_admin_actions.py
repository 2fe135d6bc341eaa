"""What staff can do to tokens in the admin: renew and disconnect, each after a question."""

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.auth.models import User
from django.test import Client
from django.urls import reverse

from airisk_oauth.admin import tokens
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import Caller, World
from airisk_oauth.signals import token_disconnected
from tests.support.admin import act, allow, ask_for, confirm, messages_in, obtain_page, person, text_of, token_page
from tests.support.options import replace_keys
from tests.support.people import give_token
from tests.support.signals import signals_sent
from tests.support.statuses import GONE, store_described
from tests.support.stored import rows_of_flows_and_tokens

if TYPE_CHECKING:
    from pytest_django import Settings

CANARY = "Zq9-canary-0123456789-token"


# Renewing


Arrange = Callable[[World, "Settings"], object]


def all_is_well(airisk: World, settings: "Settings") -> None:
    pass


def airisk_refuses(airisk: World, settings: "Settings") -> None:
    airisk.switches.refuse = True


def airisk_is_down(airisk: World, settings: "Settings") -> None:
    airisk.switches.outage = True


def identities_changed(airisk: World, settings: "Settings") -> None:
    AIRiskIdentity.objects.update(userid="user_1")


def keys_were_lost(airisk: World, settings: "Settings") -> None:
    replace_keys(settings)


def users_were_deactivated(airisk: World, settings: "Settings") -> None:
    User.objects.filter(username__startswith="user-").update(is_active=False)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("arrange", "one", "two"),
    [
        (all_is_well, "1 token was renewed.", "2 tokens were renewed."),
        (
            airisk_refuses,
            "1 token was refused: its user has to reconnect.",
            "2 tokens were refused: their users have to reconnect.",
        ),
        (
            airisk_is_down,
            "1 token was not renewed: AIRisk was not available.",
            "2 tokens were not renewed: AIRisk was not available.",
        ),
        (
            identities_changed,
            "1 token was skipped: the user's AIRisk identity has changed or was removed.",
            "2 tokens were skipped: the user's AIRisk identity has changed or was removed.",
        ),
        (
            keys_were_lost,
            "1 token was skipped: the stored token cannot be decrypted.",
            "2 tokens were skipped: the stored token cannot be decrypted.",
        ),
        (
            users_were_deactivated,
            "1 token was skipped: the user is deactivated.",
            "2 tokens were skipped: the user is deactivated.",
        ),
    ],
)
def test_renewing_reports_the_result(
    arrange: Arrange, one: str, two: str, number: int, admin_client: Client, airisk: World, settings: "Settings"
) -> None:
    replace_keys(settings)
    chosen = [give_token(person(f"user-{index}")) for index in range(number)]
    other = give_token(person("other"))
    arrange(airisk, settings)
    assert act(admin_client, "renew_now", *chosen) == [{1: one, 2: two}[number]]
    changed = [AIRiskToken.objects.get(pk=token.pk).sealed != token.sealed for token in chosen]
    assert changed == [arrange is all_is_well] * number
    assert not AIRiskToken.objects.exclude(lease=None).exists()
    assert AIRiskToken.objects.get(pk=other.pk).sealed == other.sealed


def test_deployments_are_reported_together(admin_client: Client, airisk: World) -> None:
    mia = person("mia")
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_42")
    chosen = [give_token(mia, deployment=alias) for alias in ("second", GONE, "default")]
    chosen.append(give_token(None, deployment="second"))
    renewed, skipped = act(admin_client, "renew_now", *chosen)
    assert renewed == "3 tokens were renewed."
    assert skipped.startswith("1 token was skipped")
    assert airisk.caller_of(AIRiskToken.objects.get(pk=chosen[3].pk).access_token) == Caller("client-2", None)


def test_renewing_reports_every_chosen_token(admin_client: Client, airisk: World) -> None:
    """So that the numbers add up to what the question said."""
    chosen = [store_described("not obtained"), give_token(person("mia"))]
    assert act(admin_client, "renew_now", *chosen) == [
        "1 token was renewed.",
        "1 token was skipped: no token was obtained yet.",
    ]


@pytest.mark.usefixtures("second_by_hand")
def test_token_renewed_by_hand_is_skipped(admin_client: Client) -> None:
    token = give_token(person("mia", deployment="second"), deployment="second")
    assert len(act(admin_client, "renew_now", token)) == 1


# Disconnecting


def test_disconnecting_deletes_the_chosen_tokens(admin_client: Client, airisk: World) -> None:
    chosen = [give_token(person("mia"), access_token=CANARY), give_token(None)]
    other = give_token(person("tom"))
    with signals_sent(token_disconnected) as sent:
        assert act(admin_client, "delete_selected", chosen[0]) == ["1 token was disconnected."]
        assert act(admin_client, "delete_selected", chosen[1], other) == ["2 tokens were disconnected."]
    assert {carried["user_id"] for _signal, carried in sent} == {chosen[0].user_id, None, other.user_id}
    assert len(sent) == 3
    assert set(sent[0][1]) == {"sender", "user_id", "deployment"}
    assert not AIRiskToken.objects.exists()
    assert airisk.journal == []
    history = admin_client.get(reverse("admin:index"))
    assert "user_42 (default)" in text_of(history)
    assert CANARY not in history.content.decode()


def test_deleting_a_token_disconnects_it(admin_client: Client) -> None:
    token = give_token(person("mia"))
    with signals_sent(token_disconnected) as sent:
        assert admin_client.post(token_page("delete", token.pk), {"post": "yes"}).status_code == 302
    carried = {"sender": AIRiskToken, "user_id": token.user_id, "deployment": "default"}
    assert sent == [(token_disconnected, carried)]
    assert not AIRiskToken.objects.exists()


def test_tokens_of_a_removed_deployment_can_go(admin_client: Client, airisk: World) -> None:
    token = give_token(person("mia", deployment=GONE), deployment=GONE)
    assert GONE in text_of(admin_client.get(token_page("changelist")))
    assert GONE in text_of(admin_client.get(token_page("change", token.pk)))
    [said] = act(admin_client, "renew_now", token)
    assert said.startswith("1 token was skipped: AIRISK_OAUTH has no deployment 'gone'")
    assert act(admin_client, "delete_selected", token) == ["1 token was disconnected."]
    assert airisk.journal == []


# Any action


@pytest.mark.parametrize(("action", "question"), [("renew_now", "Renew"), ("delete_selected", "Disconnect")])
def test_action_asks_before_it_does_anything(action: str, question: str, admin_client: Client, airisk: World) -> None:
    chosen = [give_token(person(name)) for name in ("mia", "tom")]
    for number, noun in ((1, "token"), (2, "tokens")):
        page = text_of(ask_for(admin_client, action, *chosen[:number]))
        assert f"{question} {number} {noun}" in page
        assert "No, take me back" in page
    across = ask_for(admin_client, action, chosen[0], select_across="1")
    assert f"{question} 2 tokens" in text_of(across)
    assert airisk.journal == []
    assert AIRiskToken.objects.count() == 2
    said = confirm(admin_client, across).context["messages"]
    assert [str(message)[:8] for message in said] == ["2 tokens"]


def test_action_refuses_too_many_tokens(admin_client: Client, airisk: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tokens, "MAX_RENEWED", 1)
    monkeypatch.setattr(tokens, "MAX_DISCONNECTED", 1)
    chosen = [give_token(person(name)) for name in ("mia", "tom")]
    for action, words in (
        ("renew_now", "Choose at most 1 tokens; for more, use the command refresh_airisk_tokens."),
        ("delete_selected", "Choose at most 1 tokens."),
    ):
        assert ask_for(admin_client, action, *chosen, post="yes").status_code == 302
        assert messages_in(admin_client) == [words]
    assert airisk.journal == []
    assert AIRiskToken.objects.count() == 2


@pytest.mark.parametrize(
    ("codename", "offered"),
    [("view", set()), ("change", {"renew_now"}), ("delete", {"delete_selected"})],
)
def test_each_action_needs_its_permission(
    codename: str, offered: set[str], desk: Client, staff: User, airisk: World
) -> None:
    allow(staff, *{"view_airisktoken", f"{codename}_airisktoken"})
    token = give_token(person("mia"))
    before = rows_of_flows_and_tokens()
    page = desk.get(token_page("changelist")).content.decode()
    assert set(re.findall(r'<option value="(\w+)">', page)) == offered
    for action in {"renew_now", "delete_selected"} - offered:
        act(desk, action, token)
    assert (airisk.journal, rows_of_flows_and_tokens()) == ([], before)
    for action in offered:
        act(desk, action, token)
        assert rows_of_flows_and_tokens() != before


def test_history_says_who_did_what(admin_client: Client, airisk: World) -> None:
    token = give_token(person("mia"))
    act(admin_client, "renew_now", token)
    admin_client.post(obtain_page())
    for pk in AIRiskToken.objects.values_list("pk", flat=True):
        history = text_of(admin_client.get(token_page("history", pk)))
        assert "admin Renewed by hand." in history
    act(admin_client, "delete_selected", token)
    actions = LogEntry.objects.order_by("pk").values_list("action_flag", "object_repr")
    assert list(actions) == [
        (CHANGE, "user_42 (default)"),
        (CHANGE, "the application (default)"),
        (DELETION, "user_42 (default)"),
    ]


@pytest.mark.parametrize(
    ("is_down", "words"), [(True, "Tried to renew by hand."), (False, "Renewed by hand.")], ids=["failed", "renewed"]
)
@pytest.mark.parametrize("status", ["ended", "failing"])
def test_history_tells_attempts_from_renewals(
    is_down: bool, words: str, status: str, admin_client: Client, airisk: World
) -> None:
    """Also of a token that is not in the filtered list any more after it was renewed."""
    failure = {"ended": {}, "failing": {"failure_kind": "unavailable", "failure_count": 1}}[status]
    token = give_token(person("mia"), ends_in=-60, **failure)
    airisk.switches.outage = is_down
    choice = {"action": "renew_now", "_selected_action": [token.pk], "index": 0, "post": "yes"}
    admin_client.post(f"{token_page('changelist')}?status={status}", choice)
    assert [entry.change_message for entry in LogEntry.objects.all()] == [words]


@pytest.mark.parametrize("action", ["renew_now", "delete_selected"])
def test_staff_learn_that_tokens_have_left_the_list(action: str, admin_client: Client, mia: User) -> None:
    """Something else may have renewed them since they were chosen in a list of expired tokens."""
    token = give_token(mia)
    data = {"action": action, "_selected_action": [token.pk], "index": 0}
    page = admin_client.post(f"{token_page('changelist')}?status=ended", data, follow=True)
    assert [str(message) for message in page.context["messages"]] == [
        "None of the chosen tokens is in this list any more."
    ]
    assert AIRiskToken.objects.get() == token

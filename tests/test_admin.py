"""The admin: what staff see and may do, that nothing there opens or shows a token, and the states behind it."""

import re
from datetime import timedelta
from html import unescape
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit
from uuid import uuid4

import pytest
import requests
from cryptography.fernet import Fernet
from django.contrib.admin import AdminSite, ModelAdmin
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.admin.widgets import AutocompleteSelect, ForeignKeyRawIdWidget
from django.contrib.auth.models import Permission, User
from django.db import connection, connections
from django.db.models import F
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

import airisk_oauth.admin
from airisk_oauth.admin import AIRiskIdentityAdmin, AIRiskTokenAdmin
from airisk_oauth.models import AIRiskIdentity, AIRiskToken, PendingAuthorization
from airisk_oauth.sandbox.world import Caller, World
from airisk_oauth.signals import token_disconnected, token_obtained
from airisk_oauth.tokens.status import Status, _Seconds, with_status
from tests.support.admin import ask_for, confirm, identity_page, obtain_page, token_page
from tests.support.browsing import at_each_request, authorize, start
from tests.support.options import set_option
from tests.support.people import give_token, token_requests
from tests.support.signals import signals_sent
from tests.support.stored import rows_of_flows_and_tokens

if TYPE_CHECKING:
    from pytest_django import Settings

CANARY = "Zq9-canary-0123456789-token"
GONE = "gone"


def new_keys() -> list[str]:
    return [Fernet.generate_key().decode()]


def person(name: str, userid: str = "user_42", deployment: str = "default") -> User:
    user = User.objects.create_user(name, email=f"{name}@example.com")
    AIRiskIdentity.objects.create(user=user, userid=userid, deployment=deployment)
    return user


def read(response: Any) -> str:
    """The page's text."""
    assert response.status_code == 200
    page = response.content.decode()
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page[page.index("<body") :])).split())


def act(browser: Client, action: str, *chosen: AIRiskToken) -> list[str]:
    """Do something to tokens in the list, say yes to the question, and return what is said about it."""
    response = ask_for(browser, action, *chosen)
    return [str(message) for message in confirm(browser, response).context["messages"]]


def said(browser: Client) -> list[str]:
    return [str(message) for message in browser.get(token_page("changelist")).context["messages"]]


def listed(response: Any) -> list[Any]:
    """The rows that a list shows."""
    assert response.status_code == 200
    return list(response.context["cl"].result_list)


def may(user: User, *codenames: str) -> None:
    permissions = Permission.objects.filter(content_type__app_label="airisk_oauth", codename__in=codenames)
    assert len(permissions) == len(codenames)
    user.user_permissions.set(permissions)


@pytest.fixture
def staff(db: None) -> User:
    """A member of staff who may do nothing yet."""
    return User.objects.create_user("sam", is_staff=True)


@pytest.fixture
def desk(staff: User) -> Client:
    """The browser in which Sam is signed in."""
    browser = Client()
    browser.force_login(staff)
    return browser


# States

STATES: list[tuple[Status, str, dict[str, Any]]] = [
    (Status.LIVE, "with an hour left", {}),
    (Status.LIVE, "without an end", {"ends_in": None}),
    (Status.LIVE, "five minutes and more left", {"ends_in": 330}),
    (Status.LIVE, "more than a quarter of its life left", {"ends_in": 150, "life": 400}),
    (Status.LIVE, "by hand and not ended", {"deployment": "second"}),
    (Status.LIVE, "the application's", {"user": None}),
    (Status.LIVE, "of a deactivated user", {"is_active": False}),
    (Status.ENDING, "less than five minutes left", {"ends_in": 290}),
    (Status.ENDING, "less than a quarter of its life left", {"ends_in": 90, "life": 400}),
    (Status.ENDING, "renewed in the future", {"ends_in": 290, "life": -28800}),
    (Status.LIVE, "renewed in the future, and not about to end", {"ends_in": 330, "life": -28800}),
    (Status.ENDING, "by hand, less than its ten minutes left", {"deployment": "second", "ends_in": 500}),
    (Status.ENDED, "ended", {"ends_in": -60}),
    (Status.ENDED, "as good as ended", {"ends_in": 5}),
    (Status.ENDED, "of a short life, and an eighth of it left", {"ends_in": 4, "life": 40}),
    (Status.ENDING, "of a short life, and a quarter of it left", {"ends_in": 8, "life": 40}),
    (Status.ENDED, "ended, of an unknown deployment", {"deployment": GONE, "ends_in": -60}),
    (Status.RECONNECT, "refused", {"failure_kind": "refused", "failure_count": 1}),
    (Status.RECONNECT, "a person is asked for", {"failure_kind": "person", "failure_count": 1}),
    (Status.RECONNECT, "by hand and ended", {"deployment": "second", "ends_in": -60}),
    (Status.RECONNECT, "identity changed", {"userid": "user_1"}),
    (Status.RECONNECT, "identity removed", {"identity": None}),
    (Status.RECONNECT, "issued elsewhere", {"origin": "https://elsewhere.example:443"}),
    (Status.LIVE, "the application's, issued elsewhere", {"user": None, "origin": "https://elsewhere.example:443"}),
    (Status.RECONNECT, "identity on another deployment only", {"identity": "second"}),
    (Status.RECONNECT, "the application's, refused", {"user": None, "failure_kind": "refused", "failure_count": 1}),
    (Status.FAILING, "unavailable", {"failure_kind": "unavailable", "failure_count": 1, "ends_in": -60}),
    (Status.FAILING, "unusable answer", {"failure_kind": "invalid", "failure_count": 9}),
    (Status.FAILING, "never obtained", {"user": None, "sealed": "", "failure_kind": "invalid", "failure_count": 1}),
    (Status.UNREADABLE, "unknown key", {"key_id": "unknown"}),
    (Status.UNREADABLE, "unknown key and more", {"key_id": "unknown", "failure_kind": "refused", "failure_count": 1}),
    (Status.AWAITED, "not obtained", {"user": None, "sealed": "", "key_id": "", "ends_in": None}),
]


def states() -> dict[Any, str]:
    """The state of each token, as the database tells it."""
    found: Any = with_status(AIRiskToken.objects.all())
    return dict(found.values_list("pk", "state"))


def store(name: str, values: dict[str, Any]) -> AIRiskToken:
    """Store a token in the state that is described."""
    given = {"user": ..., "identity": values.get("deployment", "default"), "life": None, "sealed": None, **values}
    user, identity, life, sealed = (given.pop(key) for key in ("user", "identity", "life", "sealed"))
    is_active = given.pop("is_active", True)
    if user is ...:
        user = person(name, deployment=identity or "default")
        User.objects.filter(pk=user.pk).update(is_active=is_active)
        if identity is None:
            user.airisk_identities.all().delete()
    key_id = given.pop("key_id", None)
    if life is not None:
        given["renewed_at"] = timezone.now() - timedelta(seconds=life - given["ends_in"])
    token = give_token(user, **given)
    if key_id is not None:
        token.key_id = key_id
    if sealed is not None:
        token.sealed = sealed
    token.origin = given.get("origin", token.origin)
    token.save()
    return token


@pytest.fixture
def second_by_hand(settings: "Settings") -> None:
    second = {**settings.AIRISK_OAUTH["second"], "SILENT_RENEWAL": False, "RENEW_BEFORE": 600}
    settings.AIRISK_OAUTH = {**settings.AIRISK_OAUTH, "second": second}


@pytest.mark.usefixtures("second_by_hand", "db")
@pytest.mark.parametrize(("state", "name", "values"), STATES, ids=[name for _state, name, _values in STATES])
def test_a_token_has_a_state(state: Status, name: str, values: dict[str, Any]) -> None:
    token = store(name, values)
    assert states() == {token.pk: state}


@pytest.mark.usefixtures("second_by_hand")
def test_tokens_are_filtered_by_their_state_which_is_shown(admin_client: Client) -> None:
    # There is one token of the application only: the one that has not been obtained.
    stored = [(state, store(name, values)) for state, name, values in STATES if values.get("user", ...) is not None]
    stored.append((Status.AWAITED, store(*STATES[-1][1:])))
    assert {state for state, _token in stored} == set(Status)
    assert states() == {token.pk: state for state, token in stored}
    for state in Status:
        response = admin_client.get(token_page("changelist"), {"state": state.value})
        found = {token for its_state, token in stored if its_state == state}
        assert set(listed(response)) == found
        badge = f'<span class="airisk-state airisk-{state.value}">{state.label}</span>'
        assert response.content.decode().count(badge) == len(found)
        assert badge in admin_client.get(token_page("change", found.pop().pk)).content.decode()


@pytest.mark.parametrize("life", [40, 400, 1100, 1300, 86400])
def test_about_to_end_is_when_a_token_is_renewed(life: int, db: None) -> None:
    """The database says what the model says of one token, to the second."""
    for left in (15, 95, 105, 295, 305, life - 5, 8 * 3600):
        AIRiskToken.objects.all().delete()
        token = give_token(None, ends_in=left, renewed_at=timezone.now() - timedelta(seconds=life - left))
        renew_at = token.renew_at(300)
        assert renew_at is not None
        expected = Status.ENDING if renew_at <= timezone.now() else Status.LIVE
        assert states() == {token.pk: expected}


def test_where_the_site_has_its_own_userids_identities_are_not_looked_at(db: None, settings: "Settings") -> None:
    set_option(settings, USERID="tests.support.resolvers.next_answer")
    token = give_token(User.objects.create_user("tom"))
    assert states() == {token.pk: Status.LIVE}


# The list, the page of a token


@pytest.mark.parametrize("page", [token_page, identity_page])
def test_a_list_costs_the_same_however_long_it_is(page: Any, admin_client: Client) -> None:
    counts = []
    for size in (3, 30):
        for number in range(size):
            give_token(person(f"{size}-{number}"))
        admin_client.get(page("changelist"))
        with CaptureQueriesContext(
            connection,
        ) as queries:
            listed(admin_client.get(page("changelist")))
        counts.append(len(queries))
        assert not any('"sealed",' in query["sql"] for query in queries)
    assert counts[0] == counts[1]


def test_no_page_opens_a_token(admin_client: Client, settings: "Settings") -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = new_keys()
    token = give_token(person("mia"))
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = new_keys()
    assert "unreadable" in read(admin_client.get(token_page("changelist")))
    for page in ("change", "delete", "history"):
        assert admin_client.get(token_page(page, token.pk)).status_code == 200


@pytest.mark.parametrize("who", ["superuser", "viewer"])
def test_no_page_shows_any_part_of_a_token(who: str, admin_client: Client, desk: Client, staff: User) -> None:
    may(staff, "view_airisktoken", "view_airiskidentity")
    browser = admin_client if who == "superuser" else desk
    user = person("mia")
    token = give_token(user, access_token=CANARY, failure_kind="refused", failure_count=1)
    give_token(None, access_token=CANARY)
    pages = [
        token_page("changelist"),
        f"{token_page('changelist')}?q=user_42",
        f"{token_page('changelist')}?state=reconnect",
        *(token_page(page, token.pk) for page in ("change", "history")),
        identity_page("changelist"),
    ]
    if who == "superuser":
        pages += [
            token_page("delete", token.pk),
            reverse("admin:auth_user_delete", args=[user.pk]),
            reverse("admin:index"),
        ]
    for url in pages:
        response = browser.get(url)
        assert response.status_code == 200
        page = response.content.decode()
        for secret in (CANARY, token.sealed):
            assert all(secret[start : start + 8] not in page for start in range(len(secret) - 8))
    for part in (CANARY, CANARY[:6], token.sealed, token.sealed[:8]):
        assert listed(browser.get(token_page("changelist"), {"q": part})) == []


def test_the_pages_say_what_there_is_to_know_of_a_token(admin_client: Client) -> None:
    told: dict[str, Any] = {"failure_reason": "Unauthorized", "failure_trace_id": "00-1-2-00"}
    token = give_token(person("mia"), failure_kind="refused", failure_status=401, **told)
    for page in (token_page("changelist"), token_page("change", token.pk)):
        text = read(admin_client.get(page))
        assert "mia" in text
        assert "refused by AIRisk · 401 · Unauthorized" in text
    assert "00-1-2-00" in text
    AIRiskToken.objects.all().delete()
    failed_at = timezone.now() - timedelta(hours=3)
    give_token(None, failure_kind="unavailable", failure_count=1, failed_at=failed_at)
    assert (
        "the application failing AIRisk unavailable · 3 hours ago in 59 minutes less than a minute ago "
        "less than a minute ago - default"
    ) in read(admin_client.get(token_page("changelist")))


@pytest.mark.usefixtures("second_by_hand")
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("with an hour left", "live in 59 minutes"),
        ("ended", "ended the next call renews it 1 minute ago"),
        ("ended, of an unknown deployment", "ended the settings name no such deployment"),
        ("by hand and ended", "needs reconnecting a person has to connect"),
        ("identity removed", "needs reconnecting the user's identity on AIRisk is gone or has changed"),
        ("the application's, refused", "needs reconnecting refused by AIRisk in"),
        ("issued elsewhere", "needs reconnecting the token is of another address of AIRisk: the user has to connect"),
        ("unknown key and more", "unreadable the stored token cannot be opened · refused by AIRisk"),
        ("not obtained", "not obtained yet - - less than a minute ago"),
        ("of a deactivated user", "live the user is deactivated in 59 minutes"),
    ],
)
def test_the_list_says_why_a_token_does_not_live(name: str, words: str, admin_client: Client) -> None:
    [values] = [values for _state, its_name, values in STATES if its_name == name]
    store(name, values)
    assert words in read(admin_client.get(token_page("changelist"))).partition("Deployment")[2]


@pytest.mark.parametrize(
    ("ends_in", "words"),
    [
        (7260, "in 2 hours"),
        (50, "in less than a minute"),
        (-50, "less than a minute ago"),
        (-200, "3 minutes ago"),
        (None, "no end named"),
    ],
)
def test_the_list_says_when_a_token_ends_as_people_would(
    ends_in: float | None, words: str, admin_client: Client
) -> None:
    give_token(None, ends_in=ends_in, last_used_at=timezone.now() - timedelta(days=3))
    text = read(admin_client.get(token_page("changelist")))
    assert words in text
    assert "3 days ago" in text


def test_tokens_can_neither_be_added_nor_changed(admin_client: Client) -> None:
    token = give_token(person("mia"))
    before = rows_of_flows_and_tokens()
    page = admin_client.get(token_page("change", token.pk)).content.decode()
    assert not re.search(r'name="(_save|user|userid|sealed|access_token|deployment|expires_at)"', page)
    assert admin_client.get(token_page("add")).status_code == 403
    for url in (token_page("add"), token_page("change", token.pk)):
        assert admin_client.post(url, {"userid": "user_1", "user": "", "deployment": "second"}).status_code == 403
    assert rows_of_flows_and_tokens() == before


@pytest.mark.parametrize("page", [token_page, identity_page])
@pytest.mark.parametrize("words", ["mia", "mia@example.com", "user_7"])
def test_users_are_found_by_name_email_and_userid(page: Any, words: str, admin_client: Client) -> None:
    mia, tom = person("mia", "user_7"), person("tom")
    give_token(mia, userid="user_7")
    give_token(tom)
    give_token(None)
    [found] = listed(admin_client.get(page("changelist"), {"q": words}))
    assert found.user == mia


@pytest.mark.parametrize("page", [token_page, identity_page])
def test_deployments_are_filtered_by(page: Any, admin_client: Client) -> None:
    mia = person("mia")
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_7")
    give_token(mia)
    give_token(mia, deployment="second")
    assert len(listed(admin_client.get(page("changelist")))) == 2
    [found] = listed(admin_client.get(page("changelist"), {"deployment": "second"}))
    assert found.deployment == "second"


def test_tokens_of_a_deployment_that_is_gone_can_be_seen_and_removed(admin_client: Client, airisk: World) -> None:
    token = give_token(person("mia", deployment=GONE), deployment=GONE)
    assert GONE in read(admin_client.get(token_page("changelist")))
    assert GONE in read(admin_client.get(token_page("change", token.pk)))
    [said] = act(admin_client, "renew_now", token)
    assert said.startswith("1 token was skipped: AIRISK_OAUTH has no deployment 'gone'")
    assert act(admin_client, "delete_selected", token) == ["1 token was forgotten."]
    assert airisk.journal == []


# Renewing and forgetting tokens


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize(
    ("trouble", "one", "two"),
    [
        ("", "1 token was renewed.", "2 tokens were renewed."),
        (
            "refuse",
            "1 token was refused: its user has to reconnect.",
            "2 tokens were refused: their users have to reconnect.",
        ),
        (
            "outage",
            "1 token was not renewed: AIRisk was not available.",
            "2 tokens were not renewed: AIRisk was not available.",
        ),
        (
            "identity",
            "1 token was skipped: the user's identity on AIRisk is gone or has changed.",
            "2 tokens were skipped: the user's identity on AIRisk is gone or has changed.",
        ),
        (
            "unreadable",
            "1 token was skipped: the stored token cannot be opened.",
            "2 tokens were skipped: the stored token cannot be opened.",
        ),
        (
            "deactivated",
            "1 token was skipped: the user is deactivated.",
            "2 tokens were skipped: the user is deactivated.",
        ),
    ],
)
def test_renewing_tells_what_became_of_the_tokens(
    trouble: str, one: str, two: str, number: int, admin_client: Client, airisk: World, settings: "Settings"
) -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = new_keys()
    chosen = [give_token(person(f"user-{index}")) for index in range(number)]
    other = give_token(person("other"))
    if trouble in ("refuse", "outage"):
        setattr(airisk.switches, trouble, True)
    elif trouble == "identity":
        AIRiskIdentity.objects.update(userid="user_1")
    elif trouble == "deactivated":
        User.objects.filter(username__startswith="user-").update(is_active=False)
    elif trouble == "unreadable":
        settings.AIRISK_OAUTH_ENCRYPTION_KEYS = new_keys()
    assert act(admin_client, "renew_now", *chosen) == [one if number == 1 else two]
    for token in chosen:
        before, after = token, AIRiskToken.objects.get(pk=token.pk)
        assert (after.sealed != before.sealed) is (trouble == "")
        assert after.lease is None
    assert AIRiskToken.objects.get(pk=other.pk).sealed == other.sealed


def test_renewing_tokens_of_several_deployments_is_told_together(admin_client: Client, airisk: World) -> None:
    mia = person("mia")
    AIRiskIdentity.objects.create(user=mia, deployment="second", userid="user_42")
    chosen = [give_token(mia, deployment=alias) for alias in ("second", GONE, "default")]
    chosen.append(give_token(None, deployment="second"))
    renewed, skipped = act(admin_client, "renew_now", *chosen)
    assert renewed == "3 tokens were renewed."
    assert skipped.startswith("1 token was skipped")
    assert airisk.caller_of(AIRiskToken.objects.get(pk=chosen[3].pk).access_token) == Caller("client-2", None)


@pytest.mark.usefixtures("second_by_hand")
def test_renewing_says_so_where_a_person_has_to_do_it(admin_client: Client) -> None:
    token = give_token(person("mia", deployment="second"), deployment="second")
    assert len(act(admin_client, "renew_now", token)) == 1


def test_disconnecting_forgets_the_chosen_tokens(admin_client: Client, airisk: World) -> None:
    chosen = [give_token(person("mia"), access_token=CANARY), give_token(None)]
    other = give_token(person("tom"))
    with signals_sent(token_disconnected) as heard:
        assert act(admin_client, "delete_selected", chosen[0]) == ["1 token was forgotten."]
        assert act(admin_client, "delete_selected", chosen[1], other) == ["2 tokens were forgotten."]
    assert {carried["user_id"] for _signal, carried in heard} == {chosen[0].user_id, None, other.user_id}
    assert len(heard) == 3
    assert set(heard[0][1]) == {"sender", "user_id", "deployment"}
    assert not AIRiskToken.objects.exists()
    assert airisk.journal == []
    history = admin_client.get(reverse("admin:index"))
    assert "user_42 (default)" in read(history)
    assert CANARY not in history.content.decode()


@pytest.mark.parametrize(("action", "question"), [("renew_now", "Renew"), ("delete_selected", "Forget")])
def test_an_action_asks_before_it_does_anything(
    action: str, question: str, admin_client: Client, airisk: World
) -> None:
    chosen = [give_token(person(name)) for name in ("mia", "tom")]
    for number, noun in ((1, "token"), (2, "tokens")):
        page = read(ask_for(admin_client, action, *chosen[:number]))
        assert f"{question} {number} {noun}" in page
        assert "No, take me back" in page
    across = ask_for(admin_client, action, chosen[0], select_across="1")
    assert f"{question} 2 tokens" in read(across)
    assert airisk.journal == []
    assert AIRiskToken.objects.count() == 2
    said = confirm(admin_client, across).context["messages"]
    assert [str(message)[:8] for message in said] == ["2 tokens"]


def test_more_than_a_request_can_wait_for_is_not_begun(
    admin_client: Client, airisk: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(airisk_oauth.admin, "RENEW_AT_MOST", 1)
    monkeypatch.setattr(airisk_oauth.admin, "FORGET_AT_MOST", 1)
    chosen = [give_token(person(name)) for name in ("mia", "tom")]
    for action, words in (
        ("renew_now", "Choose 1 tokens at the most; for more there is the command refresh_airisk_tokens."),
        ("delete_selected", "Choose 1 tokens at the most."),
    ):
        assert ask_for(admin_client, action, *chosen, post="yes").status_code == 302
        assert said(admin_client) == [words]
    assert airisk.journal == []
    assert AIRiskToken.objects.count() == 2


def test_the_history_says_who_renewed_and_who_forgot(admin_client: Client, airisk: World) -> None:
    token = give_token(person("mia"))
    act(admin_client, "renew_now", token)
    admin_client.post(obtain_page())
    for pk in AIRiskToken.objects.values_list("pk", flat=True):
        history = read(admin_client.get(token_page("history", pk)))
        assert "admin Renewed by hand." in history
    act(admin_client, "delete_selected", token)
    actions = LogEntry.objects.order_by("pk").values_list("action_flag", "object_repr")
    assert list(actions) == [
        (CHANGE, "user_42 (default)"),
        (CHANGE, "the application (default)"),
        (DELETION, "user_42 (default)"),
    ]


def test_the_history_tells_a_renewal_from_an_attempt_wherever_it_was_chosen(
    admin_client: Client, airisk: World
) -> None:
    token = give_token(person("mia"), ends_in=-60)
    choice = {"action": "renew_now", "_selected_action": [token.pk], "index": 0, "post": "yes"}
    for outage, words in ((True, "Tried to renew by hand."), (False, "Renewed by hand.")):
        airisk.switches.outage = outage
        state = "failing" if AIRiskToken.objects.get().failure_count else "ended"
        admin_client.post(f"{token_page('changelist')}?state={state}", choice)
        assert LogEntry.objects.latest("pk").change_message == words
    assert LogEntry.objects.count() == 2


def test_the_list_counts_the_tokens_of_each_state_and_leads_to_them(admin_client: Client) -> None:
    give_token(None, ends_in=-60)
    for name in ("mia", "tom"):
        give_token(person(name))
    page = admin_client.get(token_page("changelist"))
    assert "2 live 1 ended" in read(page)
    links = re.findall(r'<a href="(\?state=\w+)"><span', page.content.decode())
    assert [len(listed(admin_client.get(token_page("changelist") + link))) for link in links] == [2, 1]


def test_a_token_leads_to_its_user_where_the_site_shows_users(admin_client: Client) -> None:
    mia = person("mia")
    token = give_token(mia)
    link = f'<a href="{reverse("admin:auth_user_change", args=[mia.pk])}">mia</a>'
    for page in (token_page("changelist"), token_page("change", token.pk)):
        assert link in admin_client.get(page).content.decode()
    assert f'<a href="{token_page("change", token.pk)}"' in admin_client.get(token_page("changelist")).content.decode()
    bare = AdminSite()
    bare.register(AIRiskToken, AIRiskTokenAdmin)
    assert bare.get_model_admin(AIRiskToken).owner_link(token) == "mia"  # type: ignore[attr-defined]


def test_deleting_a_token_disconnects_it(admin_client: Client) -> None:
    token = give_token(person("mia"))
    with signals_sent(token_disconnected) as heard:
        assert admin_client.post(token_page("delete", token.pk), {"post": "yes"}).status_code == 302
    carried = {"sender": AIRiskToken, "user_id": token.user_id, "deployment": "default"}
    assert heard == [(token_disconnected, carried)]
    assert not AIRiskToken.objects.exists()


@pytest.mark.parametrize(
    ("codename", "offered"),
    [("view", set()), ("change", {"renew_now"}), ("delete", {"delete_selected"})],
)
def test_an_action_needs_its_permission(
    codename: str, offered: set[str], desk: Client, staff: User, airisk: World
) -> None:
    may(staff, *{"view_airisktoken", f"{codename}_airisktoken"})
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


@pytest.mark.parametrize("codenames", [(), ("view_airiskidentity",)])
def test_without_permission_there_is_nothing_to_see(codenames: tuple[str, ...], desk: Client, staff: User) -> None:
    may(staff, *codenames)
    token = give_token(person("mia"))
    for url in (token_page("changelist"), token_page("change", token.pk), token_page("delete", token.pk)):
        assert desk.get(url).status_code == 403


# The application's token


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
def test_the_button_obtains_the_applications_token(
    alias: str, client_id: str, desk: Client, staff: User, airisk: World
) -> None:
    may(staff, "change_airisktoken")
    assert f'action="{obtain_page(alias)}"' in desk.get(token_page("changelist")).content.decode()
    with signals_sent(token_obtained) as heard:
        response = desk.post(obtain_page(alias))
        assert (response.status_code, response["Location"]) == (302, token_page("changelist"))
    assert said(desk) == ["The application's token was obtained."]
    assert applications_token(airisk) == Caller(client_id, None)
    assert heard == [(token_obtained, {"sender": AIRiskToken, "user_id": None, "deployment": alias})]
    assert not PendingAuthorization.objects.exists()


@pytest.mark.parametrize("why", ["a page is shown", "by hand", "unreadable"])
def test_where_a_person_is_needed_the_button_leads_to_airisk_and_back(
    why: str, desk: Client, staff: User, airisk: World, settings: "Settings"
) -> None:
    may(staff, "change_airisktoken")
    AIRiskIdentity.objects.create(user=staff, userid="user_42")
    if why == "a page is shown":
        airisk.switches.login_page = True
    elif why == "by hand":
        set_option(settings, SILENT_RENEWAL=False)
    else:
        settings.AIRISK_OAUTH_ENCRYPTION_KEYS = new_keys()
        give_token(None)
        settings.AIRISK_OAUTH_ENCRYPTION_KEYS = new_keys()
    url = desk.post(obtain_page())["Location"]
    assert urlsplit(url).netloc == urlsplit(settings.AIRISK_OAUTH["default"]["BASE_URL"]).netloc
    assert "userid" not in url
    back = press(url) if why == "a page is shown" else authorize(url)
    with signals_sent(token_obtained) as heard:
        response = desk.get(back)
        assert (response.status_code, response["Location"]) == (302, token_page("changelist"))
    assert said(desk)[-1] == "You are connected to AIRisk."
    assert applications_token(airisk) == Caller("client-1", None)
    assert heard == [(token_obtained, {"sender": AIRiskToken, "user_id": None, "deployment": "default"})]


@pytest.mark.parametrize("lost", ["permission", "account"])
def test_who_may_not_obtain_it_any_more_gets_nothing(
    lost: str, desk: Client, staff: User, airisk: World, caplog: pytest.LogCaptureFixture
) -> None:
    may(staff, "change_airisktoken")
    airisk.switches.login_page = True
    back = press(desk.post(obtain_page())["Location"])
    if lost == "permission":
        may(staff)
    else:
        User.objects.filter(pk=staff.pk).update(is_active=False)
    response = desk.get(back)
    assert response.status_code == (302 if lost == "permission" else 403)
    words = ": not permitted\n"
    assert (words in caplog.text) is (lost == "permission")
    assert "You are connected" not in desk.get(reverse("airisk_oauth:connection")).content.decode()
    assert len(token_requests(airisk)) == 0
    assert not AIRiskToken.objects.exclude(sealed="").exists()


def test_the_applications_flow_ends_in_the_browser_it_began_in(desk: Client, staff: User, airisk: World) -> None:
    may(staff, "change_airisktoken")
    airisk.switches.login_page = True
    back = press(desk.post(obtain_page())["Location"])
    other = Client()
    other.force_login(staff)
    assert other.get(back).status_code == 403
    assert len(token_requests(airisk)) == 0


def test_a_users_flow_brings_no_token_of_the_application(admin_client: Client, admin_user: User, airisk: World) -> None:
    AIRiskIdentity.objects.create(user=admin_user, userid="user_42")
    admin_client.get(authorize(start(admin_client)))
    assert AIRiskToken.objects.get().user == admin_user


@pytest.mark.parametrize(
    ("trouble", "words"), [("outage", "AIRisk answered with status 503."), ("refuse", "status 302: access_denied")]
)
def test_a_failed_attempt_at_the_applications_token_is_told(
    trouble: str, words: str, admin_client: Client, airisk: World
) -> None:
    setattr(airisk.switches, trouble, True)
    response = admin_client.post(obtain_page())
    assert (response.status_code, response["Location"]) == (302, token_page("changelist"))
    [message] = said(admin_client)
    assert words in message


@pytest.mark.parametrize("codenames", [(), ("view_airisktoken",), ("view_airisktoken", "delete_airisktoken")])
def test_obtaining_needs_its_permission(codenames: tuple[str, ...], desk: Client, staff: User, airisk: World) -> None:
    may(staff, *codenames)
    assert desk.post(obtain_page()).status_code == 403
    if codenames:
        assert obtain_page() not in desk.get(token_page("changelist")).content.decode()
    assert (airisk.journal, rows_of_flows_and_tokens()) == ([], [])


def test_obtaining_needs_a_post_from_our_own_page_by_staff(admin_user: User, client: Client, airisk: World) -> None:
    assert client.post(obtain_page())["Location"].startswith("/admin/login/")
    careful = Client(enforce_csrf_checks=True)
    careful.force_login(admin_user)
    assert careful.post(obtain_page()).status_code == 403
    assert careful.get(obtain_page()).status_code == 405
    assert (airisk.journal, rows_of_flows_and_tokens()) == ([], [])


def test_obtaining_for_a_deployment_that_is_not_there_is_not_found(admin_client: Client) -> None:
    assert admin_client.post(obtain_page(GONE)).status_code == 404


def test_obtaining_says_so_where_another_process_is_at_it(admin_client: Client, airisk: World) -> None:
    give_token(None, lease=uuid4(), lease_until=timezone.now() + timedelta(seconds=30))
    admin_client.post(obtain_page())
    assert said(admin_client) == ["Another process is obtaining it."]
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
    assert said(admin_client) == ["The application's token was obtained."]
    assert seen == [False, False]


# Identities and users


def test_an_identity_is_added_and_edited(admin_client: Client) -> None:
    user = User.objects.create_user("mia")
    form = admin_client.get(identity_page("add")).content.decode()
    select = re.search(r'<select name="deployment".*?</select>', form, re.DOTALL)
    assert select is not None
    assert re.findall(r'value="(\w+)"', select[0]) == ["default", "second"]
    given = {"user": user.pk, "deployment": "second", "userid": " user_7 "}
    assert admin_client.post(identity_page("add"), given).status_code == 302
    identity = AIRiskIdentity.objects.get()
    assert (identity.user, identity.deployment, identity.userid) == (user, "second", "user_7")
    assert "user_7" in read(admin_client.get(identity_page("changelist")))
    given = {"user": user.pk, "deployment": "second", "userid": "user_8"}
    assert admin_client.post(identity_page("change", identity.pk), given).status_code == 302
    assert AIRiskIdentity.objects.get().userid == "user_8"


@pytest.mark.parametrize(
    ("userid", "words"),
    [
        ("user\t42", "This cannot be a userid"),
        ("user\u202e42", "This cannot be a userid"),
        ("", "This field is required"),
        ("x" * 256, "at most 255 characters"),
    ],
)
def test_what_cannot_be_a_userid_is_refused_with_a_message(userid: str, words: str, admin_client: Client) -> None:
    user = User.objects.create_user("mia")
    given = {"user": user.pk, "deployment": "default", "userid": userid}
    assert words in read(admin_client.post(identity_page("add"), given))
    assert not AIRiskIdentity.objects.exists()


def test_a_user_has_one_identity_on_a_deployment(admin_client: Client) -> None:
    given = {"user": person("mia").pk, "deployment": "default", "userid": "user_1"}
    assert "already exists" in read(admin_client.post(identity_page("add"), given))
    assert AIRiskIdentity.objects.get().userid == "user_42"


def test_editing_an_identity_does_not_move_it_to_another_deployment(admin_client: Client) -> None:
    """Nor one whose deployment is not in the settings any more: what the form shows is what a browser sends."""
    person("mia", deployment=GONE)
    identity = AIRiskIdentity.objects.get()
    form = admin_client.get(identity_page("change", identity.pk)).content.decode()
    assert re.search(rf'<option value="{GONE}"[^>]*selected', form)


Searchable = type("Searchable", (ModelAdmin,), {"search_fields": ("username",)})


@pytest.mark.parametrize(
    ("users", "widget"),
    [(None, ForeignKeyRawIdWidget), (ModelAdmin, ForeignKeyRawIdWidget), (Searchable, AutocompleteSelect)],
)
def test_a_user_is_chosen_as_the_sites_admin_allows(users: Any, widget: type[Any], rf: Any, admin_user: User) -> None:
    site = AdminSite()
    if users is not None:
        site.register(User, users)
    request = rf.get("/")
    request.user = admin_user
    field = AIRiskIdentityAdmin(AIRiskIdentity, site).get_form(request).base_fields["user"]
    assert type(getattr(field.widget, "widget", field.widget)) is widget


def test_deleting_a_user_deletes_all_rows_of_theirs(admin_client: Client, mia: User, browser: Client) -> None:
    start(browser)
    give_token(mia)
    application = give_token(None)
    response = admin_client.post(reverse("admin:auth_user_delete", args=[mia.pk]), {"post": "yes"})
    assert response.status_code == 302
    assert not User.objects.filter(pk=mia.pk).exists()
    assert not AIRiskIdentity.objects.exists()
    assert not PendingAuthorization.objects.exists()
    assert list(AIRiskToken.objects.all()) == [application]


def test_no_database_has_to_multiply_durations() -> None:
    """MySQL cannot: the list was a syntax error there. Its SQL is made without a server."""
    expression = _Seconds(F("expires_at"))
    compiler: Any = AIRiskToken.objects.all().query.get_compiler("default")
    sql, _params = expression.resolve_expression(compiler.query).as_mysql(compiler, connection)
    assert sql == "(TIMESTAMPDIFF(MICROSECOND, '1970-01-01', {}) / 1e6)".format(
        '"airisk_oauth_airisktoken"."expires_at"'
    )

"""``AIRISK_OAUTH_ENCRYPTION_KEYS`` as the path of a function: when it is called, and what its failures cost."""

import logging
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from asgiref.sync import async_to_sync
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.core.checks import CheckMessage, Error, run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client, override_settings
from django.urls import reverse

from airisk_oauth import sealing
from airisk_oauth.models import AIRiskToken
from airisk_oauth.providers.source import SettingUnavailable
from airisk_oauth.sandbox.world import World
from airisk_oauth.sealing import KEYS, Owner, Unreadable, key_ids, seal, unseal
from airisk_oauth.testing import FakeAIRisk
from tests.support.admin import listed, messages_in, text_of, token_page
from tests.support.browsing import authorize, connect, start
from tests.support.clock import wait_until
from tests.support.commands import refresh, refresh_json
from tests.support.doctor import check
from tests.support.functions import name_keys, time_passes
from tests.support.people import connected_users, credential, give_token, renewed_of
from tests.support.threads import at_once

if TYPE_CHECKING:
    from pytest_django import Settings

PATH = "tests.support.functions.keys"
RAISED = f"AIRISK_OAUTH_ENCRYPTION_KEYS: {PATH} raised ConnectionError."
VAULT_DOWN = ConnectionError("canary: the vault at 10.0.0.1 did not accept canary-token")
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()
OWNER: Owner = ("default", "7", "user_42")


def opens(sealed: str, key_id: str = "") -> bool:
    try:
        return unseal(sealed, OWNER, key_id, lambda: False) == "token"
    except Unreadable:
        return False


def sealed_with(key: str) -> tuple[str, str]:
    """Return a token that another process has encrypted with this key, and the key's id."""
    with override_settings(AIRISK_OAUTH_ENCRYPTION_KEYS=[key]):
        return seal("token", OWNER)


def events(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["event"] for record in caplog.records if record.name == "airisk_oauth.settings"]


# When it is called


def test_keys_are_asked_for_once_a_minute(settings: "Settings", monkeypatch: pytest.MonkeyPatch) -> None:
    function = name_keys(settings, NEW, OLD)
    sealed, key_id = seal("token", OWNER)
    assert [opens(sealed, key_id) for _use in range(5)] == [True] * 5
    assert key_ids(derived_keys_accepted=False) == [key_id, sealed_with(OLD)[1]]
    assert (function.calls, KEYS.every) == (1, 60)
    time_passes(monkeypatch)
    assert opens(sealed)
    assert function.calls == 2


def test_failing_function_is_called_once_a_minute(
    settings: "Settings", caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = name_keys(settings, VAULT_DOWN)
    for use in (partial(seal, "token", OWNER), partial(unseal, "", OWNER), partial(unseal, "", OWNER, "id"), key_ids):
        with pytest.raises(ImproperlyConfigured) as raised:
            use()
        assert str(raised.value) == RAISED
        assert raised.value.__context__ is None
    assert function.calls == 1
    [record] = caplog.records
    assert (record.levelno, record.__dict__["error"]) == (logging.ERROR, "ConnectionError")
    assert "canary" not in record.getMessage()
    function.returns = [NEW]
    time_passes(monkeypatch)
    assert seal("token", OWNER)


def test_last_good_keys_stay_in_use(
    settings: "Settings", caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, logger="airisk_oauth.settings")
    function = name_keys(settings, OLD)
    sealed, key_id = seal("token", OWNER)
    time_passes(monkeypatch)
    for returns in (VAULT_DOWN, VAULT_DOWN, [], [NEW[:-1]], VAULT_DOWN):
        function.returns = returns
        assert opens(sealed, key_id)
        assert seal("token", OWNER)[1] == key_id
    assert events(caplog) == ["setting.unavailable"] * 4
    function.returns = [NEW, OLD]
    assert opens(sealed, key_id)
    assert seal("token", OWNER)[1] != key_id
    assert events(caplog)[4:] == ["setting.restored"]


def test_new_key_of_another_process_is_fetched(settings: "Settings") -> None:
    function = name_keys(settings, OLD)
    assert seal("token", OWNER)
    function.returns = [NEW, OLD]
    sealed, key_id = sealed_with(NEW)
    # override_settings has made the first answer forgotten.
    function.returns = [OLD]
    assert key_ids()
    function.returns, function.calls = [NEW, OLD], 0
    assert opens(sealed, key_id)
    assert opens(sealed, key_id)
    assert seal("token", OWNER)[1] == key_id
    assert function.calls == 1


def test_missing_key_is_looked_for_only_once(settings: "Settings") -> None:
    lost, another = sealed_with(Fernet.generate_key().decode()), sealed_with(Fernet.generate_key().decode())
    function = name_keys(settings, OLD)
    assert key_ids()
    for _use in range(3):
        assert not opens(*lost)
        assert not opens(*another)
    # Its id is known, so it was moved from another row.
    assert not opens("gAAAA", key_ids()[0])
    assert function.calls == 3


def test_remembered_ids_do_not_pile_up(settings: "Settings") -> None:
    function = name_keys(settings, OLD)
    for number in range(1002):
        assert not opens("gAAAA", f"{number}")
    assert function.calls == 1003
    assert not opens("gAAAA", "0")
    assert function.calls == 1004


def test_one_thread_asks_and_others_go_on(settings: "Settings", monkeypatch: pytest.MonkeyPatch) -> None:
    asked, answered = threading.Event(), threading.Event()
    function = name_keys(settings, OLD)

    def slow() -> list[str]:
        asked.set()
        assert answered.wait(30)
        return [NEW, OLD]

    old = seal("token", OWNER)[1]
    function.returns = slow
    time_passes(monkeypatch)
    thread = threading.Thread(target=key_ids)
    thread.start()
    assert asked.wait(30)
    assert seal("token", OWNER)[1] == old
    answered.set()
    thread.join()
    assert function.calls == 2


def test_threads_wait_for_the_first_answer(settings: "Settings") -> None:
    def slow() -> list[str]:
        time.sleep(0.2)
        return [OLD]

    function = name_keys(settings)
    function.returns = slow
    assert at_once(*[key_ids] * 8) == [key_ids()] * 8
    assert function.calls == 1


def test_function_that_needs_itself_fails(settings: "Settings", monkeypatch: pytest.MonkeyPatch) -> None:
    function = name_keys(settings)
    function.returns = lambda: [unseal("", OWNER)]
    with pytest.raises(SettingUnavailable, match=rf"{PATH} raised SettingUnavailable\.$"):
        key_ids()
    name_keys(settings, OLD)
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = settings.AIRISK_OAUTH_ENCRYPTION_KEYS
    before = seal("token", OWNER)
    time_passes(monkeypatch)
    function.returns = lambda: [NEW] if opens(*before) else []
    assert seal("token", OWNER)[1] != before[1]


def test_event_loop_uses_the_old_answer(settings: "Settings", monkeypatch: pytest.MonkeyPatch) -> None:
    async def use() -> list[str]:
        return key_ids()

    function = name_keys(settings, OLD)
    answered, asked = threading.Event(), threading.Event()

    def slow() -> list[str]:
        asked.set()
        assert answered.wait(30)
        return [NEW]

    old = async_to_sync(use)()
    assert old == key_ids()
    function.returns = slow
    time_passes(monkeypatch)
    assert async_to_sync(use)() == old
    assert asked.wait(30)
    assert async_to_sync(use)() == old
    answered.set()
    monkeypatch.undo()
    wait_until(lambda: key_ids() != old)
    assert function.calls == 2


def test_override_settings_makes_it_ask_again(settings: "Settings") -> None:
    name_keys(settings, OLD)
    old = key_ids()
    name_keys(settings, NEW)
    assert key_ids() != old
    function = name_keys(settings, OLD)
    assert key_ids() == old
    function.returns = [NEW]
    with FakeAIRisk():
        assert key_ids() != old


@pytest.mark.django_db
def test_failing_query_spoils_no_transaction(settings: "Settings") -> None:
    function = name_keys(settings)

    def query() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT * FROM nowhere")

    function.returns = query
    with pytest.raises(SettingUnavailable, match=r"raised (Operational|Programming)Error\.$"):
        key_ids()
    assert User.objects.count() == 0
    connection.set_rollback(True)
    KEYS.forget()
    with pytest.raises(SettingUnavailable, match=r"raised TransactionManagementError\.$"):
        key_ids()
    connection.set_rollback(False)


# What is wrong with it


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        (None, "It is empty."),
        ([], "It is empty."),
        (OLD, "It is str."),
        ([OLD, "canary"], "[1] is not a Fernet key: it is not 32 bytes in Base64."),
    ],
)
def test_unusable_keys_are_a_failure(settings: "Settings", returned: Any, said: str) -> None:
    name_keys(settings).returns = returned
    with pytest.raises(SettingUnavailable) as raised:
        key_ids()
    message = str(raised.value)
    assert message.startswith(f"AIRISK_OAUTH_ENCRYPTION_KEYS: {PATH} returned something that cannot be used. ")
    assert message.endswith(said)
    assert not [secret for secret in (OLD, "canary") if secret in message]


def check_messages(*, deploy: bool = False) -> dict[str, CheckMessage]:
    found = run_checks(tags=["airisk_oauth", "security"], include_deployment_checks=deploy)
    return {str(message.id).removeprefix("airisk_oauth."): message for message in found}


@pytest.mark.parametrize("setting", ["AIRISK_OAUTH", "AIRISK_OAUTH_ENCRYPTION_KEYS"])
@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("tests.support.functions.no_function", "is not a function."),
        ("tests.support.functions.nothing", "cannot be imported (ImportError)."),
        ("nowhere.keys", "cannot be imported (ModuleNotFoundError)."),
    ],
)
def test_path_that_leads_nowhere_is_an_error(settings: "Settings", setting: str, path: str, said: str) -> None:
    setattr(settings, setting, path)
    [(number, message)] = check_messages().items()
    assert (number, isinstance(message, Error), message.msg) == ("E010", True, f"{setting}: {path} {said}")
    assert "W015" not in check_messages(deploy=True)
    use = key_ids if "KEYS" in setting else partial(refresh_json)
    with pytest.raises((SettingUnavailable, ValueError)):
        use()


@pytest.mark.parametrize("key", [OLD, f"{OLD},{NEW}", "canary", "can-ary.x", ".canary", "1.canary"])
def test_key_without_a_list_is_never_shown(settings: "Settings", key: str) -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = key
    [(number, message)] = check_messages().items()
    assert (number, message.msg[-10:]) == ("E007", "It is str.")


def test_only_deployment_checks_call_it(settings: "Settings") -> None:
    function = name_keys(settings, VAULT_DOWN)
    assert check_messages() == {}
    assert function.calls == 0
    found = check_messages(deploy=True)
    assert (found["W015"].msg, function.calls) == (RAISED, 1)
    assert "W004" not in found
    name_keys(settings, NEW)
    assert "W015" not in check_messages(deploy=True)


# What its failures cost


@pytest.fixture
def outage(settings: "Settings", mia: User, airisk: World) -> AIRiskToken:
    """Mia's token, in a process that has just started while the vault is down."""
    with override_settings(AIRISK_OAUTH_ENCRYPTION_KEYS=[OLD]):
        token = give_token(mia, ends_in=60)
    name_keys(settings, VAULT_DOWN)
    return token


def rows() -> list[dict[str, Any]]:
    return list(AIRiskToken.objects.order_by("pk").values())


def test_outage_costs_no_token(outage: AIRiskToken, settings: "Settings", mia: User, airisk: World) -> None:
    before = rows()
    for user in (mia, mia, None):
        with pytest.raises(SettingUnavailable):
            credential(user)
    with pytest.raises(SettingUnavailable):
        outage.access_token  # noqa: B018
    assert refresh()[0] == refresh(all=True)[0] == 2
    with pytest.raises(CommandError) as raised:
        call_command("reseal_airisk_tokens")
    assert raised.value.returncode == 2
    assert airisk.journal == []
    assert [row for row in rows() if row["sealed"]] == before
    name_keys(settings, NEW, OLD)
    assert refresh_json()[1]["renewed"] == 1


def test_admin_lists_tokens_without_keys(outage: AIRiskToken, admin_client: Client) -> None:
    response = admin_client.get(token_page("changelist"))
    assert listed(response) == [outage]
    assert [token.status for token in listed(response)] == ["ending"]
    assert messages_in(admin_client) == [RAISED]
    assert admin_client.get(token_page("change", outage.pk)).status_code == 200
    assert listed(admin_client.get(token_page("changelist"), {"status": "unreadable"})) == []


def test_connection_page_needs_no_keys(outage: AIRiskToken, browser: Client) -> None:
    page = browser.get(reverse("airisk_oauth:connection"), headers={"Accept": "application/json"}).json()
    assert page["connections"][0]["connected"] is True
    assert "user_42" in text_of(browser.get(reverse("airisk_oauth:connection")))
    browser.post(reverse("airisk_oauth:disconnect"))
    assert not AIRiskToken.objects.exists()


def test_token_of_a_person_stays_theirs(outage: AIRiskToken, browser: Client) -> None:
    AIRiskToken.objects.update(failure_kind="person")
    page = browser.get(reverse("airisk_oauth:connection"), headers={"Accept": "application/json"}).json()
    assert page["connections"][0]["needs_person"] is True


def test_callback_waits_for_the_keys(
    browser: Client, settings: "Settings", airisk: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = name_keys(settings, VAULT_DOWN)
    back = authorize(start(browser))
    response = browser.get(back)
    assert response.status_code == 503
    assert "Nothing was saved. Please try again in a few minutes." in response.content.decode()
    function.returns = [NEW]
    time_passes(monkeypatch)
    assert browser.get(back).status_code == 302
    assert AIRiskToken.objects.get().access_token


def test_doctor_names_the_failing_function(settings: "Settings", db: None) -> None:
    name_keys(settings, VAULT_DOWN)
    status, said = check()
    assert status == 1
    assert f"FAULT settings: {RAISED}" in said


def test_sweep_skips_what_it_cannot_decrypt(
    settings: "Settings", airisk: World, db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with override_settings(AIRISK_OAUTH_ENCRYPTION_KEYS=[NEW]):
        newer = connected_users(1)
    with override_settings(AIRISK_OAUTH_ENCRYPTION_KEYS=[OLD]):
        older = connected_users(1)
    function = name_keys(settings, OLD)
    assert key_ids()
    time_passes(monkeypatch)
    function.returns = VAULT_DOWN
    status, said = refresh(deployment="default")
    assert (status, "1 skipped: its encryption key cannot be fetched now." in said) == (1, True)
    assert renewed_of(older) == [True]
    row = AIRiskToken.objects.get(pk=newer[0].pk)
    assert (row.failing_since, row.failure_count, row.lease, row.sealed) == (None, 0, None, newer[0].sealed)
    function.returns = [NEW, OLD]
    assert refresh_json(deployment="default")[1]["renewed"] == 1


def test_pages_and_calls_survive_an_outage(
    settings: "Settings", browser: Client, mia: User, airisk: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = name_keys(settings, NEW)
    connect(browser)
    time_passes(monkeypatch)
    function.returns = VAULT_DOWN
    assert credential(mia).token
    AIRiskToken.objects.update(expires_at="2020-01-01T00:00:00Z")
    assert credential(mia).token
    assert sealing.has_own_keys()

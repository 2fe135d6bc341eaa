"""``reseal_airisk_tokens``: after it, the old keys can go, and nothing has got lost."""

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import OperationalError, connection, transaction
from django.utils import timezone

from airisk_oauth import sealing
from airisk_oauth.exceptions import ConnectionRequired
from airisk_oauth.management.commands import reseal_airisk_tokens
from airisk_oauth.models import AIRiskToken, SealingPolicy
from airisk_oauth.sealing import Unreadable
from airisk_oauth.tokens import status
from airisk_oauth.tokens.status import Status
from tests.support.clock import wait_until
from tests.support.database import committing, not_on_sqlite
from tests.support.people import connected_users, credential, give_token
from tests.support.threads import attempt

pytestmark = pytest.mark.django_db
OLD, NEW = (Fernet.generate_key().decode() for _ in range(2))


def reseal(*args: str, **options: Any) -> tuple[int, str]:
    """Run the command, and return its exit status and all that it said."""
    out = io.StringIO()
    try:
        call_command("reseal_airisk_tokens", *args, stdout=out, **options)
    except CommandError as error:
        return error.returncode, f"{out.getvalue()}{error}"
    return 0, out.getvalue()


def opened() -> list[str]:
    return [token.access_token for token in AIRiskToken.objects.order_by("pk")]


def sealed() -> list[str]:
    return list(AIRiskToken.objects.order_by("pk").values_list("sealed", flat=True))


def seen_states() -> set[str]:
    """Return the states in which the admin's list shows the tokens."""
    return {status.status_of(token) for token in status.with_status(AIRiskToken.objects.all())}


@pytest.fixture
def tokens(settings: Any, mia: User) -> list[AIRiskToken]:
    """Sealed with two kinds of older keys, and the newest; and a row that holds none yet."""
    derived = [give_token(None, deployment="second"), give_token(mia)]
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [OLD]
    listed = connected_users(3)
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [NEW, OLD]
    AIRiskToken.objects.create(deployment="default")
    return [*derived, *listed, *connected_users(1)]


@pytest.mark.parametrize("page", [1, 2, 200])
def test_reseal_makes_older_keys_unnecessary(
    tokens: list[AIRiskToken], settings: Any, monkeypatch: pytest.MonkeyPatch, page: int
) -> None:
    monkeypatch.setattr(reseal_airisk_tokens, "PAGE", page)
    assert reseal() == (0, "5 resealed, 0 cannot be opened.\n")
    assert reseal() == (0, "0 resealed, 0 cannot be opened.\n")
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [NEW]
    settings.SECRET_KEY = "quite another one, and long enough for Django's own check"
    AIRiskToken.objects.filter(sealed="").delete()
    assert opened() == ["stored-token"] * 6
    assert set(AIRiskToken.objects.values_list("key_id", flat=True)) == {sealing.key_id(sealing.FORMATS[0], NEW)}
    assert Status.UNREADABLE not in seen_states()


def test_derived_keys_can_be_the_newest(settings: Any, mia: User) -> None:
    first = settings.SECRET_KEY
    give_token(mia)
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "the second one", [first]
    assert reseal() == (0, "1 resealed, 0 cannot be opened.\n")
    settings.SECRET_KEY_FALLBACKS = []
    assert opened() == ["stored-token"]


def test_dropped_derived_keys_decrypt_nothing(settings: Any, mia: User, airisk: Any) -> None:
    token = give_token(mia)
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [NEW]
    assert reseal()[0] == 0
    resealed = AIRiskToken.objects.get()

    def states_after_bringing_back(old: AIRiskToken) -> set[str]:
        AIRiskToken.objects.update(sealed=old.sealed, key_id=old.key_id)
        return seen_states()

    assert states_after_bringing_back(token) == {Status.VALID}
    assert credential(mia).token == "stored-token"
    assert reseal("--drop-derived") == (0, "1 resealed, 0 cannot be opened.\n")
    assert str(SealingPolicy.objects.get()).startswith("derived keys dropped at ")
    assert reseal(drop_derived=True) == (0, "0 resealed, 0 cannot be opened.\n")
    assert states_after_bringing_back(resealed) == {Status.VALID}
    assert credential(mia).token == "stored-token"
    assert states_after_bringing_back(token) == {Status.UNREADABLE}
    with pytest.raises(ConnectionRequired):
        credential(mia)
    # Nor does resealing bring it back; and it is kept.
    assert reseal() == (1, reseal()[1])
    assert sealed() == [token.sealed]
    # Where the list is gone, derived keys are all there is.
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = None
    assert states_after_bringing_back(token) == {Status.VALID}
    assert opened() == ["stored-token"]


@pytest.mark.parametrize("drop", [False, True])
def test_unreadable_token_is_kept_with_every_key(tokens: list[AIRiskToken], settings: Any, drop: bool) -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [NEW]
    unreadable = [token.sealed for token in tokens[2:5]]
    status, said = reseal(drop_derived=drop)
    assert (status, said.split(".")[0]) == (1, "2 resealed, 3 cannot be opened")
    assert set(unreadable) < set(sealed())
    AIRiskToken.objects.filter(pk=tokens[0].pk).update(sealed=tokens[0].sealed)
    assert AIRiskToken.objects.get(pk=tokens[0].pk).access_token == "stored-token"


@pytest.mark.parametrize("keys", [None, [], ["no key"]])
def test_reseal_needs_valid_keys_of_its_own(settings: Any, mia: User, keys: Any) -> None:
    token = give_token(mia)
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = keys
    status, said = reseal("--drop-derived")
    assert (status, "AIRISK_OAUTH_ENCRYPTION_KEYS" in said) == (2, True)
    assert sealed() == [token.sealed]


@contextmanager
def before_the_first_write(work: Any) -> Iterator[None]:
    waiting = [work]

    def execute_later(execute: Any, sql: str, *args: Any) -> Any:
        if waiting and sql.startswith("UPDATE"):
            waiting.pop()()
        return execute(sql, *args)

    with connection.execute_wrapper(execute_later):
        yield
    assert not waiting


def test_reseal_keeps_token_renewed_meanwhile(tokens: list[AIRiskToken]) -> None:
    renewed = AIRiskToken.objects.get(pk=tokens[1].pk)
    renewed.access_token = "renewed-token"
    with before_the_first_write(renewed.save):
        assert reseal() == (0, "4 resealed, 0 cannot be opened.\n")
    assert AIRiskToken.objects.get(pk=renewed.pk).access_token == "renewed-token"


def test_drop_reseals_tokens_stored_meanwhile(settings: Any, mia: User) -> None:
    derived = give_token(mia)
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [NEW]
    late = give_token(None)

    def seal_late() -> None:
        # As a process does that was started before the list was set.
        settings.AIRISK_OAUTH_ENCRYPTION_KEYS = None
        late.access_token = "late-token"
        late.save()
        settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [NEW]

    with before_the_first_write(seal_late):
        assert reseal("--drop-derived") == (0, "2 resealed, 0 cannot be opened.\n")
    assert sorted(opened()) == ["late-token", "stored-token"]
    with pytest.raises(Unreadable):
        _ = AIRiskToken(user=mia, deployment="default", userid="user_42", sealed=derived.sealed).access_token


@committing
@not_on_sqlite
def test_reseal_holds_no_row_while_it_waits(tokens: list[AIRiskToken]) -> None:
    """A sweep writes rows in another order: where both wait for each other's, the database breaks one of them off."""
    first, last = tokens[0], tokens[4]
    holds = threading.Event()

    def hold() -> None:
        with transaction.atomic():
            AIRiskToken.objects.filter(pk=last.pk).update(last_used_at=timezone.now())
            holds.set()
            wait_until(lambda: AIRiskToken.objects.get(pk=first.pk).sealed != first.sealed)

    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(attempt, hold)
        holds.wait()
        assert reseal() == (0, "5 resealed, 0 cannot be opened.\n")
        held.result()


def test_a_database_that_fails_is_said_so(tokens: list[AIRiskToken]) -> None:
    def fail() -> None:
        raise OperationalError("the disk is full")

    before = sealed()
    with before_the_first_write(fail):
        status, said = reseal()
    assert (status, "the disk is full" in said) == (2, True)
    assert sealed() == before

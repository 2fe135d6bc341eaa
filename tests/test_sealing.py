"""A token under seal: for one owner, by keys that come and go."""

import base64
import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.fernet import Fernet
from django.core.exceptions import ImproperlyConfigured
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from airisk_oauth.sealing import FORMATS, Owner, Unreadable, has_own_keys, key_id, key_ids, problem, seal, unseal

if TYPE_CHECKING:
    from pytest_django import Settings

TOKEN = "canary-token"
OWNER: Owner = ("default", "7", "user_42")
OLD, NEW = Fernet.generate_key().decode(), Fernet.generate_key().decode()

quickly = hypothesis_settings(max_examples=100, deadline=None)
texts = st.text(max_size=50)
owners = st.tuples(texts, st.none() | texts, texts)


def with_keys(settings: "Settings", *keys: str) -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = list(keys)


def with_secret(settings: "Settings", secret: str, *fallbacks: str) -> None:
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = secret, list(fallbacks)


def opens(sealed: str, owner: Owner = OWNER) -> bool:
    try:
        return unseal(sealed, owner) == TOKEN
    except Unreadable:
        return False


@quickly
@given(texts, owners)
@example(TOKEN, ("default", None, ""))
def test_what_is_sealed_opens_for_its_owner(token: str, owner: Owner) -> None:
    assert unseal(seal(token, owner)[0], owner) == token


@pytest.mark.parametrize(
    "other",
    [
        ("second", "7", "user_42"),
        ("default", "8", "user_42"),
        ("default", None, "user_42"),
        ("default", "7", "user_43"),
        ("default", "7", ""),
        ("default", "None", "user_42"),
        ("7", "default", "user_42"),
    ],
)
def test_what_is_sealed_opens_for_no_other_owner(other: Owner) -> None:
    assert not opens(seal(TOKEN, OWNER)[0], other)
    assert not opens(seal(TOKEN, other)[0])


def test_nobody_is_not_somebody_called_none() -> None:
    application: Owner = ("default", None, "")
    assert not opens(seal(TOKEN, application)[0], ("default", "", ""))
    assert not opens(seal(TOKEN, application)[0], ("default", "None", ""))


def test_encrypting_twice_gives_different_texts() -> None:
    (one, _), (two, _) = seal(TOKEN, OWNER), seal(TOKEN, OWNER)
    assert one != two
    assert TOKEN.encode() not in base64.urlsafe_b64decode(one)
    assert one.isascii()


def test_repr_and_errors_show_no_token_or_key(settings: "Settings") -> None:
    with_keys(settings, NEW, OLD)
    sealed, _ = seal(TOKEN, OWNER)
    assert TOKEN not in repr(unseal(sealed, OWNER))
    for owner, text, said in (
        (("second", None, ""), sealed, "This stored token was sealed for another owner."),
        (OWNER, sealed[:-4], "This stored token cannot be opened with the keys at hand."),
    ):
        with pytest.raises(Unreadable) as raised:
            unseal(text, owner)
        assert str(raised.value) == said
        assert not [secret for secret in (TOKEN, NEW, OLD, sealed) if secret in repr(raised.value)]
        assert raised.value.__context__ is None or raised.value.__suppress_context__


# Keys come and go


def test_newest_key_seals_and_old_keys_open(settings: "Settings") -> None:
    with_keys(settings, OLD)
    old, old_id = seal(TOKEN, OWNER)
    with_keys(settings, NEW, OLD)
    new, new_id = seal(TOKEN, OWNER)
    assert opens(old)
    assert opens(new)
    assert (old_id, new_id) == (key_id(FORMATS[0], OLD), key_id(FORMATS[0], NEW))
    assert key_ids()[:2] == [new_id, old_id]
    with_keys(settings, NEW)
    assert opens(new)
    assert not opens(old)
    with_keys(settings, OLD)
    assert not opens(new)


def test_keys_are_derived_from_secret_key(settings: "Settings") -> None:
    with_secret(settings, "first")
    first, first_id = seal(TOKEN, OWNER)
    with_secret(settings, "second", "first")
    second, second_id = seal(TOKEN, OWNER)
    assert opens(first)
    assert opens(second)
    assert key_ids() == [second_id, first_id]
    with_secret(settings, "second")
    assert opens(second)
    assert not opens(first)
    assert first_id not in key_ids()


def test_derived_keys_still_open_beside_own_keys(settings: "Settings") -> None:
    with_secret(settings, "first", "older")
    derived, derived_id = seal(TOKEN, OWNER)
    with_keys(settings, NEW)
    assert opens(derived)
    assert seal(TOKEN, OWNER)[1] == key_id(FORMATS[0], NEW) == key_ids()[0]
    assert derived_id in key_ids()
    assert len(key_ids()) == 3


def test_dropped_derived_keys_open_nothing(
    settings: "Settings",
) -> None:
    def derived_keys_accepted() -> bool:
        asked.append(True)
        return False

    asked: list[bool] = []
    derived, derived_id = seal(TOKEN, OWNER)
    # There is nothing to fall back on: without a list, derived keys cannot be dropped.
    assert not has_own_keys()
    assert unseal(derived, OWNER, derived_keys_accepted=derived_keys_accepted) == TOKEN
    assert key_ids(derived_keys_accepted=False) == [derived_id]
    with_keys(settings, NEW)
    assert has_own_keys()
    assert unseal(seal(TOKEN, OWNER)[0], OWNER, derived_keys_accepted=derived_keys_accepted) == TOKEN
    assert key_ids(derived_keys_accepted=False) == [key_id(FORMATS[0], NEW)]
    assert asked == []
    with pytest.raises(Unreadable):
        unseal(derived, OWNER, derived_keys_accepted=derived_keys_accepted)
    assert asked == [True]


def test_derived_key_is_not_the_secret_key(settings: "Settings") -> None:
    secret = Fernet.generate_key().decode()
    with_secret(settings, secret)
    sealed, identifier = seal(TOKEN, OWNER)
    assert identifier != key_id(FORMATS[0], secret)
    with_secret(settings, "another")
    with_keys(settings, secret)
    assert not opens(sealed)


def test_a_secret_key_of_bytes_serves_as_well(settings: "Settings") -> None:
    with_secret(settings, "first")
    sealed, identifier = seal(TOKEN, OWNER)
    settings.SECRET_KEY = b"first"
    assert opens(sealed)
    assert key_ids() == [identifier]


def test_key_ids_are_stable_and_reveal_nothing(settings: "Settings") -> None:
    keys = [Fernet.generate_key().decode() for _ in range(50)]
    with_keys(settings, *keys)
    ids = key_ids()
    assert ids == key_ids()
    assert len(set(ids)) == 51
    for key, identifier in zip(keys, ids, strict=False):
        assert len(identifier) == 12
        assert identifier not in key
        assert identifier not in base64.urlsafe_b64decode(key).hex()


# What cannot be opened


@quickly
@given(st.text())
@example("")
@example("gAAAAA")
@example("gAAAAA+/")
@example("ü" * 120)
@example("\ud800")
@example("\0" * 200)
@example("gAAAAAB" + "A" * 93)
@example("gAAAAA" + "A" * 2**20)
def test_any_foreign_text_is_just_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        unseal(text, OWNER)


@quickly
@given(st.integers(0, 139), st.integers(1, 255))
def test_changed_sealed_text_is_unreadable(place: int, change: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode(seal(TOKEN, OWNER)[0]))
    raw[place % len(raw)] ^= change
    with pytest.raises(Unreadable):
        unseal(base64.urlsafe_b64encode(raw).decode(), OWNER)


@pytest.mark.parametrize("message", [b"", b"\xff", b"{", b"[]", b"7", b"null", b'"text"', b'["default", "7"]', b"{}"])
def test_message_of_another_kind_is_unreadable(settings: "Settings", message: bytes) -> None:
    with_keys(settings, NEW)
    with pytest.raises(Unreadable):
        unseal(Fernet(NEW).encrypt(message).decode(), OWNER)


def test_sealed_message_contains_its_owner(settings: "Settings") -> None:
    with_keys(settings, NEW)
    for owner in (OWNER, ("default", None, "")):
        assert json.loads(Fernet(NEW).decrypt(seal(TOKEN, owner)[0])) == [*owner, TOKEN]


def test_an_old_seal_opens_whenever_it_was_made(settings: "Settings") -> None:
    with_keys(settings, NEW)
    message = json.dumps([*OWNER, TOKEN]).encode()
    long_ago = int(datetime(2001, 1, 1, tzinfo=UTC).timestamp())
    assert opens(Fernet(NEW).encrypt_at_time(message, long_ago).decode())


# Key lists


NO_LIST = "AIRISK_OAUTH_ENCRYPTION_KEYS must be a list of Fernet keys, newest first. It is "
NO_KEY = "AIRISK_OAUTH_ENCRYPTION_KEYS[0] is not a Fernet key: "
NO_SECOND_KEY = NO_KEY.replace("0", "1")
WRONG_LENGTH = NO_KEY + "it is not 32 bytes in Base64."


@pytest.mark.parametrize(
    ("keys", "wrong"),
    [
        (None, None),
        ([NEW], None),
        ((NEW, OLD), None),
        ([], NO_LIST + "empty."),
        ((), NO_LIST + "empty."),
        ("", NO_LIST + "empty."),
        (NEW, NO_LIST + "str."),
        ({NEW: 1}, NO_LIST + "dict."),
        ({NEW}, NO_LIST + "set."),
        (1, NO_LIST + "int."),
        ([""], NO_KEY + "it is empty."),
        (["a key"], WRONG_LENGTH),
        ([NEW, ""], NO_SECOND_KEY + "it is empty."),
        ([NEW, None], NO_SECOND_KEY + "it is None."),
        ([NEW.encode()], NO_KEY + "it is of type bytes, not str."),
        ([NEW + "\n"], NO_KEY + "it ends with a line break, as the text in a file does."),
        ([" " + NEW], NO_KEY + "there is space around it."),
        ([NEW[:-1]], WRONG_LENGTH),
        ([NEW[:-4]], WRONG_LENGTH),
        ([NEW * 2], WRONG_LENGTH),
        (["ü" * 44], WRONG_LENGTH),
        ([base64.urlsafe_b64encode(b"x" * 31).decode()], WRONG_LENGTH),
        ([[NEW]], NO_KEY + "it is of type list, not str."),
    ],
    ids=str,
)
def test_invalid_key_list_is_a_problem(settings: "Settings", keys: Any, wrong: str | None) -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = keys
    if wrong is None:
        assert problem() is None
        assert opens(seal(TOKEN, OWNER)[0])
        return
    found = problem()
    assert found == wrong
    for use in (lambda: seal(TOKEN, OWNER), lambda: unseal("", OWNER), key_ids):
        with pytest.raises(ImproperlyConfigured, match=f"^{re.escape(wrong)}$"):
            use()


def test_without_the_setting_there_is_no_problem(settings: "Settings") -> None:
    assert not hasattr(settings, "AIRISK_OAUTH_ENCRYPTION_KEYS")
    assert problem() is None


@quickly
@given(st.binary(min_size=32, max_size=32))
@example(b"\xfb\xff" * 16)
def test_every_key_that_is_no_problem_seals(raw: bytes) -> None:
    from django.test import override_settings

    for encode in (base64.urlsafe_b64encode, base64.b64encode):
        with override_settings(AIRISK_OAUTH_ENCRYPTION_KEYS=[encode(raw).decode()]):
            assert problem() is not None or opens(seal(TOKEN, OWNER)[0])

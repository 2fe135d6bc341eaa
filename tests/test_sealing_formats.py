"""A second format of sealed tokens: its ids are its own, and tokens can be moved to it and back."""

import os
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from django.contrib.auth.models import User
from django.core.management import call_command

from airisk_oauth import sealing
from airisk_oauth.models import AIRiskToken
from airisk_oauth.sealing import Format, Owner, Unreadable, key_id, key_ids, seal, unseal
from tests.support.people import give_token

OWNER: Owner = ("default", "7", "user_42")
OLD, NEW = (urlsafe_b64encode(bytes([number]) * 32).decode() for number in (1, 2))
PREFIX = "gcm."


def _encrypt(key: str, message: bytes) -> str:
    nonce = os.urandom(12)
    sealed = AESGCM(urlsafe_b64decode(key)).encrypt(nonce, message, None)
    return PREFIX + urlsafe_b64encode(nonce + sealed).decode()


def _decrypt(keys: tuple[str, ...], text: str) -> bytes:
    raw = urlsafe_b64decode(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else b""
    for key in keys if raw else ():
        try:
            return AESGCM(urlsafe_b64decode(key)).decrypt(raw[:12], raw[12:], None)
        except InvalidTag:
            continue
    return b""


FIRST = sealing.FORMATS[0]
SECOND = Format(b"a second format, for tests", _encrypt, _decrypt)


@pytest.fixture
def second_format(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "FORMATS", (SECOND, FIRST))


def test_ids_of_the_first_format_never_change() -> None:
    assert sealing.FORMATS == (FIRST,)
    assert (key_id(FIRST, OLD), key_id(FIRST, NEW)) == ("f7786cfb9d0b", "b55fd11b466f")


def test_one_key_has_another_id_in_each_format(settings: Any, second_format: None) -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [NEW, OLD]
    own = [key_id(each, key) for each in (SECOND, FIRST) for key in (NEW, OLD)]
    assert len({*own}) == 4
    assert all(len(each) == 12 for each in own)
    assert key_ids(derived_keys_accepted=False) == own
    assert len({*key_ids()}) == 6


def test_newest_format_seals_and_old_ones_open(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [OLD]
    first, _id = seal("token", OWNER)
    monkeypatch.setattr(sealing, "FORMATS", (SECOND, FIRST))
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [NEW, OLD]
    second, second_id = seal("token", OWNER)
    assert second.startswith(PREFIX)
    assert second_id == key_id(SECOND, NEW) == key_ids()[0]
    assert unseal(first, OWNER) == unseal(second, OWNER) == "token"
    monkeypatch.setattr(sealing, "FORMATS", (FIRST,))
    with pytest.raises(Unreadable):
        unseal(second, OWNER)


def test_derived_keys_open_every_format(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    first, _id = seal("token", OWNER)
    monkeypatch.setattr(sealing, "FORMATS", (SECOND, FIRST))
    second, _id = seal("token", OWNER)
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [NEW]
    assert unseal(first, OWNER) == unseal(second, OWNER) == "token"
    for sealed in (first, second):
        with pytest.raises(Unreadable):
            unseal(sealed, OWNER, derived_keys_accepted=lambda: False)


@pytest.mark.django_db
def test_reseal_moves_tokens_to_newest_format(settings: Any, monkeypatch: pytest.MonkeyPatch, mia: User) -> None:
    """One key throughout: the ids differ by the format alone, and the command finds the rows by them."""
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = [NEW]
    give_token(mia)
    give_token(None)
    for formats in ((SECOND, FIRST), (FIRST, SECOND)):
        monkeypatch.setattr(sealing, "FORMATS", formats)
        call_command("reseal_airisk_tokens")
        assert set(AIRiskToken.objects.values_list("key_id", flat=True)) == {key_id(formats[0], NEW)}
        monkeypatch.setattr(sealing, "FORMATS", formats[:1])
        assert [token.access_token for token in AIRiskToken.objects.all()] == ["stored-token"] * 2

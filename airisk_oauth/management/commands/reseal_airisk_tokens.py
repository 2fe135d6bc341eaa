"""Seal every stored token with the newest key and in the newest format, so that the old ones are no longer needed."""

from collections.abc import Iterator
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError, CommandParser
from django.db import Error as DatabaseError
from django.db import transaction

from airisk_oauth import sealing
from airisk_oauth.management.settings import ChecksSettings
from airisk_oauth.models import AIRiskToken, SealingPolicy

NOT_ALL: Final = 1
STOPPED: Final = 2
#: How many rows are read at a time.
PAGE: Final = 200


class Command(ChecksSettings):
    help = (
        "Encrypts every stored token again, with the newest key. "
        "Exit status: 0 all tokens, 1 some cannot be opened, 2 an error stopped it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--drop-derived",
            action="store_true",
            help="from then on only AIRISK_OAUTH_ENCRYPTION_KEYS open tokens, and keys derived from SECRET_KEY do not",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            resealed, unreadable = _reseal_and_drop() if options["drop_derived"] else _reseal()
        except (ImproperlyConfigured, DatabaseError) as error:
            raise CommandError(f"Stopped by an error: {error}", returncode=STOPPED) from None
        self.stdout.write(f"{resealed} resealed, {unreadable} cannot be opened.")
        if unreadable:
            raise CommandError(
                "Restore the keys of those that cannot be opened, or disconnect them in the admin. "
                "Until then no key is dropped.",
                returncode=NOT_ALL,
            )


def _reseal_and_drop() -> tuple[int, int]:
    if not sealing.has_own_keys():
        raise ImproperlyConfigured("without AIRISK_OAUTH_ENCRYPTION_KEYS there are only derived keys.")
    derived_keys_accepted = SealingPolicy.derived_keys_accepted()
    resealed, unreadable = _reseal(derived_keys_accepted=derived_keys_accepted)
    if not unreadable:
        SealingPolicy.drop_derived()
        # Again, for tokens that a process which has not read the new setting sealed in the meantime.
        resealed += _reseal(derived_keys_accepted=derived_keys_accepted)[0]
    return resealed, unreadable


def _reseal(*, derived_keys_accepted: bool | None = None) -> tuple[int, int]:
    """Return how many tokens were sealed again, and how many could not be opened and were left unchanged."""
    if derived_keys_accepted is None:
        derived_keys_accepted = SealingPolicy.derived_keys_accepted()
    resealed = unreadable = 0
    for page in _pages(sealing.key_ids()[0]):
        for token in page:
            try:
                text = sealing.unseal(
                    token.sealed,
                    token.owner,
                    key_id=token.key_id,
                    derived_keys_accepted=lambda: derived_keys_accepted,
                )
            except sealing.Unreadable:
                unreadable += 1
            else:
                resealed += _replace(token, *sealing.seal(text, token.owner))
    return resealed, unreadable


def _replace(token: AIRiskToken, sealed: str, key_id: str) -> int:
    """Write one row in a transaction of its own, and return how many rows were changed.

    With several rows in one transaction, this command and a sweep that locks them in another order would block each
    other. A token that was replaced in the meantime is left unchanged: it has just been sealed.
    """
    row = AIRiskToken.objects.primary().filter(pk=token.pk, sealed=token.sealed)
    with transaction.atomic(using=row.db):
        return row.update(sealed=sealed, key_id=key_id)


def _pages(newest: str) -> Iterator[list[AIRiskToken]]:
    """Yield the tokens that another key sealed, or another format, a page at a time."""
    rows = AIRiskToken.objects.primary().exclude(sealed="").exclude(key_id=newest).order_by("pk")
    page = list(rows[:PAGE])
    while page:
        yield page
        page = list(rows.filter(pk__gt=page[-1].pk)[:PAGE])

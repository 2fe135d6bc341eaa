"""Seal every stored token with the newest key, so that older keys can go."""

from collections.abc import Iterator
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.db import Error as DatabaseError
from django.db import transaction

from airisk_oauth import sealing
from airisk_oauth.models import AIRiskToken, SealingPolicy

NOT_ALL: Final = 1
NOTHING_TRIED: Final = 2
#: How many rows are read at a time.
PAGE: Final = 200


class Command(BaseCommand):
    help = "Seals every stored token with the newest key. Exit status: 0 all well, 1 some not, 2 nothing tried."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument(
            "--drop-derived",
            action="store_true",
            help="from then on keys derived from SECRET_KEY open no token, only AIRISK_OAUTH_ENCRYPTION_KEYS do",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        try:
            resealed, unreadable = _reseal_and_drop() if options["drop_derived"] else _reseal()
        except (ImproperlyConfigured, DatabaseError) as error:
            raise CommandError(f"Nothing more could be done: {error}", returncode=NOTHING_TRIED) from None
        self.stdout.write(f"{resealed} resealed, {unreadable} cannot be opened.")
        if unreadable:
            raise CommandError(
                "Bring back the key of what cannot be opened, or disconnect it in the admin; no key is dropped before.",
                returncode=NOT_ALL,
            )


def _reseal_and_drop() -> tuple[int, int]:
    if not sealing.has_list():
        raise ImproperlyConfigured("without AIRISK_OAUTH_ENCRYPTION_KEYS there are no keys but derived ones.")
    derived_open = SealingPolicy.derived_open()
    resealed, unreadable = _reseal(derived_open=derived_open)
    if not unreadable:
        SealingPolicy.drop_derived()
        # Once more, for what a process that did not know of it has sealed meanwhile.
        resealed += _reseal(derived_open=derived_open)[0]
    return resealed, unreadable


def _reseal(*, derived_open: bool | None = None) -> tuple[int, int]:
    """Return how many tokens were sealed anew, and how many could not be opened; those are left as they are."""
    if derived_open is None:
        derived_open = SealingPolicy.derived_open()
    resealed = unreadable = 0
    for page in _pages(sealing.key_ids()[0]):
        for token in page:
            try:
                text = sealing.unseal(token.sealed, token.owner, derived_open=lambda: derived_open)
            except sealing.Unreadable:
                unreadable += 1
            else:
                resealed += _replace(token, *sealing.seal(text, token.owner))
    return resealed, unreadable


def _replace(token: AIRiskToken, sealed: str, key_id: str) -> int:
    """Write one row in a transaction of its own, and return how many were changed.

    Several rows in one transaction would be locked in an order that a sweep may reverse, and both would wait for ever.
    What was replaced meanwhile stays as it is: it was sealed when it was replaced.
    """
    row = AIRiskToken.objects.primary().filter(pk=token.pk, sealed=token.sealed)
    with transaction.atomic(using=row.db):
        return row.update(sealed=sealed, key_id=key_id)


def _pages(newest: str) -> Iterator[list[AIRiskToken]]:
    """Yield what another key sealed, a page at a time."""
    rows = AIRiskToken.objects.primary().exclude(sealed="").exclude(key_id=newest).order_by("pk")
    page = list(rows[:PAGE])
    while page:
        yield page
        page = list(rows.filter(pk__gt=page[-1].pk)[:PAGE])

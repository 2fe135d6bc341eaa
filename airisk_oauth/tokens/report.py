"""The result of a sweep: counts, reasons, the tokens that need a person, and how all this is told."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

from django.contrib.messages import constants as levels
from django.utils.translation import gettext, gettext_noop, ngettext

RENEWED: Final = "renewed"
REFUSED: Final = "refused"
UNAVAILABLE: Final = "unavailable"
SKIPPED: Final = "skipped"
COUNTED: Final = (RENEWED, REFUSED, UNAVAILABLE, SKIPPED)

#: Why a token was skipped. The admin shows it translated.
LEASED_ELSEWHERE: Final = gettext_noop("another process is renewing it")
RENEWED_ELSEWHERE: Final = gettext_noop("another process was faster")
IDENTITY_CHANGED: Final = gettext_noop("the user's AIRisk identity has changed or was removed")
OTHER_ADDRESS: Final = gettext_noop("the token was issued by another address of AIRisk: the user has to connect again")
UNRESOLVED: Final = gettext_noop("the site's USERID failed for the user")
NOT_OBTAINED: Final = gettext_noop("no token was obtained yet")
UNREADABLE: Final = gettext_noop("the stored token cannot be decrypted")
KEYS_UNAVAILABLE: Final = gettext_noop("its encryption key cannot be fetched now")
DEACTIVATED: Final = gettext_noop("the user is deactivated")
BY_HAND: Final = gettext_noop("a person has to connect")
AIRISK_DOWN: Final = gettext_noop("not tried, because AIRisk is not available")
CLIENT_REJECTED: Final = gettext_noop("not tried, because AIRisk does not accept this site")
INTERRUPTED: Final = gettext_noop("interrupted")

#: Why AIRisk granted no token to a user: the words of ``AIRiskToken.Failure``, in English for the log.
USER_REFUSED: Final = gettext_noop("refused by AIRisk")
PERSON_ASKED_FOR: Final = gettext_noop("AIRisk requires a sign-in")

#: What only a person can fix; reported once for each token.
FOR_A_PERSON: Final = (IDENTITY_CHANGED, OTHER_ADDRESS, UNREADABLE)
_NO_FAULT: Final = (LEASED_ELSEWHERE, RENEWED_ELSEWHERE, DEACTIVATED, *FOR_A_PERSON)
#: How many tokens that need a person the command names; the log names all.
NAMED: Final = 50


@dataclass(frozen=True)
class Trouble:
    """A token that cannot be renewed until a person has done something.

    :ivar token_id: its primary key.
    :ivar user_id: primary key of its user; ``None`` for the application's token.
    :ivar deployment: alias.
    :ivar reason: in English, without secrets.
    :ivar username: for people; empty if nobody has looked it up. Neither the log nor JSON has it.
    """

    token_id: Any
    user_id: Any
    deployment: str
    reason: str
    username: str = ""

    def __str__(self) -> str:
        owner = "the application" if self.user_id is None else f"user {self.user_id}"
        owner = f"{owner} ({self.username})" if self.username else owner
        return f"token {self.token_id} of {owner} on {self.deployment} ({self.reason})"

    def as_json(self) -> dict[str, Any]:
        """Return the fields; keys that JSON has no type for, such as UUIDs, as strings."""
        values = asdict(self)
        del values["username"]
        return {name: value if isinstance(value, int | None) else str(value) for name, value in values.items()}


@dataclass
class Report:
    """What became of the tokens of a sweep.

    :ivar counts: how many tokens, by outcome: one of :data:`COUNTED`.
    :ivar reasons: how many tokens were skipped, by reason.
    :ivar needs_person: the tokens that this sweep has found to need a person; those that an earlier one found are left
        out.
    :ivar client_refused: whether AIRisk rejects the site's client, whoever the user is.
    :ivar paused: how many tokens were due and not tried, because renewing them failed before and is retried later.
    """

    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COUNTED, 0)))
    reasons: Counter[str] = field(default_factory=Counter)
    needs_person: list[Trouble] = field(default_factory=list)
    client_refused: bool = False
    paused: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong that was not reported before: every token was renewed, or is known to need a person.

        Tokens that another process renews, and those of deactivated users, are no fault either.
        """
        faults = sum(number for reason, number in self.reasons.items() if reason not in _NO_FAULT)
        return not (self.counts[UNAVAILABLE] or faults or self.needs_person or self.client_refused or self.paused)

    def add(self, other: "Report") -> None:
        self.counts.update(other.counts)
        self.reasons.update(other.reasons)
        self.needs_person += other.needs_person
        self.client_refused |= other.client_refused
        self.paused += other.paused

    def skip(self, reason: str, number: int = 1) -> None:
        if number > 0:
            self.counts[SKIPPED] += number
            self.reasons[reason] += number

    def as_numbers(self) -> dict[str, int]:
        """Return how many tokens there are of each outcome, and how many were due and not tried."""
        return {**{outcome: self.counts[outcome] for outcome in COUNTED}, "paused": self.paused}

    def lines(self, alias: str) -> Iterator[str]:
        """Yield what the command prints for the deployment with this alias."""
        yield f"{alias}: {', '.join(f'{number} {outcome}' for outcome, number in self.as_numbers().items())}."
        for reason, number in self.reasons.items():
            yield f"  {number} skipped: {reason}."
        if self.paused:
            yield f"  {self.paused} paused: renewing failed before, and is retried later; --all tries now."
        if self.client_refused:
            yield f"  {_client_refused(alias)}"
        for words in self._named():
            yield f"  Needs a person: {words}."

    def faults(self, alias: str) -> Iterator[str]:
        """Yield what a person has to fix, for the command's error: errors reach a mailbox even if output does not."""
        if self.client_refused:
            yield _client_refused(alias)
        if self.needs_person:
            yield f"A person is needed for {', '.join(self._named())}."

    def look_up_names(self, names_of: Callable[[list[Any]], dict[Any, str]]) -> None:
        """Name the users of the tokens that the command names.

        :param names_of: returns usernames by user id.
        """
        named, others = self.needs_person[:NAMED], self.needs_person[NAMED:]
        names = names_of([trouble.user_id for trouble in named]) if named else {}
        self.needs_person = [replace(each, username=names.get(each.user_id, "")) for each in named] + others

    def _named(self) -> Iterator[str]:
        yield from map(str, self.needs_person[:NAMED])
        if (more := len(self.needs_person) - NAMED) > 0:
            yield f"and {more} more, which are in the log"

    def messages(self) -> Iterator[tuple[str, int]]:
        """Yield translated sentences for a page, with levels of ``django.contrib.messages``."""
        if number := self.counts[RENEWED]:
            yield ngettext("%d token was renewed.", "%d tokens were renewed.", number) % number, levels.SUCCESS
        if number := self.counts[REFUSED]:
            text = ngettext(
                "%d token was refused: its user has to reconnect.",
                "%d tokens were refused: their users have to reconnect.",
                number,
            )
            yield text % number, levels.ERROR
        if number := self.counts[UNAVAILABLE]:
            text = ngettext(
                "%d token was not renewed: AIRisk was not available.",
                "%d tokens were not renewed: AIRisk was not available.",
                number,
            )
            yield text % number, levels.ERROR
        for reason, number in self.reasons.items():
            text = ngettext(
                "%(number)d token was skipped: %(reason)s.", "%(number)d tokens were skipped: %(reason)s.", number
            )
            yield text % {"number": number, "reason": gettext(reason)}, levels.WARNING


def _client_refused(alias: str) -> str:
    return f"AIRisk does not accept this site for {alias}: try check_airisk --deployment {alias}."

"""What a sweep did: counts, reasons, and the tokens that only a person can get renewed again."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Final

from django.utils.translation import gettext_noop

RENEWED: Final = "renewed"
REFUSED: Final = "refused"
UNAVAILABLE: Final = "unavailable"
SKIPPED: Final = "skipped"
COUNTED: Final = (RENEWED, REFUSED, UNAVAILABLE, SKIPPED)

#: Why a token was skipped; shown translated by the admin.
LEASED_ELSEWHERE: Final = gettext_noop("another process is at it")
RENEWED_ELSEWHERE: Final = gettext_noop("another process was faster")
IDENTITY_CHANGED: Final = gettext_noop("the user's identity on AIRisk is gone or has changed")
OTHER_ADDRESS: Final = gettext_noop("the token is of another address of AIRisk: the user has to connect again")
UNRESOLVED: Final = gettext_noop("the site's USERID failed for the user")
UNREADABLE: Final = gettext_noop("the stored token cannot be opened")
DEACTIVATED: Final = gettext_noop("the user is deactivated")
AIRISK_DOWN: Final = gettext_noop("left alone, because AIRisk is not available")
CLIENT_REJECTED: Final = gettext_noop("left alone, because AIRisk does not accept this site")
INTERRUPTED: Final = gettext_noop("interrupted")

#: Why AIRisk gave no token for a user: as ``AIRiskToken.Failure`` has it, in English for the log.
USER_REFUSED: Final = gettext_noop("refused by AIRisk")
PERSON_ASKED_FOR: Final = gettext_noop("AIRisk asks for a person")

#: What only a person can put right; told once for each token.
FOR_A_PERSON: Final = (IDENTITY_CHANGED, OTHER_ADDRESS, UNREADABLE)
_NO_FAULT: Final = (LEASED_ELSEWHERE, RENEWED_ELSEWHERE, DEACTIVATED, *FOR_A_PERSON)


@dataclass(frozen=True)
class Trouble:
    """A token that only a person can get renewed again.

    :ivar token_id: its primary key.
    :ivar user_id: primary key of its user; ``None`` for the application's token.
    :ivar deployment: alias.
    :ivar reason: in English, without secrets.
    """

    token_id: Any
    user_id: Any
    deployment: str
    reason: str

    def __str__(self) -> str:
        owner = "the application" if self.user_id is None else f"user {self.user_id}"
        return f"token {self.token_id} of {owner} on {self.deployment} ({self.reason})"


@dataclass
class Report:
    """What a sweep did.

    :ivar counts: how many tokens, by what became of them: one of :data:`COUNTED`.
    :ivar reasons: why tokens were skipped, with numbers.
    :ivar needs_person: the tokens for which a person is needed since this sweep; what an earlier one told is not here.
    :ivar client_refused: whether AIRisk accepts none of the site's requests, whoever the user is.
    """

    counts: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(COUNTED, 0)))
    reasons: Counter[str] = field(default_factory=Counter)
    needs_person: list[Trouble] = field(default_factory=list)
    client_refused: bool = False

    @property
    def is_clean(self) -> bool:
        """Whether every token was renewed, here or by another process, except where a person is known to be needed."""
        troubled = sum(number for reason, number in self.reasons.items() if reason not in _NO_FAULT)
        return not (self.counts[UNAVAILABLE] or troubled or self.needs_person or self.client_refused)

    def add(self, other: "Report") -> None:
        self.counts.update(other.counts)
        self.reasons.update(other.reasons)
        self.needs_person += other.needs_person
        self.client_refused |= other.client_refused

    def skip(self, reason: str, number: int = 1) -> None:
        if number > 0:
            self.counts[SKIPPED] += number
            self.reasons[reason] += number

"""What a sweep has done so far, counted and named."""

import logging
from collections.abc import Callable
from typing import Final

from ..events import log
from ..exceptions import AIRiskError, AIRiskRefused, AIRiskUnavailable, ConnectionRequired
from ..models import AIRiskToken
from .outcomes import Outcome, is_unauthorized
from .report import (
    PERSON_ASKED_FOR,
    REFUSED,
    RENEWED,
    SKIPPED,
    UNAVAILABLE,
    USER_REFUSED,
    Report,
    Trouble,
)

logger = logging.getLogger("airisk_oauth.sweep")

Progress = Callable[[str], object]

#: The rest of a deployment is skipped after this many tokens in a row for which AIRisk was not available.
GIVE_UP_AFTER: Final = 5


class Tally:
    """Counts what becomes of tokens, and names those that need a person.

    :param progress: called for each token with one of :data:`~airisk_oauth.tokens.report.COUNTED`.
    :ivar is_airisk_down: whether AIRisk was not available for :data:`GIVE_UP_AFTER` tokens in a row.
    """

    def __init__(self, progress: Progress) -> None:
        self.report = Report()
        self.is_airisk_down = False
        self._progress = progress
        self._unavailable_in_a_row = 0
        self._unnamed: list[tuple[AIRiskToken, Outcome]] = []

    @property
    def renewed(self) -> int:
        return self.report.counts[RENEWED]

    def count(self, token: AIRiskToken, outcome: Outcome, *, was_known: bool) -> None:
        """Count the outcome of a renewal.

        :param was_known: whether the token was known to need a person before it was tried.
        """
        word = _word_for(outcome)
        self.report.counts[word] += 1
        self._progress(word)
        is_unavailable = isinstance(outcome, AIRiskUnavailable)
        self._unavailable_in_a_row = self._unavailable_in_a_row + 1 if is_unavailable else 0
        self.is_airisk_down |= self._unavailable_in_a_row >= GIVE_UP_AFTER
        if word == REFUSED and not was_known:
            self._unnamed.append((token, outcome))
        if word == RENEWED:
            self.name_refused()

    def skip(self, reason: str, number: int = 1) -> None:
        self.report.skip(reason, number)
        for _ in range(number):
            self._progress(SKIPPED)

    def name(self, token: AIRiskToken, reason: str) -> None:
        """Report and log that a token needs a person."""
        self.report.needs_person.append(Trouble(token.pk, token.user_id, token.deployment, reason))
        message = "A person is needed: token %(token_id)s of user %(user_id)s on %(deployment)s: %(reason)s"
        log(logger, logging.WARNING, "sweep.needs_person", message, token=token, reason=reason)

    def name_refused(self, *, except_unauthorized: bool = False) -> None:
        """Name the tokens that were refused since the last call.

        :param except_unauthorized: leave out those that AIRisk refused with 401: it is the client that it rejects.
        """
        unnamed, self._unnamed = self._unnamed, []
        for token, outcome in unnamed:
            if not (except_unauthorized and is_unauthorized(outcome)):
                self.name(token, USER_REFUSED if isinstance(outcome, AIRiskRefused) else PERSON_ASKED_FOR)


def _word_for(outcome: Outcome) -> str:
    if isinstance(outcome, AIRiskRefused | ConnectionRequired):
        return REFUSED
    return UNAVAILABLE if isinstance(outcome, AIRiskError) else RENEWED

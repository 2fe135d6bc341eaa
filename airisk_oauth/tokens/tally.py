"""What a sweep has done so far, counted and named."""

import logging
from collections.abc import Callable

from ..events import log
from ..exceptions import AIRiskRefused
from ..models import AIRiskToken
from .outcomes import Outcome, is_unauthorized, word_for
from .report import (
    PERSON_ASKED_FOR,
    REFUSED,
    RENEWED,
    SKIPPED,
    USER_REFUSED,
    Report,
    Trouble,
)

logger = logging.getLogger("airisk_oauth.sweep")

Progress = Callable[[str], object]


class Tally:
    """Counts what becomes of tokens, and names those that need a person.

    :param progress: called for each token with one of :data:`~airisk_oauth.tokens.report.COUNTED`.
    """

    def __init__(self, progress: Progress) -> None:
        self.report = Report()
        self._progress = progress
        self._unnamed: list[tuple[AIRiskToken, Outcome]] = []

    @property
    def renewed(self) -> int:
        return self.report.counts[RENEWED]

    def count(self, token: AIRiskToken, outcome: Outcome, *, was_known: bool) -> None:
        """Count the outcome of a renewal.

        :param was_known: whether the token was known to need a person before it was tried.
        """
        word = word_for(outcome)
        self.report.counts[word] += 1
        self._progress(word)
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
        message = "A person is needed: AIRisk token %(token_id)s of %(owner)s on %(deployment)s: %(reason)s"
        log(logger, logging.WARNING, "sweep.needs_person", message, token=token, reason=reason)

    def name_refused(self, *, except_unauthorized: bool = False) -> None:
        """Name the tokens that were refused since the last call.

        :param except_unauthorized: leave out those that AIRisk refused with 401: it is the client that it rejects.
        """
        unnamed, self._unnamed = self._unnamed, []
        for token, outcome in unnamed:
            if not (except_unauthorized and is_unauthorized(outcome)):
                self.name(token, USER_REFUSED if isinstance(outcome, AIRiskRefused) else PERSON_ASKED_FOR)

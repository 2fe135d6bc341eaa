"""What a sweep has done so far: its report, and whether the rest of the deployment is worth trying."""

import logging
from collections.abc import Callable
from typing import Final

from ..events import log
from ..exceptions import AIRiskError, AIRiskRefused, AIRiskUnavailable, ConnectionRequired
from ..models import AIRiskToken
from .client_check import ClientCheck, is_unauthorized
from .outcomes import Outcome
from .report import (
    AIRISK_DOWN,
    CLIENT_REJECTED,
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
    """

    def __init__(self, client: ClientCheck, progress: Progress) -> None:
        self.report = Report()
        self._client, self._progress = client, progress
        self._unavailable_in_a_row, self._is_airisk_down = 0, False
        self._unnamed: list[tuple[AIRiskToken, Outcome]] = []

    @property
    def given_up(self) -> str:
        """Why the rest of the deployment is skipped; empty while it is worth trying."""
        if self._client.is_rejected:
            return CLIENT_REJECTED
        return AIRISK_DOWN if self._is_airisk_down else ""

    def count(self, token: AIRiskToken, outcome: Outcome, *, was_known: bool) -> None:
        """Count the outcome of a renewal.

        :param was_known: whether the token was known to need a person before it was tried.
        """
        word = _word_for(outcome)
        self.report.counts[word] += 1
        self._progress(word)
        self._client.note(token, outcome, was_known=was_known)
        is_unavailable = isinstance(outcome, AIRiskUnavailable)
        self._unavailable_in_a_row = self._unavailable_in_a_row + 1 if is_unavailable else 0
        self._is_airisk_down |= self._unavailable_in_a_row >= GIVE_UP_AFTER
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

    def name_refused(self) -> None:
        """Name the tokens that were refused since the last call; not for a 401 if AIRisk rejects the client."""
        unnamed, self._unnamed = self._unnamed, []
        is_client = self._client.is_rejected and not self.report.counts[RENEWED]
        for token, outcome in unnamed:
            if not (is_client and is_unauthorized(outcome)):
                self.name(token, USER_REFUSED if isinstance(outcome, AIRiskRefused) else PERSON_ASKED_FOR)


def _word_for(outcome: Outcome) -> str:
    if isinstance(outcome, AIRiskRefused | ConnectionRequired):
        return REFUSED
    return UNAVAILABLE if isinstance(outcome, AIRiskError) else RENEWED

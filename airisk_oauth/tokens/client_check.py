"""Whether AIRisk rejects this site's client, or only some of its users: the answer to both can be 401."""

import logging
from collections.abc import Callable, Iterable
from typing import Any, Final

from django.db.models import Max
from django.utils import timezone

from ..database.expiry import SKEW
from ..events import log
from ..exceptions import AIRiskError, AIRiskRefused, ConnectionRequired
from ..models import AIRiskToken
from ..oauth.deployment import Deployment
from ..oauth.messages import TokenGrant
from .outcomes import UNAUTHORIZED, Outcome, is_unauthorized

logger = logging.getLogger("airisk_oauth.sweep")

#: The client is checked after AIRisk has newly refused this many tokens with 401 since it last granted one.
CHECK_AFTER: Final = 5
#: How many tokens a sample has if AIRisk's answer for the application decides nothing. Also, how many tokens that are
#: known to need a person are tried in vain before the rest of them is left to a later sweep.
SAMPLE: Final = 25


def is_client_doubtful(deployment: Deployment) -> bool:
    """Tell whether AIRisk has answered 401 for some token, and has renewed none of the deployment since."""
    if not deployment.silent_renewal:
        return False
    latest = timezone.now() + SKEW
    tokens = AIRiskToken.objects.primary().filter(deployment=deployment.alias)
    refused = tokens.filter(
        failure_kind=AIRiskToken.Failure.REFUSED, failure_status=UNAUTHORIZED, failing_since__lte=latest
    )
    since = refused.aggregate(since=Max("failing_since"))["since"]
    return since is not None and not tokens.filter(renewed_at__gt=since, renewed_at__lte=latest).exists()


class ClientCheck:
    """Follows a sweep's outcomes, and decides whether AIRisk rejects the site's client.

    The application's token belongs to no user: if AIRisk grants it, the client is accepted. It is not stored. If AIRisk
    refuses it with 401, the client may still be one that gets the tokens of users only, and any other error decides
    nothing. Then the sweep goes on at the far end of its queue, where the users are others.

    :param ask: asks AIRisk for the token of this ``userid``; ``None`` for the application's.
    :ivar is_rejected: whether AIRisk rejects the client.
    :ivar has_granted: whether AIRisk has granted this site a token, be it the application's.
    :ivar is_sampling: whether to claim tokens from the far end of the queue.
    :ivar suspicion: AIRisk's 401 for the application's token, until it renews some user's.
    """

    def __init__(self, deployment: Deployment, ask: Callable[[str | None], Outcome]) -> None:
        self.is_rejected = self.has_granted = self.is_sampling = False
        self.suspicion: AIRiskError | None = None
        self._deployment, self._ask = deployment, ask
        # Since the last renewal: tokens newly refused with 401, and tokens known to need a person and refused again.
        self._unauthorized = self._refused_again = 0
        self._tolerance = CHECK_AFTER
        self._in_flight_before: set[Any] = set()

    def note(self, token: AIRiskToken, outcome: Outcome, *, was_known: bool) -> None:
        """Take an outcome into account.

        :param was_known: whether the token was known to need a person before it was tried.
        """
        if isinstance(outcome, TokenGrant):
            self.has_granted = True
            self._unauthorized = self._refused_again = 0
            self.is_sampling, self.suspicion = False, None
        elif was_known:
            self._refused_again += isinstance(outcome, AIRiskRefused | ConnectionRequired)
        elif is_unauthorized(outcome) and token.pk not in self._in_flight_before:
            self._unauthorized += 1

    @property
    def is_accepted(self) -> bool:
        """Whether AIRisk is known to accept the client, so that whatever it refused concerns the users."""
        return self.has_granted and not self.is_rejected

    @property
    def is_due(self) -> bool:
        """Whether enough tokens were refused to check the client."""
        return self._unauthorized >= self._tolerance

    @property
    def has_refused_enough_again(self) -> bool:
        """Whether to leave the other tokens that are known to need a person to a later sweep."""
        return self._refused_again >= SAMPLE

    def run(self, in_flight: Iterable[AIRiskToken]) -> None:
        """Check the client, or decide that it is rejected if the samples were refused, too.

        :param in_flight: tokens that workers have begun with, which are no samples.
        """
        if self.is_sampling:
            self._reject()
            return
        answer = self._ask_for_application()
        if isinstance(answer, TokenGrant):
            # Checked less often the more users are refused, so that it costs next to nothing.
            self._unauthorized, self._tolerance = 0, 2 * self._tolerance
        elif is_unauthorized(answer):
            self.suspicion = answer
            self._sample(CHECK_AFTER, in_flight)
        elif self.is_due:
            self._sample(SAMPLE, in_flight)

    def conclude(self, *, ask: bool) -> None:
        """Decide, at the end of a sweep, that the client is rejected if no renewal has cleared it of a suspicion.

        :param ask: whether to check the client if AIRisk refused tokens with 401, however few they were.
        """
        if ask and self._unauthorized:
            answer = self._ask_for_application()
            if is_unauthorized(answer):
                self.suspicion = answer
        if self.suspicion is not None:
            self._reject()

    def _ask_for_application(self) -> Outcome:
        answer = self._ask(None)
        self.has_granted = self.has_granted or isinstance(answer, TokenGrant)
        return answer

    def _sample(self, number: int, in_flight: Iterable[AIRiskToken]) -> None:
        self._in_flight_before = {token.pk for token in in_flight}
        self.is_sampling, self._tolerance = True, self._unauthorized + number

    def _reject(self) -> None:
        self.is_rejected = True
        message, alias = "AIRisk does not accept this site for deployment %(deployment)s", self._deployment.alias
        log(logger, logging.WARNING, "sweep.client_refused", message, why=self.suspicion, deployment=alias)

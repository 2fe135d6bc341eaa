"""Losses that were not announced when they were found. A sweep announces at its end those that are certain by then."""

from collections.abc import Iterator
from typing import Final

from ..database.failures import KNOWN_TO_NEED_PERSON
from ..exceptions import AIRiskError, ConnectionRequired
from ..models import AIRiskToken
from ..oauth.deployment import Deployment
from ..userids import userid_of
from . import losses
from .exclusions import reasons_to_skip
from .report import FOR_A_PERSON, UNREADABLE
from .selection import of_deactivated_users

#: How many losses are announced at the end of one sweep.
AT_ONCE: Final = 1000


def announce_held_back(deployment: Deployment, *, is_accepted: bool) -> None:
    """Announce those losses of a deployment that were not announced so far, at the end of a sweep.

    :param is_accepted: whether AIRisk gave this site a token during the sweep, so that what it refused are its users.
    """
    rows = AIRiskToken.objects.primary().filter(KNOWN_TO_NEED_PERSON, deployment=deployment.alias, lost_at=None)
    tokens = list(rows.exclude(of_deactivated_users()).select_related("user").order_by("pk")[:AT_ONCE])
    are_many = False
    for token, error, connect_url in _certain(deployment, tokens, is_accepted=is_accepted):
        are_many = are_many or (not is_accepted and losses.many_in_a_row(token))
        if token.user_id is None or not are_many:
            losses.announce_loss(token, error, connect_url)


def _certain(
    deployment: Deployment, tokens: list[AIRiskToken], *, is_accepted: bool
) -> Iterator[tuple[AIRiskToken, AIRiskError, str | None]]:
    """Yield those of these tokens whose connection is lost for certain, with the error and where to connect."""
    active = [token for token in tokens if token.user is None or getattr(token.user, "is_active", True)]
    noted = [token for token in active if not token.needs_person]
    reasons = reasons_to_skip(deployment, noted) if noted else {}
    for token in active:
        reason = reasons.get(token.pk)
        if token.needs_person:
            error = token.last_error()
            if is_accepted or not losses.is_doubtful(token, error) or losses.accepted_since(token):
                yield token, error, losses.connect_url(token)
        elif reason in FOR_A_PERSON:
            # Nobody can connect without an identity, and a key that is missing on this host may be there on others.
            connects = reason != UNREADABLE and userid_of(deployment, token.user) is not None
            url = losses.connect_url(token) if connects else None
            yield token, ConnectionRequired(reason, deployment=deployment.alias, connect_url=url), url

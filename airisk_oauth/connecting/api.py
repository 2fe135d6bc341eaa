"""What API clients are told when AIRisk cannot be called in a user's name, whatever framework the API is made with."""

from http import HTTPStatus
from math import ceil
from typing import Any, Final, NamedTuple

from django.utils.translation import gettext as _

from .. import conf
from ..exceptions import AIRiskUnavailable, ConnectionRequired
from ..tokens.stored import StoredToken
from .reasons import Reason

#: Seconds after which a client may try again, where AIRisk named no time.
RETRY_AFTER: Final = 30
MAX_RETRY_AFTER: Final = 3600


class Answer(NamedTuple):
    """An HTTP response in its parts; the body is to be sent as JSON."""

    status: HTTPStatus
    body: dict[str, str]
    headers: dict[str, str]


def answer_for(error: Exception | None) -> Answer | None:
    """Return the answer to an API client, or ``None`` for an error about which its user can do nothing.

    ``ConnectionRequired`` is a 403 that names the page to connect on, and ``AIRiskUnavailable`` a 503 with
    ``Retry-After``. Anything else is the site's own problem, as is a ``ConnectionRequired`` without a ``connect_url``.
    """
    if isinstance(error, ConnectionRequired) and error.connect_url is not None:
        return Answer(HTTPStatus.FORBIDDEN, {"detail": str(error), "connect_url": error.connect_url}, {})
    if isinstance(error, AIRiskUnavailable):
        # Its own message may name a proxy or a file of this server.
        title, text = _(Reason.AIRISK_UNAVAILABLE.title), _(Reason.AIRISK_UNAVAILABLE.text)
        body = {"detail": _("%(title)s. %(text)s") % {"title": title, "text": text}}
        return Answer(HTTPStatus.SERVICE_UNAVAILABLE, body, {"Retry-After": str(_retry_after(error))})
    return None


def _retry_after(error: AIRiskUnavailable) -> int:
    seconds = RETRY_AFTER if error.retry_after is None else ceil(error.retry_after)
    return min(max(seconds, 1), MAX_RETRY_AFTER)


def answer_unconnected_client(user: Any, deployment: str) -> Answer | None:
    """Return the answer to a client whose user has to connect first, or ``None`` for a connected user.

    AIRisk is not called: a token that can be renewed silently counts as connected.

    :param deployment: alias.
    :raises ConnectionRequired: the user is not connected, and the site does not include the connect page.
    """
    try:
        StoredToken(conf.deployment(deployment), user).check(before_call=True)
    except ConnectionRequired as error:
        answer = answer_for(error)
        if answer is None:
            raise
        return answer
    return None

"""The rules of calling the API with a bearer token (RFC 6750, section 2.1); the clients send.

The token goes to the deployment's own origin only. After a 401 it is renewed and the request is sent once more; the
second response is returned whatever it is.
"""

import logging
import re
from collections.abc import Callable
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from ..events import log
from ..oauth.deployment import Deployment, origin_of
from ..oauth.messages import Secret
from ..tokens.renewal import Credential, Renewal
from ..tokens.stored import APPLICATION, RECHECK_AFTER, StoredToken
from ..tokens.waiting import Waiting
from .call_log import user_id_of

logger = logging.getLogger("airisk_oauth.renewal")

_PATH: Final = r"/(?![/\\])[^\\]*"

NOT_OURS: Final = "The token of an AIRisk deployment is sent to its own origin only."
NO_PATH: Final = "Give a path that starts with one slash, or a URL of the deployment."
ENDLESS: Final = "AIRisk redirects without end."
NO_PICKLES: Final = "What calls AIRisk in somebody's name cannot be pickled; make a new one where it is needed."


class BearerPolicy:
    """Which token goes on a call of this owner, and what follows from a 401.

    :param owner: a user, who may be lazy, or :data:`~airisk_oauth.tokens.stored.APPLICATION`.
    """

    def __init__(self, deployment: Deployment, owner: Any) -> None:
        self.owner = owner
        self._stored = StoredToken(deployment, owner)
        self._credential: Credential | None = None

    @property
    def is_application(self) -> bool:
        return self.owner is APPLICATION

    @property
    def alias(self) -> str:
        return self._stored.deployment.alias

    async def credential(self, waiting: Waiting) -> Credential:
        """Return a token for a call; its row is not read for each call. Errors: see :meth:`.Renewal.credential`."""
        credential, now = self._credential, timezone.now()
        if credential is None or not now < credential.trusted_until <= now + RECHECK_AFTER:
            credential = self._kept(await Renewal(self._stored, waiting).credential())
        return credential

    def _kept(self, credential: Credential) -> Credential:
        """Keep a credential for the next calls, and return it."""
        self._credential = credential._replace(just_renewed=False)
        return credential

    async def replacement(self, rejected: Secret, waiting: Waiting) -> Credential | None:
        """Return another token than the one that AIRisk answered with 401, or ``None`` where that would not help."""
        renewal = Renewal(self._stored, waiting)
        credential = self._kept(await renewal.credential(rejected))
        if credential.token != rejected:
            return credential
        if credential.just_renewed:
            # AIRisk issued the same token again.
            await renewal.note_rejected_new_token()
        return None

    async def note_replay(self, status: int, credential: Credential, waiting: Waiting) -> None:
        """Take note of the HTTP status that a replay with a :meth:`replacement` got."""
        who: dict[str, Any] = {"user_id": user_id_of(self), "deployment": self.alias}
        message = "A call of %(owner)s on %(deployment)s was sent again after a 401: status %(airisk_status)s"
        log(logger, logging.DEBUG, "call.replayed", message, airisk_status=status, **who)
        if status == 401 and credential.just_renewed:
            await Renewal(self._stored, waiting).note_rejected_new_token()


#: Returns the policy of the owner that the next call is made for.
BearerSource = Callable[[], BearerPolicy]


def of_user(deployment: Deployment, user: Any) -> BearerSource:
    """Call as this user, who may be lazy.

    :raises TypeError: there is no user; the application is called for by name only.
    """
    if user is None:
        raise TypeError("for_user() needs a user. To call as the application itself, use for_application().")
    bearer = BearerPolicy(deployment, user)
    return lambda: bearer


def of_application(deployment: Deployment) -> BearerSource:
    """Call as the application itself."""
    bearer = BearerPolicy(deployment, APPLICATION)
    return lambda: bearer


def of_visitor(deployment: Deployment, request: Any) -> BearerSource:
    """Call as the user whom ``request.user`` names at the moment of each call.

    A framework may authenticate after our middleware, and a view may sign somebody in or out.
    """
    bearer: BearerPolicy | None = None

    def current() -> BearerPolicy:
        nonlocal bearer
        if not hasattr(request, "user"):
            raise ImproperlyConfigured("request.airisk needs AuthenticationMiddleware above AIRiskMiddleware.")
        user = request.user
        if bearer is None or bearer.owner is not user:
            bearer = BearerPolicy(deployment, user)
        return bearer

    return current


def is_ours(deployment: Deployment, url: str) -> bool:
    """Tell whether the bearer may be sent to this URL."""
    return origin_of(url) == deployment.origin


def url_of(deployment: Deployment, url: str) -> str | None:
    """Return a path joined to ``BASE_URL``, an absolute URL as it is, and ``None`` for anything else."""
    if re.match(r"https?://", url, re.IGNORECASE):
        return url
    return deployment.base_url + url if re.fullmatch(_PATH, url) else None

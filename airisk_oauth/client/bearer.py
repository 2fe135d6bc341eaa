"""The rules of calling the API with a bearer (RFC 6750, section 2.1). They decide; whoever asks them sends.

The bearer goes to the deployment's own origin only. After a 401 the token is renewed and the request sent once more;
what then comes is handed back.
"""

import re
from collections.abc import Callable
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone

from ..oauth.deployment import Deployment, origin_of
from ..oauth.messages import Secret
from ..tokens.effects import Steps
from ..tokens.renewal import APPLICATION, RECHECK_AFTER, Credential, TokenKeeper

_PATH: Final = r"/(?![/\\])[^\\]*"

NOT_OURS: Final = "The token of an AIRisk deployment is sent to its own origin only."
NO_PATH: Final = "Give a path that starts with one slash, or a URL of the deployment."
ENDLESS: Final = "AIRisk redirects without end."
NO_PICKLES: Final = "What calls AIRisk in somebody's name cannot be pickled; make a new one where it is needed."


class BearerPolicy:
    """Which token goes on a call of this owner, and what follows from a 401.

    :param owner: a user, who may be lazy, or :data:`~airisk_oauth.renewal.APPLICATION`.
    """

    def __init__(self, deployment: Deployment, owner: Any) -> None:
        self.owner = owner
        self._keeper = TokenKeeper(deployment, owner)
        self._access: Credential | None = None

    def accessing(self) -> Steps[Credential]:
        """Come to a token for a call; the row is not looked at for each. Errors: :meth:`TokenKeeper.accessing`."""
        access, now = self._access, timezone.now()
        if access is None or not now < access.good_until <= now + RECHECK_AFTER:
            access = self._access = yield from self._keeper.accessing()
        return access

    def replacing(self, refused: Secret) -> Steps[Credential | None]:
        """Come to another token than the one that AIRisk answered with 401, or ``None`` where that would not help."""
        access = self._access = yield from self._keeper.accessing(refused)
        if access.token != refused:
            return access
        if access.is_new:
            # AIRisk gave the same token again.
            yield from self._keeper.noting_refused_anew()
        return None

    def noting(self, status: int, access: Credential) -> Steps[None]:
        """Take note of how the replay with a token from :meth:`replacing` was answered."""
        if status == 401 and access.is_new:
            yield from self._keeper.noting_refused_anew()


#: Returns the bearer that a call is to be made with.
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

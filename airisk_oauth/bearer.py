"""The rules of calling the API with a bearer (RFC 6750, section 2.1). They decide; whoever asks them sends.

The bearer goes to the deployment's own origin only. After a 401 the token is renewed and the request sent once more;
what then comes is handed back.
"""

import re
from typing import Any, Final

from django.utils import timezone

from . import protocol
from .conf import Deployment
from .effects import Steps
from .protocol import Secret
from .renewal import Access, TokenKeeper

_PATH: Final = r"/(?![/\\])[^\\]*"

NOT_OURS: Final = "The token of an AIRisk deployment is sent to its own origin only."
NO_PATH: Final = "Give a path that starts with one slash, or a URL of the deployment."
ENDLESS: Final = "AIRisk redirects without end."
NO_PICKLES: Final = "What calls AIRisk in somebody's name cannot be pickled; make a new one where it is needed."


class Bearer:
    """Which token goes on a call of this owner, and what follows from a 401.

    :param user: the owner; ``None`` for the application.
    """

    def __init__(self, deployment: Deployment, user: Any = None) -> None:
        self.deployment = deployment
        self._keeper = TokenKeeper(deployment, user)
        self._access: Access | None = None

    def is_ours(self, url: str) -> bool:
        """Tell whether the bearer may be sent to this URL."""
        return protocol.origin_of(url) == self.deployment.origin

    def url_of(self, url: str) -> str | None:
        """Return a path joined to ``BASE_URL``, an absolute URL as it is, and ``None`` for anything else."""
        if re.match(r"https?://", url, re.IGNORECASE):
            return url
        return self.deployment.base_url + url if re.fullmatch(_PATH, url) else None

    def accessing(self) -> Steps[Access]:
        """Come to a token for a call; the row is not looked at for each. Errors: :meth:`TokenKeeper.accessing`."""
        access = self._access
        if access is None or access.good_until <= timezone.now():
            access = self._access = yield from self._keeper.accessing()
        return access

    def replacing(self, refused: Secret) -> Steps[Access | None]:
        """Come to another token than the one that AIRisk answered with 401, or ``None`` where that would not help."""
        access = self._access = yield from self._keeper.accessing(refused)
        return None if access.token == refused else access

    def noting(self, status: int, access: Access) -> Steps[None]:
        """Take note of how the replay with a token from :meth:`replacing` was answered."""
        if status == 401 and access.is_new:
            yield from self._keeper.noting_refused_anew()

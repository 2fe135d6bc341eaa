"""AIRisk for the tests of a site: :class:`FakeAIRisk`, which is the fixture ``airisk`` of pytest.

It is put where requests leave the process: everything of the site and of this package runs as it does in production.
"""

import html
import re
import unittest
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import urlsplit

from django.utils import timezone

from .. import conf
from ..conf import DEFAULT_ALIAS
from ..models import AIRiskIdentity, AIRiskToken
from ..oauth.deployment import Deployment
from ..oauth.messages import Secret, TokenGrant
from ..sandbox.world import Caller
from ..tokens import unwritten
from ..tokens.outcomes import store
from ..userids import userid_of
from .doors import doors
from .server import AIRiskServer, RecordedCall

if TYPE_CHECKING:
    from contextlib import ExitStack

    from django.test import Client

__all__ = ["AIRiskTestMixin", "Call", "FakeAIRisk", "RecordedCall"]

#: The name that version 1.0.0 gave it.
Call = RecordedCall


class FakeAIRisk(AIRiskServer):
    """Answers for every deployment in ``AIRISK_OAUTH``; a context manager, and one at a time in a process.

    While it is active, nothing that ``requests`` sends leaves the process. What goes to AIRisk comes here; what goes
    elsewhere is a ``ConnectionError``, except what the test itself answers by ``responses.get()`` and the like. Blocks
    of ``responses`` may be around it and within it.
    What ``httpx2`` sends to AIRisk comes here, too; it goes elsewhere as ever.

    :raises RuntimeError: when it is entered while another one is active.
    """

    def __enter__(self) -> Self:
        # Into a name first: what fails to open must not replace what is open.
        opened = doors(self)
        self._doors: ExitStack = opened
        return self

    def __exit__(self, *exc: object) -> None:
        self._doors.close()
        unwritten.forget_all()

    def connect(
        self,
        user: Any,
        userid: str | None = None,
        *,
        deployment: str = DEFAULT_ALIAS,
        expires_in: int | None = 3600,
    ) -> AIRiskToken:
        """Store a token for this user, as if they had connected; no signal is sent.

        :param userid: who they are on AIRisk; if left out, whom the site says, or else somebody new. Whom the site
            does not know is saved as their ``AIRiskIdentity``.
        :param expires_in: seconds; ``None``: AIRisk names no end.
        :raises ValueError: the site's ``USERID`` says otherwise.
        """
        options = conf.deployment(deployment)
        known = userid_of(options, user)
        if known is None or userid not in (None, known):
            userid = userid or f"user_{user.pk}"
            identities = AIRiskIdentity.objects.primary()
            identities.update_or_create(user=user, deployment=deployment, defaults={"userid": userid})
            known = userid_of(options, user)
            if known != userid:
                raise ValueError(f"{options.userid} says that this user is {known!r} on AIRisk, not {userid!r}.")
        return self._give_token(options, user.pk, known, expires_in)

    def connect_application(self, *, deployment: str = DEFAULT_ALIAS, expires_in: int | None = 3600) -> AIRiskToken:
        """Store a token of the application's own; without one, its first call asks AIRisk for it."""
        return self._give_token(conf.deployment(deployment), None, None, expires_in)

    def connect_through(self, client: "Client", *, next: str = "", deployment: str = DEFAULT_ALIAS) -> Any:  # noqa: A002
        """Connect the user of a test client by the site's own pages, and return the site's last answer.

        A person goes on from whatever page AIRisk shows. Where the site does not send the browser to AIRisk, its answer
        to the click on Connect is returned.

        :raises AssertionError: AIRisk does not send the browser back, or the site has no page to connect on.
        """
        options = conf.deployment(deployment)
        secure = options.redirect_uri.startswith("https:")
        page = conf.page_url("connect", deployment)
        if page is None:
            raise AssertionError("The site does not include airisk_oauth.urls.")
        started = client.post(page, {"next": next}, secure=secure)
        if not started.get("Location", "").startswith(f"{options.authorize_url}?"):
            return started
        status, headers, body = self.receive("GET", started["Location"], {}, b"")
        link = re.search('href="([^"]+)"', body.decode())
        location = html.unescape(link[1]) if link else headers.get("Location")
        if location is None:
            raise AssertionError(f"AIRisk did not send the browser back, but answered {status}: {body.decode()}")
        back = urlsplit(location)
        return client.get(f"{back.path}?{back.query}", secure=secure)

    def expire(self, user: Any, *, deployment: str = DEFAULT_ALIAS) -> None:
        """Let the stored token of this user, or with ``None`` the application's, have ended.

        :raises AIRiskToken.DoesNotExist: there is none.
        """
        rows = AIRiskToken.objects.primary()
        row = rows.of_application(deployment) if user is None else rows.owned_by(user.pk, deployment)
        self._ended.add(row.get().access_token)
        row.update(expires_at=timezone.now())

    def _give_token(self, options: Deployment, user_id: Any, userid: str | None, expires_in: int | None) -> AIRiskToken:
        token, ends = self._world.new_token(Caller(options.client_id, userid), expires_in)
        expires_at = None if ends is None else datetime.fromtimestamp(ends, UTC)
        grant = TokenGrant(Secret(token), expires_at, options.origin_text)
        stored = store(user_id, options.alias, userid or "", grant)
        # As if nothing had been lost before, because no signal tells that it works again.
        AIRiskToken.objects.primary().filter(pk=stored.pk).update(lost_at=None)
        stored.lost_at = None
        return stored


class AIRiskTestMixin(unittest.TestCase):
    """Named before Django's ``TestCase`` or ``SimpleTestCase``, it gives each test ``self.airisk``, active."""

    def setUp(self) -> None:
        super().setUp()
        self.airisk = self.enterContext(FakeAIRisk())

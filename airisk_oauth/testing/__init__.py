"""A fake AIRisk for a site's tests: :class:`FakeAIRisk`, which is also the pytest fixture ``airisk``.

It answers where requests would leave the process, so the site and this package run just as in production.
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
from ..providers.source import forget_all
from ..sandbox.world import Caller
from ..tokens import unwritten
from ..tokens.outcomes import store
from ..userids import userid_of
from .patches import patched
from .server import AIRiskServer, RecordedCall

if TYPE_CHECKING:
    from contextlib import ExitStack

    from django.test import Client

__all__ = ["AIRiskTestMixin", "Call", "FakeAIRisk", "RecordedCall"]

#: The name of this class in version 1.0.0.
Call = RecordedCall


class FakeAIRisk(AIRiskServer):
    """A context manager that answers for every deployment in ``AIRISK_OAUTH``; one at a time in a process.

    While it is active, nothing that ``requests`` sends leaves the process. It answers requests to AIRisk. A request to
    another host raises ``ConnectionError``, unless the test answers it itself, with ``responses.get()`` for example;
    blocks of ``responses`` can surround it, or be inside it. It also answers what ``httpx2`` sends to AIRisk, while
    other requests of ``httpx2`` are sent as usual.

    :raises RuntimeError: on entering, if another one is active.
    """

    def __enter__(self) -> Self:
        # In a local name first: if this fails, the patches that are active must not be lost.
        patches = patched(self)
        self._patches: ExitStack = patches
        # What a function of the site returned in another test may be wrong in this one.
        forget_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._patches.close()
        unwritten.forget_all()
        forget_all()

    def connect(
        self,
        user: Any,
        userid: str | None = None,
        *,
        deployment: str = DEFAULT_ALIAS,
        expires_in: int | None = 3600,
    ) -> AIRiskToken:
        """Store a token for this user, as if they had connected, without sending a signal.

        If the site knows no userid for the user, an ``AIRiskIdentity`` is created.

        :param userid: who the user is on AIRisk; by default what the site knows, or else a new userid.
        :param expires_in: seconds; ``None``: AIRisk names no expiry.
        :raises ValueError: the site's ``USERID`` returns another userid.
        """
        options = conf.deployment(deployment)
        known = userid_of(options, user)
        if known is None or userid not in (None, known):
            userid = userid or f"user_{user.pk}"
            identities = AIRiskIdentity.objects.primary()
            identities.update_or_create(user=user, deployment=deployment, defaults={"userid": userid})
            known = userid_of(options, user)
            if known != userid:
                raise ValueError(f"{options.userid} returns the userid {known!r} for this user, not {userid!r}.")
        return self._give_token(options, user.pk, known, expires_in)

    def connect_application(self, *, deployment: str = DEFAULT_ALIAS, expires_in: int | None = 3600) -> AIRiskToken:
        """Store a token for the application; without it, the first call obtains one from AIRisk."""
        return self._give_token(conf.deployment(deployment), None, None, expires_in)

    def connect_through(self, client: "Client", *, next: str = "", deployment: str = DEFAULT_ALIAS) -> Any:  # noqa: A002
        """Connect the user of a test client through the site's own pages, and return the site's last response.

        A page that AIRisk shows is confirmed. If the site does not send the browser to AIRisk, its response to the
        click on Connect is returned.

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
            raise AssertionError(f"AIRisk did not send the browser back. It answered {status}: {body.decode()}")
        back = urlsplit(location)
        return client.get(f"{back.path}?{back.query}", secure=secure)

    def expire(self, user: Any, *, deployment: str = DEFAULT_ALIAS) -> None:
        """Make the stored token of this user expire, or with ``None`` the application's.

        :raises AIRiskToken.DoesNotExist: there is no stored token.
        """
        rows = AIRiskToken.objects.primary()
        row = rows.of_application(deployment) if user is None else rows.owned_by(user.pk, deployment)
        self._expired.add(row.get().access_token)
        row.update(expires_at=timezone.now())

    def _give_token(self, options: Deployment, user_id: Any, userid: str | None, expires_in: int | None) -> AIRiskToken:
        token, timestamp = self._world.new_token(Caller(options.client_id, userid), expires_in)
        expires_at = None if timestamp is None else datetime.fromtimestamp(timestamp, UTC)
        grant = TokenGrant(Secret(token), expires_at, options.origin_text)
        stored = store(user_id, options.alias, userid or "", grant)
        # As if nothing had been lost before, because no signal tells that it works again.
        AIRiskToken.objects.primary().filter(pk=stored.pk).update(lost_at=None)
        stored.lost_at = None
        return stored


class AIRiskTestMixin(unittest.TestCase):
    """Gives each test an active ``self.airisk``; list it before Django's ``TestCase`` or ``SimpleTestCase``."""

    def setUp(self) -> None:
        super().setUp()
        self.airisk = self.enterContext(FakeAIRisk())

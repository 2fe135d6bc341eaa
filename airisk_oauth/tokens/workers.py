"""A pool of threads that ask AIRisk for tokens. They do HTTP only, and leave the database to the calling thread."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final, Self

from ..exceptions import AIRiskError, AIRiskUnavailable
from ..oauth.code_flow import obtain_silently
from ..oauth.deployment import Deployment
from .outcomes import Outcome, log_answer

if TYPE_CHECKING:
    from ..oauth.transport import OAuthClient

#: AIRisk is not asked for any more tokens after this many in a row for which it was not available.
GIVE_UP_AFTER: Final = 5


class NotAsked(Exception):
    """AIRisk was found to be down before a worker got to this token."""


class Workers:
    """Ask one deployment for tokens, ``number`` at a time. Leaving the context waits for those that have begun.

    :ivar is_airisk_down: whether AIRisk was not available for :data:`GIVE_UP_AFTER` tokens in a row.
    """

    def __init__(self, deployment: Deployment, number: int) -> None:
        self.deployment, self.number = deployment, number
        self._pool = ThreadPoolExecutor(number)
        self._clients = ExitStack()
        self._of_thread = threading.local()
        self._counting = threading.Lock()
        self._unavailable_in_a_row = 0
        self.is_airisk_down = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            self._pool.shutdown()
        finally:
            self._clients.close()

    def submit(self, userid: str | None) -> "Future[Outcome]":
        """Ask for a token in one of the threads. The result is :class:`NotAsked` if AIRisk is down by then."""
        return self._pool.submit(self._ask_unless_down, userid)

    def _ask_unless_down(self, userid: str | None) -> Outcome:
        # Counted here: many more calls could fail before the thread that submits them has noticed.
        if self.is_airisk_down:
            raise NotAsked
        began = time.monotonic()
        outcome = self.ask(userid)
        log_answer(self.deployment.alias, began, outcome)
        with self._counting:
            is_unavailable = isinstance(outcome, AIRiskUnavailable)
            self._unavailable_in_a_row = self._unavailable_in_a_row + 1 if is_unavailable else 0
            self.is_airisk_down |= self._unavailable_in_a_row >= GIVE_UP_AFTER
        return outcome

    def ask(self, userid: str | None) -> Outcome:
        """Ask for a token in this thread, and return it or the error.

        :param userid: ``None`` for the application's token.
        """
        try:
            return self._client().run(obtain_silently, self.deployment, userid)
        except AIRiskError as error:
            return error

    def _client(self) -> "OAuthClient":
        """Return this thread's own client: a connection is used by one thread only."""
        from ..oauth.transport import OAuthClient

        if not hasattr(self._of_thread, "client"):
            self._of_thread.client = self._clients.enter_context(OAuthClient(self.deployment))
        client: OAuthClient = self._of_thread.client
        return client

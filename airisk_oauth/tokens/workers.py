"""A pool of threads that ask AIRisk for tokens. They do HTTP only, and leave the database to the calling thread."""

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING, Self

from ..exceptions import AIRiskError
from ..oauth.code_flow import obtain_silently
from ..oauth.deployment import Deployment
from .outcomes import Outcome

if TYPE_CHECKING:
    from ..oauth.transport import OAuthClient


class Workers:
    """Ask one deployment for tokens, ``number`` at a time. Leaving the context waits for those that have begun."""

    def __init__(self, deployment: Deployment, number: int) -> None:
        self.deployment, self.number = deployment, number
        self._pool = ThreadPoolExecutor(number)
        self._clients = ExitStack()
        self._of_thread = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        try:
            self._pool.shutdown()
        finally:
            self._clients.close()

    def submit(self, userid: str | None) -> "Future[Outcome]":
        """Ask for a token in one of the threads."""
        return self._pool.submit(self.ask, userid)

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

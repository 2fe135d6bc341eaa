"""The sweep as a Celery task.

Celery finds this module by itself. So do Huey and Dramatiq, on sites without Celery: there it is empty.
"""

from importlib.util import find_spec
from typing import Any

from .refresh import refresh_tokens

if find_spec("celery") is not None:
    from celery import shared_task

    @shared_task
    def refresh_airisk_tokens(
        within: str = "10m", deployment: str | None = None, limit: int | None = None, workers: int = 8
    ) -> dict[str, Any]:
        """Renew the tokens that have ended or end soon.

        Options, result and errors are those of :func:`airisk_oauth.refresh.refresh_tokens`. Tokens that were not
        renewed are in the result, and no error: there is nothing to retry, because the next run takes them up.

        A worker that is told to end waits for the sweep; with ``--pool=solo`` it ends the sweep early.
        """
        return refresh_tokens(within, deployment, limit, workers)

"""The sweep as a Celery task.

Celery imports this module by its name. So do Huey and Dramatiq; on a site without Celery it defines nothing.
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
        """Renew the tokens that have expired or expire soon.

        Options, result and errors are those of :func:`airisk_oauth.refresh.refresh_tokens`. Tokens that were not
        renewed are no error, but part of the result: the next run tries them again, so the task needs no retry.

        A worker that is asked to shut down waits for the sweep; with ``--pool=solo`` it ends the sweep early.
        """
        return refresh_tokens(within, deployment, limit, workers)

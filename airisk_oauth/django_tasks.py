"""The sweep as a task for ``django.tasks``, or for its backport ``django-tasks`` on Django 5.2."""

from typing import Any

from .refresh import refresh_tokens

try:
    from django.tasks import task
except ModuleNotFoundError:
    try:
        from django_tasks import task  # type: ignore[no-redef,unused-ignore]
    except ModuleNotFoundError:
        raise ImportError("airisk_oauth.django_tasks needs Django 6.0, or django-tasks beside Django 5.2.") from None


@task
def refresh_airisk_tokens(
    within: str = "10m", deployment: str | None = None, limit: int | None = None, workers: int = 8
) -> dict[str, Any]:
    """Renew the tokens that have expired or expire soon.

    Options, result and errors are those of :func:`airisk_oauth.refresh.refresh_tokens`. Tokens that were not renewed
    are no error, but part of the result. A worker that is asked to shut down ends the sweep early.
    """
    return refresh_tokens(within, deployment, limit, workers)

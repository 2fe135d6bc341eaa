"""The sweep as a task of Django's own framework: ``django.tasks``, or its backport ``django-tasks`` on Django 5.2."""

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
    """Renew the tokens that have ended or end soon.

    Options, result and errors are those of :func:`airisk_oauth.refresh.refresh_tokens`. Tokens that were not renewed
    are in the result, and no error. A worker that is told to end ends the sweep early.
    """
    return refresh_tokens(within, deployment, limit, workers)

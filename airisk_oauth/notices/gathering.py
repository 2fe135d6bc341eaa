"""Writes to whom the setting ``AIRISK_OAUTH_NOTIFY`` names when a connection is lost; after a sweep, once for all."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from django.conf import settings
from django.contrib.auth import get_user_model

from ..database.transactions import after_commit
from ..exceptions import AIRiskError
from ..models import AIRiskToken
from .loss import Loss
from .options import Options, options

if TYPE_CHECKING:
    from .sending import Letter


_gathered: Final[ContextVar[list[Loss] | None]] = ContextVar("airisk_oauth_gathered", default=None)


def note(user_id: Any, deployment: str, error: AIRiskError, connect_url: str | None) -> None:
    """Write about a lost connection: now, after the caller's transaction, or with others at the end of a sweep.

    :raises ImproperlyConfigured: ``AIRISK_OAUTH_NOTIFY`` is wrong.
    """
    wanted = options()
    if not (wanted.users or wanted.managers):
        return
    loss, gathered = Loss(user_id, deployment, error, connect_url), _gathered.get()
    if gathered is not None:
        gathered.append(loss)
        return
    _send_after_commit([loss], of_sweep=False)


@contextmanager
def together() -> Iterator[None]:
    """Write at the end about all connections that are lost meanwhile: to the managers one e-mail for all."""
    if _gathered.get() is not None:
        yield
        return
    losses: list[Loss] = []
    token = _gathered.set(losses)
    try:
        yield
    finally:
        _gathered.reset(token)
        if losses:
            _send_after_commit(losses, of_sweep=True)


def _send_after_commit(losses: list[Loss], *, of_sweep: bool) -> None:
    work = partial(_send, losses, of_sweep=of_sweep)
    if not after_commit(AIRiskToken.objects.primary().db, work):
        work()


def _send(losses: list[Loss], *, of_sweep: bool) -> None:
    """Write about these losses.

    :param of_sweep: whether the managers are told about users, too; a loss at a time would be too many e-mails.
    """
    # Imported here: most processes never lose a connection.
    from .sending import deliver, log_failure

    try:
        # Made here, so that a failing database is one failure.
        letters = list(_letters(losses, options(), of_sweep=of_sweep))
    except Exception as error:  # noqa: BLE001 - the sweep or the call that noticed the loss goes on
        log_failure(None, ", ".join(sorted({loss.deployment for loss in losses})), error)
    else:
        deliver(letters)


def _letters(losses: list[Loss], wanted: Options, *, of_sweep: bool) -> "Iterator[Letter]":
    from .letters import letter_to_managers
    from .sending import Letter

    user_ids = {loss.user_id for loss in losses if loss.user_id is not None}
    users = get_user_model()._base_manager.in_bulk(user_ids) if user_ids else {}
    for_managers = [loss for loss in losses if of_sweep or loss.user_id is None]
    if wanted.managers and settings.MANAGERS and for_managers:
        aliases = ", ".join(sorted({loss.deployment for loss in for_managers}))
        yield Letter(None, aliases, partial(letter_to_managers, for_managers, users))
    for loss in losses if wanted.users else ():
        user = users.get(loss.user_id)
        if user is not None:
            write = partial(_write_to_user, loss, user, wanted)
            yield Letter(loss.user_id, loss.deployment, write)


def _write_to_user(loss: Loss, user: Any, wanted: Options) -> Any:
    from .letters import letter_to_user

    return letter_to_user(loss, user, wanted.language_of(user))

"""Who a Django user is on AIRisk. Our own records decide, never a browser."""

from collections.abc import Callable, Iterable
from typing import Any, cast

from django.contrib.auth import get_user_model
from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseError
from django.utils.module_loading import import_string

from . import conf
from .models import AIRiskIdentity
from .oauth.deployment import Deployment

#: What the option ``USERID`` names: takes a user and a deployment's alias, returns the ``userid``, or ``None``.
UserIdResolver = Callable[[Any, str], str | None]


def userid_of(deployment: Deployment, user: Any) -> str | None:
    """Return the user's ``userid`` on this deployment, or ``None``.

    :raises ImproperlyConfigured: the site's ``USERID`` returned a value that AIRisk cannot have given.
    """
    resolve = cast("UserIdResolver", import_string(deployment.userid))
    userid = resolve(user, deployment.alias)
    if userid and not conf.is_userid(userid):
        raise ImproperlyConfigured(f"{deployment.userid} returned something that is no userid of AIRisk's.")
    return userid or None


def userids_of(
    deployment: Deployment, user_ids: Iterable[Any], on_error: Callable[[Any, Exception], object]
) -> dict[Any, str | None]:
    """Return the ``userid`` on this deployment of each of these users, by user id.

    :param on_error: called with the user id and the exception if the site's ``USERID`` fails for a user, who is left
        out; one failure keeps no other user from being found.
    """
    resolve = import_string(deployment.userid)
    if hasattr(resolve, "many"):
        return cast("dict[Any, str | None]", resolve.many(user_ids, deployment.alias))
    userids: dict[Any, str | None] = {}
    for pk, user in get_user_model()._default_manager.in_bulk(user_ids).items():
        try:
            userids[pk] = userid_of(deployment, user)
        except DatabaseError:
            raise
        except Exception as error:  # noqa: BLE001 - the site's own code
            on_error(pk, error)
    return userids


class FromIdentity:
    """Look the user up in :class:`~airisk_oauth.models.AIRiskIdentity`.

    A resolver is any callable ``(user, deployment alias) -> str | None``. One that has ``many`` as well is asked once
    for a whole page of users by the sweep.
    """

    def __call__(self, user: Any, deployment: str) -> str | None:
        return self.many([user.pk], deployment).get(user.pk)

    def many(self, user_ids: Iterable[Any], deployment: str) -> dict[Any, str]:
        """Return the userids of those users who have one, by user id."""
        identities = AIRiskIdentity.objects.primary().filter(user__in=user_ids, deployment=deployment)
        return dict(identities.values_list("user", "userid"))


from_identity = FromIdentity()

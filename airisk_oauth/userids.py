"""Who a Django user is on AIRisk: the resolvers that the option ``USERID`` can name."""

from collections.abc import Iterable
from typing import Any

from .models import AIRiskIdentity


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

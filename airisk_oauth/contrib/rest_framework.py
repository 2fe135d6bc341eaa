"""For Django REST framework: a permission class and an exception handler.

Views that authenticate later than Django's middleware are served, too: ``request.user`` is read when DRF has set it.
"""

from typing import Any

from rest_framework.permissions import BasePermission
from rest_framework.response import Response
from rest_framework.views import exception_handler as default_exception_handler
from rest_framework.views import set_rollback

from ..conf import DEFAULT_ALIAS
from ..connecting.api import answer_for, answer_unconnected_client


class IsConnected(BasePermission):  # type: ignore[misc]
    """Allow users who are connected to AIRisk; AIRisk is not called.

    Other users get a 403 with ``detail`` and ``connect_url``, and visitors who are not signed in whatever DRF answers
    them: a 401 or a 403. The deployment is the view's ``airisk_deployment``, an alias; without one, the default.

    :raises ConnectionRequired: the user is not connected, and the site does not include the connect page.
    """

    def has_permission(self, request: Any, view: Any) -> bool:
        if not getattr(request.user, "is_authenticated", False):
            return False
        answer = answer_unconnected_client(request.user, getattr(view, "airisk_deployment", DEFAULT_ALIAS))
        if answer is None:
            return True
        self.message = answer.body
        return False


def exception_handler(exc: Exception, context: dict[str, Any]) -> Any:
    """Answer the errors of AIRisk that a client can do something about, and leave all others to DRF.

    ``ConnectionRequired`` is a 403 with ``detail`` and ``connect_url``, and ``AIRiskUnavailable`` a 503 with
    ``Retry-After``. Name this function in the setting ``REST_FRAMEWORK`` as ``EXCEPTION_HANDLER``.
    """
    answer = answer_for(exc)
    if answer is None:
        return default_exception_handler(exc, context)
    set_rollback()
    return Response(answer.body, status=answer.status, headers=answer.headers)

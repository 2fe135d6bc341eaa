"""Whether a visitor should be told that their connection is lost."""

from django.http import HttpRequest

from .. import conf
from ..models import AIRiskToken
from ..oauth.deployment import Deployment
from ..providers.source import SettingUnavailable
from . import impersonation
from .status import ConnectionStatus, connection_status


def lost_connection(request: HttpRequest, deployment: str = conf.DEFAULT_ALIAS) -> ConnectionStatus | None:
    """Return the signed-in user's connection if it is lost and they can connect again, or ``None``.

    One query tells of a user who has nothing to be told. AIRisk is not called. Where a function returns the
    deployments, there is nothing to tell while it fails, because the page may not need AIRisk.

    :param deployment: alias.
    :raises ImproperlyConfigured: there is no such deployment, or one of its settings is wrong.
    """
    try:
        options, user = conf.deployment(deployment), getattr(request, "user", None)
    except SettingUnavailable:
        return None
    if user is None or not user.is_authenticated:
        return None
    token = AIRiskToken.objects.primary().owned_by(user.pk, deployment).defer("sealed").first()
    if token is None or not _may_be_lost(token, options) or impersonation.is_impersonated(request):
        return None
    status = connection_status(user, deployment, request=request)
    can_connect = not status.is_connected and status.userid is not None and status.connect_url is not None
    return status if can_connect else None


def _may_be_lost(token: AIRiskToken, options: Deployment) -> bool:
    """Tell whether a loss was announced, or a call would fail for a reason that the row alone shows.

    A refusal that was not announced may be the site's own fault, and connecting would not help.
    """
    has_expired = token.is_expired and not options.silent_renewal
    return token.lost_at is not None or has_expired or not token.is_from(options)

"""What our pages, the template tag and the admin share: a user's connection status, and the redirect to AIRisk."""

from typing import Any, NamedTuple
from urllib.parse import urlsplit

from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.shortcuts import redirect

from .. import conf
from ..exceptions import ConnectionRequired
from ..models import AIRiskToken
from ..oauth.deployment import Deployment
from ..tokens.stored import StoredToken
from ..userids import userid_of
from . import browsers, flow, hosts, impersonation
from .problems import AtAnotherHost, SignedOut, problem_response


class ConnectionStatus(NamedTuple):
    """Where a user stands with one deployment.

    :ivar connect_url: path of the page to connect on, ``None`` where the site does not include it.
    :ivar disconnect_url: the same for disconnecting.
    :ivar right_host_url: URL of the page to connect on at REDIRECT_URI's host, for a browser that is at another one.
    """

    deployment: Deployment
    userid: str | None
    token: AIRiskToken | None
    is_usable: bool
    connect_url: str | None
    disconnect_url: str | None
    right_host_url: str | None

    @property
    def right_host(self) -> str:
        return urlsplit(self.right_host_url or "").netloc


def start(
    request: HttpRequest, deployment: Deployment, *, next_url: str = "", for_application: bool = False
) -> HttpResponse:
    """Send this user's browser to AIRisk, or say why that is not possible."""
    value = browsers.value_for(request)
    browser = browsers.binding(request, value)
    try:
        _require_own_session(request)
        right_host_url = hosts.on_right_host(request, deployment, next_url)
        if right_host_url is not None and not for_application:
            return redirect(right_host_url)
        _require_right_host(right_host_url)
        url = flow.begin(deployment, request.user, browser=browser, next_url=next_url, for_application=for_application)
    except (flow.NoIdentity, SignedOut, AtAnotherHost) as error:
        return problem_response(request, error)
    response = _ToAIRisk(url)
    browsers.keep(response, value)
    return response


class _ToAIRisk(HttpResponseRedirect):
    """A redirect whose ``repr`` does not tell the state."""

    def __repr__(self) -> str:
        return "<redirect to AIRisk>"


def _require_own_session(request: HttpRequest) -> None:
    """Refuse a session in which somebody acts as another user: a connection is made by its owner only."""
    if impersonation.acts_for_another(request):
        raise SignedOut


def _require_right_host(right_host_url: str | None) -> None:
    """Refuse a browser that comes back to a host where nobody is signed in, for want of a page to lead it to."""
    if right_host_url is not None:
        raise AtAnotherHost


def connection_status(request: HttpRequest, deployment: Deployment, next_url: str = "") -> ConnectionStatus:
    """Return where this user stands, for a page that offers to connect.

    :param next_url: path to lead to after connecting.
    """
    user: Any = request.user
    connect_url, disconnect_url = (conf.page_url(name, deployment.alias, request) for name in ("connect", "disconnect"))
    urls = connect_url, disconnect_url, hosts.on_right_host(request, deployment, next_url)
    try:
        token = StoredToken(deployment, user).check()
    except ConnectionRequired:
        stored = AIRiskToken.objects.primary().owned_by(user.pk, deployment.alias).first()
        return ConnectionStatus(deployment, userid_of(deployment, user), stored, False, *urls)  # noqa: FBT003 - is_usable
    return ConnectionStatus(deployment, token.userid, token, not token.needs_person, *urls)


def deployment_or_404(alias: str) -> Deployment:
    """Return the deployment that a URL names.

    :raises Http404: there is none of this alias.
    """
    if alias not in conf.aliases():
        raise Http404
    return conf.deployment(alias)

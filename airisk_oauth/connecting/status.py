"""A user's connections, for the pages that show them. AIRisk is not called."""

import re
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, TypedDict
from urllib.parse import urlsplit

from django.http import HttpRequest

from .. import conf
from ..exceptions import ConnectionRequired
from ..models import AIRiskIdentity, AIRiskToken
from ..oauth.deployment import Deployment
from ..providers.source import SettingUnavailable
from ..tokens.stored import StoredToken
from ..userids import userid_of
from . import hosts

#: A name for machines, which tells a person nothing.
_GUID: Final = r"(?i)\{?[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}\}?"


class ConnectionJSON(TypedDict):
    """A user's connection to one deployment, as scripts see it.

    :ivar expires_at: when the stored token expires, in ISO 8601 with an offset; ``None`` without a token or an expiry.
    :ivar needs_person: a token is stored, but the user has to connect again.
    """

    deployment: str
    connected: bool
    userid: str | None
    expires_at: str | None
    needs_person: bool
    connect_url: str | None


class ConnectionStatus(NamedTuple):
    """A user's connection to one deployment.

    :ivar userid: who the user is on AIRisk, or ``None``.
    :ivar token: the stored token, or ``None`` for a user who never connected.
    :ivar is_connected: whether calls can be made with the token, or after a silent renewal. False where the user has to
        connect, even while an old token is still valid.
    :ivar connect_url: path of the page to connect on, or ``None`` where the site does not include it.
    :ivar disconnect_url: path to post to in order to disconnect, or ``None`` where the site does not include it.
    :ivar right_host_url: URL of the page to connect on at ``REDIRECT_URI``'s host, for a browser that is at another
        host; otherwise ``None``.
    :ivar label: the identity's label for this ``userid``, or an empty string.
    """

    deployment: Deployment
    userid: str | None
    token: AIRiskToken | None
    is_connected: bool
    connect_url: str | None
    disconnect_url: str | None
    right_host_url: str | None
    label: str

    @property
    def right_host(self) -> str:
        return urlsplit(self.right_host_url or "").netloc

    @property
    def name(self) -> str:
        """Who the user is on AIRisk, in words for the user: empty if there is only a GUID."""
        userid = self.userid or ""
        return self.label or ("" if re.fullmatch(_GUID, userid) else userid)

    def as_json(self) -> ConnectionJSON:
        expires_at = None if self.token is None else self.token.expires_at
        return {
            "deployment": self.deployment.alias,
            "connected": self.is_connected,
            "userid": self.userid,
            "expires_at": None if expires_at is None else expires_at.isoformat(),
            "needs_person": self.token is not None and not self.is_connected,
            "connect_url": self.connect_url,
        }


def connection_status(
    user: Any, deployment: str = conf.DEFAULT_ALIAS, *, request: HttpRequest | None = None, next_url: str = ""
) -> ConnectionStatus:
    """Return this user's connection status, for a page with a Connect button. AIRisk is not called.

    :param deployment: alias.
    :param request: the request for that page. The addresses of the pages depend on it where a site includes them more
        than once, and without it ``right_host_url`` is ``None``.
    :param next_url: path to go to after connecting at another host.
    :raises ImproperlyConfigured: there is no such deployment, or one of its settings is wrong.
    """
    return _status(conf.deployment(deployment), _Stored(user, [deployment]), request, next_url)


def own_connections(request: HttpRequest, next_url: str = "") -> list[ConnectionStatus]:
    """Return the signed-in user's connections to the deployments on which they have an identity or a token.

    The names of other deployments may be those of other customers. Only ``default`` says nothing: it stands for all of
    them where the user is on none. The database is read twice, however many deployments there are.

    :param next_url: path to go to after connecting at another host.
    :raises ImproperlyConfigured: a deployment's settings are wrong.
    """
    aliases = conf.aliases()
    stored = _Stored(request.user, aliases)
    statuses = [_status(deployment, stored, request, next_url) for deployment in conf.usable(aliases)]
    own = [status for status in statuses if status.userid or status.token]
    return own or [status for status in statuses if status.deployment.alias == conf.DEFAULT_ALIAS]


class _Stored:
    """What the database has about a user on some deployments.

    :ivar userids: of the user's identities, by alias.
    """

    def __init__(self, user: Any, aliases: Iterable[str]) -> None:
        self.user = user
        owned = {"user": user.pk, "deployment__in": list(aliases)}
        identities, tokens = AIRiskIdentity.objects.primary(), AIRiskToken.objects.primary()
        # A visitor who is not signed in has no key.
        is_saved = user.pk is not None
        self._identities = {each.deployment: each for each in identities.filter(**owned)} if is_saved else {}
        self._tokens = {each.deployment: each for each in tokens.filter(**owned)} if is_saved else {}
        self.userids = {alias: identity.userid for alias, identity in self._identities.items()}

    def token(self, alias: str) -> AIRiskToken | None:
        return self._tokens.get(alias)

    def label(self, alias: str, userid: str | None) -> str:
        """Return the label of the user's identity, if that is who they are: a site's ``USERID`` may say otherwise."""
        identity = self._identities.get(alias)
        return identity.label if identity is not None and identity.userid == userid else ""


class _ReadToken(StoredToken):
    """A token whose row and owner's ``userid`` are already known."""

    def __init__(self, deployment: Deployment, stored: _Stored, userid: str | None) -> None:
        super().__init__(deployment, stored.user)
        self._known = userid, stored.token(deployment.alias)

    def find_userid(self) -> str | None:
        return self._known[0]

    def find_row(self) -> AIRiskToken | None:
        return self._known[1]


def _status(options: Deployment, stored: _Stored, request: HttpRequest | None, next_url: str) -> ConnectionStatus:
    alias = options.alias
    connect_url, disconnect_url = (conf.page_url(name, alias, request) for name in ("connect", "disconnect"))
    right_host_url = None if request is None else hosts.right_host_url(request, options, next_url)
    userid, token, is_connected = userid_of(options, stored.user, stored.userids), stored.token(alias), False
    try:
        token = _ReadToken(options, stored, userid).check()
    except ConnectionRequired:
        pass
    except SettingUnavailable:
        # A token is not lost because its key cannot be fetched now.
        is_connected = token is not None and not token.needs_person
    else:
        is_connected = not token.needs_person
    label = stored.label(alias, userid)
    return ConnectionStatus(options, userid, token, is_connected, connect_url, disconnect_url, right_host_url, label)

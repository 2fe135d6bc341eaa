"""Try a deployment for real, step by step, and say of each fault what to do about it, and who can. Stores nothing."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import requests
from django.utils import timezone
from requests.exceptions import ProxyError, SSLError

from . import conf, flow, protocol, sealing
from .conf import Deployment
from .exceptions import AIRiskError, AIRiskRefused, AIRiskUnavailable
from .models import SKEW
from .protocol import Call, Calls, Reply, Secret, TokenGrant
from .transport import USER_AGENT, OAuthClient, look

#: A token that lives no longer than this is renewed all the time.
SHORT_LIFE: Final = timedelta(minutes=2)

_SITE: Final = "In this site's settings:"
_ADMINISTRATOR: Final = "An AIRisk administrator:"
_NETWORK: Final = "Whoever runs this server's network:"
_SUPPORT: Final = "AIRisk's support:"


class Finding(NamedTuple):
    """What one step showed. A fault has a ``remedy``: the one thing to do, and who can do it."""

    step: str
    said: str
    remedy: str = ""


class _Fault(Exception):
    def __init__(self, said: str, remedy: str) -> None:
        super().__init__(said)
        self.said, self.remedy = said, remedy


def diagnose(alias: str, user: Any = None) -> Iterator[Finding]:
    """Yield what each step shows, up to the first fault that keeps the next step from being tried.

    :param user: whose token to obtain; ``None``: the application's.
    :raises ImproperlyConfigured: there is no ``AIRISK_OAUTH`` to look at.
    """
    wrong = list(conf.problems_of(alias))
    for problem in wrong:
        yield Finding("settings", problem.message, f"{_SITE} {problem.hint}")
    if keys := sealing.problem():
        yield Finding("settings", keys, f"{_SITE} put good keys there, or take the setting out.")
    if wrong or keys:
        return
    examination = _Examination(conf.deployment(alias), user)
    for step in ("settings", "connection", "clock", "authorization", "token", "life", "call"):
        try:
            said = getattr(examination, step)()
        except _Fault as fault:
            yield Finding(step, fault.said, fault.remedy)
            if step not in ("clock", "life"):
                return
        else:
            yield Finding(step, said)
        if examination.is_over:
            return


class _Examination:
    """The steps, in their order; each returns what it found to be well."""

    def __init__(self, deployment: Deployment, user: Any) -> None:
        self.deployment = deployment
        self.user = user
        self.userid: str | None = None
        self.is_over = False
        self.date: str = ""
        self.code: Secret
        self.grant: TokenGrant

    def settings(self) -> str:
        if self.user is None:
            return "complete"
        try:
            self.userid = self.deployment.userid_of(self.user)
        except Exception as error:  # noqa: BLE001 - the site's own code
            raise _Fault(
                f"{self.deployment.userid} fails for {self.user} ({type(error).__name__}).",
                f"{_SITE} correct USERID, or mend the function that it names.",
            ) from None
        if self.userid is None:
            raise _Fault(
                f"{self.user} is nobody on AIRisk, as far as this site knows.",
                "Staff of this site: add an AIRisk identity for this user in the admin.",
            )
        return f"complete; {self.user} is {self.userid} on AIRisk"

    def connection(self) -> str:
        url = self.deployment.base_url
        began = time.monotonic()
        try:
            response = look(self.deployment, url, {"User-Agent": USER_AGENT}, self.deployment.timeout)
        except OSError as error:
            raise _unreachable(urlsplit(url).netloc, error) from None
        self.date = response.headers.get("Date", "")
        how = "TLS verified" if url.startswith("https:") else "plain HTTP"
        return f"{url} answered in {time.monotonic() - began:.2f} s, {how}"

    def clock(self) -> str:
        try:
            there = parsedate_to_datetime(self.date).astimezone(UTC)
        except ValueError:
            return "AIRisk does not tell its time"
        seconds = round((timezone.now() - there).total_seconds())
        if abs(seconds) > SKEW.total_seconds():
            way = "ahead of" if seconds > 0 else "behind"
            raise _Fault(
                f"This server's clock is {abs(seconds)} s {way} AIRisk's.",
                "Whoever runs this server: set its clock by NTP.",
            )
        return f"within {abs(seconds) + 1} s of AIRisk's"

    def authorization(self) -> str:
        state = flow.new_state()
        with OAuthClient(self.deployment) as client:
            try:
                self.code = client.run(flow.authorize(self.deployment, state=state, userid=self.userid))
            except protocol.PageShown:
                if not self.deployment.silent_renewal:
                    self.is_over = True
                    return "AIRisk shows a page, as SILENT_RENEWAL = False says; the rest takes a browser"
                raise self._page_fault() from None
            except AIRiskError as error:
                raise self._authorization_fault(error) from None
        return "a code came at once"

    def _page_fault(self) -> _Fault:
        """Look again at what came in place of a redirect to us, and say where it leads; its query may be secret."""
        remedy = (
            f"{_SITE} if Connect leads to a page of AIRisk's, set SILENT_RENEWAL to False. "
            f"{_NETWORK} if the page is a proxy's, let this server through."
        )
        with OAuthClient(self.deployment) as client:
            try:
                location = Secret(client.run(self._look()).location or "")
            except AIRiskError:
                location = Secret("")
        origin = protocol.origin_of(location)
        if origin is None:
            return _Fault("A page came where AIRisk redirects at once.", remedy)
        if origin[1] == urlsplit(self.deployment.redirect_uri).hostname:
            target = location.partition("?")[0]
            return _Fault(
                f"AIRisk redirects to {target!r}, and REDIRECT_URI is {self.deployment.redirect_uri!r}.",
                f"{_SITE} make REDIRECT_URI the same, letter for letter, here and on the APIUser.",
            )
        return _Fault(f"A redirect to {origin[1]} came where AIRisk redirects to REDIRECT_URI.", remedy)

    def _look(self) -> Calls[Reply]:
        url = flow.authorization_url(self.deployment, state=flow.new_state(), userid=self.userid)
        return (yield Call("GET", url))

    def token(self) -> str:
        with OAuthClient(self.deployment) as client:
            try:
                self.grant = client.run(flow.exchange(self.deployment, self.code, userid=self.userid))
            except AIRiskRefused as error:
                if error.status == 401 or "client_secret" in error.reason:
                    raise _Fault(
                        f"AIRisk does not accept CLIENT_SECRET. {error}",
                        f"{_SITE} set CLIENT_SECRET to the client_secret of the APIUser {self.deployment.client_id}.",
                    ) from None
                raise self._refused(error) from None
            except AIRiskError as error:
                raise _unusable(error) from None
        return "a token came for it" if self.userid is None else f"a token came for {self.userid}"

    def life(self) -> str:
        if self.grant.expires_at is None:
            return "AIRisk names no end: the token is used until it is refused"
        left = self.grant.expires_at - timezone.now()
        if left < SHORT_LIFE:
            raise _Fault(
                f"The token lives for {left.total_seconds():.0f} s only.",
                f"{_ADMINISTRATOR} let tokens of the APIUser {self.deployment.client_id} live longer.",
            )
        return f"the token ends in {round(left.total_seconds() / 60)} minutes"

    def call(self) -> str:
        path = "/api/GetModels" if self.userid is None else "/api/GetConversations"
        url = self.deployment.base_url + path
        headers = {
            "Accept": "application/json",
            "Authorization": Secret(f"Bearer {self.grant.access_token}"),
            "User-Agent": USER_AGENT,
        }
        try:
            response = look(self.deployment, url, headers, self.deployment.api_timeout)
        except requests.RequestException as error:
            failure = type(error).__name__
        else:
            return self._judged(path, response)
        raise _Fault(f"GET {path} got no answer ({failure}).", f"{_SUPPORT} ask why.") from None

    def _judged(self, path: str, response: requests.Response) -> str:
        status = response.status_code
        if status == 401:
            raise _Fault(f"AIRisk refuses the token that it has just given at GET {path}.", f"{_SUPPORT} ask why.")
        if status >= 500:
            raise _Fault(f"GET {path} was answered with status {status}.", f"{_SUPPORT} ask why, or try later.")
        if "html" in response.headers.get("Content-Type", "").lower():
            raise _Fault(f"GET {path} was answered with a page.", f"{_NETWORK} let this server through to AIRisk.")
        return f"GET {path} was answered with status {status}"

    def _authorization_fault(self, error: AIRiskError) -> _Fault:
        if not isinstance(error, AIRiskRefused):
            return _unusable(error)
        deployment = self.deployment
        if error.status in (404, 405):
            return _Fault(
                f"There is no authorization endpoint at {deployment.authorize_url}. {error}",
                f"{_SITE} correct BASE_URL, or AUTHORIZE_PATH.",
            )
        if not _is_airisks_own(error):
            return self._refused(error)
        if error.status == 401 or "client_id" in error.reason:
            return _Fault(
                f"AIRisk does not know CLIENT_ID {deployment.client_id}. {error}",
                f"{_SITE} set CLIENT_ID to the client_id of an APIUser of this deployment.",
            )
        if "redirect_uri" in error.reason:
            return _Fault(
                f"AIRisk does not know REDIRECT_URI {deployment.redirect_uri}. {error}",
                f"{_ADMINISTRATOR} add exactly this to the redirect URIs of the APIUser {deployment.client_id}.",
            )
        if "userid" in error.reason:
            return _Fault(
                f"AIRisk has no ApplicationUser {self.userid}. {error}",
                "Staff of this site: correct the user's AIRisk identity in the admin.",
            )
        return self._refused(error)

    def _refused(self, error: AIRiskRefused) -> _Fault:
        who = f"the APIUser {self.deployment.client_id}"
        if _is_airisks_own(error):
            return _Fault(str(error), f"{_ADMINISTRATOR} look up why {who} is refused.")
        return _Fault(
            f"{error}, without a reason, which AIRisk gives.",
            f"{_NETWORK} if a proxy answers in AIRisk's place, let this server through. "
            f"{_ADMINISTRATOR} else, look up why {who} is refused.",
        )


def _unreachable(host: str, error: OSError) -> _Fault:
    words = str(error)
    if isinstance(error, ProxyError):
        return _Fault(f"The proxy does not lead to {host}.", f"{_NETWORK} let the proxy pass, or name another one.")
    if isinstance(error, SSLError):
        why = re.search(r"verify failed: ([^(]+?)\.? \(_ssl", words)
        return _Fault(
            f"{host} does not prove who it is: {why[1] if why else 'it speaks no TLS'}.",
            f"{_NETWORK} if a proxy opens TLS, name its CA bundle in REQUESTS_CA_BUNDLE. {_SUPPORT} else, mend it.",
        )
    if "resolve" in words:
        return _Fault(f"There is no host {host}.", f"{_SITE} correct BASE_URL.")
    if "CA certificate bundle" in words:
        return _Fault("The CA bundle is not there.", f"{_NETWORK} correct REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE.")
    return _Fault(f"{host} cannot be reached ({type(error).__name__}).", f"{_NETWORK} let this server reach {host}.")


def _is_airisks_own(error: AIRiskRefused) -> bool:
    """Tell AIRisk, which gives its reasons, from a proxy in its place."""
    return bool(error.reason or error.trace_id)


def _unusable(error: AIRiskError) -> _Fault:
    if isinstance(error, AIRiskUnavailable):
        return _Fault(str(error), f"{_SUPPORT} ask why, or try later.")
    return _Fault(str(error), f"{_NETWORK} if a proxy answers in AIRisk's place, let this server through to AIRisk.")

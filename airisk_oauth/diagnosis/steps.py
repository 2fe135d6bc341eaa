"""Try a deployment for real, step by step, and tell for each fault what to do about it, and who can. Stores nothing."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import urljoin, urlsplit

from django.conf import settings
from django.utils import timezone

from .. import conf, sealing
from ..connecting import impersonation
from ..database.expiry import SKEW
from ..exceptions import AIRiskError, AIRiskInvalidResponse, AIRiskRefused
from ..oauth.authorization import PageShown
from ..oauth.calls import USER_AGENT
from ..oauth.code_flow import authorize, exchange, new_state
from ..oauth.deployment import Deployment, origin_of
from ..oauth.messages import Secret, TokenGrant
from ..oauth.transport import OAuthClient
from . import codes, ground
from .faults import ADMINISTRATOR, NETWORK, SERVER, SITE, SUPPORT, Fault, Finding, plain, unusable
from .look import Look, look, unreachable
from .refusals import authorization_refused, look_again, token_refused

#: A token that lives no longer than this is renewed all the time.
SHORT_LIFE: Final = timedelta(minutes=2)

#: The call that the last step makes. Only AIRisk's public client tells of it.
AGENTS: Final = "/api/Chat/ListAgents"

_STEPS: Final = ("database", "user", "callback", "connection", "clock", "authorization", "token", "life", "call")
#: Steps whose fault keeps no other step from being tried.
_ASIDE: Final = frozenset({"callback", "clock", "life", "call"})


def diagnose(alias: str, user: Any = None) -> Iterator[Finding]:
    """Yield what each step shows, up to the first fault that keeps the next step from being tried.

    :param user: whose token to obtain; ``None``: the application's.
    :raises ImproperlyConfigured: there is no ``AIRISK_OAUTH`` to look at.
    """
    wrong = list(conf.problems_of(alias))
    for problem in wrong:
        yield Finding.of("settings", problem.message, f"{SITE} {problem.hint}")
    of_site = [
        (sealing.problem(), "put good keys there, or take the setting out."),
        (impersonation.problem(), "name a function (request) -> bool, or take the setting out."),
        (None if settings.USE_TZ else "USE_TZ is not True.", "set it to True."),
    ]
    found = [(words, remedy) for words, remedy in of_site if words]
    for words, remedy in found:
        yield Finding.of("settings", words, f"{SITE} {remedy}")
    if wrong or found:
        return
    yield Finding.of("settings", "complete")
    examination = _Examination(conf.deployment(alias), user)
    for step in _STEPS:
        try:
            said = getattr(examination, f"try_{step}")()
        except Fault as fault:
            yield Finding.of(step, fault.said, fault.remedy)
            if step not in _ASIDE:
                return
        else:
            if said:
                yield Finding.of(step, said)
        if examination.is_over:
            return
    yield from codes.findings(examination.deployment, examination.userid)


class _Examination:
    """The steps, in their order; each returns what it found to be well, or an empty string for nothing to tell."""

    def __init__(self, deployment: Deployment, user: Any) -> None:
        self.deployment = deployment
        self.user = user
        self.userid: str | None = None
        self.is_over = False
        self.callback_fits = False
        self.clock_is_right = False
        self.date = ""
        self.asked = self.answered = timezone.now()
        self.code: Secret
        self.grant: TokenGrant

    def try_database(self) -> str:
        return ground.database()

    def try_user(self) -> str:
        if self.user is None:
            return ""
        self.userid = ground.userid_of(self.deployment, self.user)
        return f"{self.user} is {self.userid} on AIRisk"

    def try_callback(self) -> str:
        said = ground.callback(self.deployment)
        self.callback_fits = True
        return said

    def try_connection(self) -> str:
        url, timeout = self.deployment.base_url, self.deployment.timeout
        began, self.asked = time.monotonic(), timezone.now()
        try:
            self.date = look(self.deployment, url, timeout, {"User-Agent": USER_AGENT}).headers.get("Date", "")
        except OSError as error:
            raise unreachable(urlsplit(url).netloc, error, timeout) from None
        self.answered = timezone.now()
        how = "TLS verified" if url.startswith("https:") else "plain HTTP"
        return f"{url} answered in {time.monotonic() - began:.2f} s, {how}"

    def try_clock(self) -> str:
        there = _moment(self.date)
        if there is None:
            return "AIRisk does not tell its time"
        # Its answer took some time, and was dated at some moment of that.
        ahead, behind = self.asked - there, there - self.answered
        if max(ahead, behind) > SKEW:
            way, off = ("ahead of", ahead) if ahead > behind else ("behind", behind)
            raise Fault(
                f"This server's clock is {off.total_seconds():.0f} s {way} AIRisk's.", f"{SERVER} set its clock by NTP."
            )
        self.clock_is_right = True
        return f"within {SKEW.total_seconds():.0f} s of AIRisk's"

    def try_authorization(self) -> str:
        deployment, began = self.deployment, time.monotonic()
        with OAuthClient(deployment) as client:
            try:
                self.code = client.run(authorize, deployment, state=new_state(), userid=self.userid)
            except PageShown:
                if not deployment.silent_renewal:
                    self.is_over = True
                    return "AIRisk shows a page, as SILENT_RENEWAL = False says; the rest takes a browser" + self._gap()
                raise self._page_fault(client) from None
            except AIRiskRefused as error:
                fits = self.callback_fits
                raise authorization_refused(deployment, self.userid, error, callback_fits=fits) from None
            except AIRiskError as error:
                raise unusable(error, deployment, time.monotonic() - began) from None
        return "a code came at once"

    def _gap(self) -> str:
        if self.deployment.code_from != "server":
            return ""
        return (
            '. Whoever connects does so by the browser\'s code: CODE_FROM = "server" cannot help where there is a page'
        )

    def _page_fault(self, client: OAuthClient) -> Fault:
        """Look again at what came in place of a redirect to us, and say where it leads; its query may be secret."""
        remedy = (
            f"{SITE} if Connect leads to a page of AIRisk's, set SILENT_RENEWAL to False. "
            f"{NETWORK} if the page is a proxy's, let this server through. {SITE} if it is neither's, correct BASE_URL."
        )
        reply = look_again(client, self.deployment, self.userid)
        location = reply.location if reply is not None and 300 <= reply.status < 400 else None
        if not location:
            return Fault("A page came where AIRisk redirects at once.", remedy)
        try:
            target = urljoin(self.deployment.authorize_url, location).partition("?")[0]
        except ValueError:
            target = location.partition("?")[0]
        origin, redirect_uri = origin_of(target), self.deployment.redirect_uri
        if origin and origin != self.deployment.origin and origin[1] == urlsplit(redirect_uri).hostname:
            return Fault(
                f"AIRisk redirects to {plain(target)!r}, and REDIRECT_URI is {redirect_uri!r}.",
                f"{SITE} make REDIRECT_URI the same, letter for letter, here and on the APIUser.",
            )
        where = target if origin is None or origin == self.deployment.origin else origin[1]
        return Fault(f"A redirect to {plain(where)} came where AIRisk redirects to REDIRECT_URI.", remedy)

    def try_token(self) -> str:
        deployment, began = self.deployment, time.monotonic()
        with OAuthClient(deployment) as client:
            try:
                self.grant = client.run(exchange, deployment, self.code, userid=self.userid)
            except AIRiskRefused as error:
                raise token_refused(deployment, self.userid, error) from None
            except AIRiskInvalidResponse as error:
                if "has an expiry" in str(error) and not self.clock_is_right:
                    raise Fault(str(error), f"{SERVER} first see that its clock is right.") from None
                raise unusable(error, deployment, time.monotonic() - began) from None
            except AIRiskError as error:
                raise unusable(error, deployment, time.monotonic() - began) from None
        return "a token came for it" if self.userid is None else f"a token came for {self.userid}"

    def try_life(self) -> str:
        if self.grant.expires_at is None:
            return "AIRisk names no end: the token is used until it is refused"
        left = self.grant.expires_at - timezone.now()
        if left < SHORT_LIFE:
            raise Fault(
                f"The token lives for {left.total_seconds():.0f} s only.",
                f"{ADMINISTRATOR} let tokens of the APIUser {self.deployment.client_id} live longer.",
            )
        return f"the token ends in {round(left.total_seconds() / 60)} minutes"

    def try_call(self) -> str:
        headers = {
            "Accept": "application/json",
            "Authorization": Secret(f"Bearer {self.grant.access_token}"),
            "User-Agent": USER_AGENT,
        }
        timeout, began = self.deployment.api_timeout, time.monotonic()
        try:
            answer = look(self.deployment, self.deployment.base_url + AGENTS, timeout, headers, with_body=True)
        except OSError as error:
            failure = type(error).__name__
        else:
            return self._judged(answer)
        if time.monotonic() - began >= 0.95 * timeout[1]:
            failure = f"within {timeout[1]:g} s: AIRisk is slow, or API_TIMEOUT too short"
        raise Fault(f"GET {AGENTS} got no answer ({failure}).", f"{SUPPORT} ask why, or try later.")

    def _judged(self, answer: Look) -> str:
        status, what = answer.status, f"GET {AGENTS} was answered"
        if status == 429 or status >= 500:
            raise Fault(f"{what} with status {status}.", f"{SUPPORT} ask why, or try later.")
        if "html" in answer.headers.get("Content-Type", "").lower():
            raise Fault(f"{what} with a page and status {status}.", f"{NETWORK} let this server through to AIRisk.")
        if self.userid is None:
            # It is a user's call. What the application may call is not documented.
            return f"{what} with status {status}; which calls are for the application's own token is not known"
        if status == 401:
            raise Fault(f"AIRisk refuses the token that it has just given at GET {AGENTS}.", f"{SUPPORT} ask why.")
        if status == 403:
            raise Fault(
                f"{what} with status 403: {self.userid} lacks a permission for it.",
                f"{ADMINISTRATOR} look at this user's agents, role, chat settings and company.",
            )
        if status != 200:
            raise Fault(f"{what} with status {status}.", f"{SUPPORT} ask whether this deployment has this call.")
        return f"{what} with status 200{self._counted(answer.body)}"

    def _counted(self, body: bytes | None) -> str:
        try:
            agents = json.loads(body or b"-")
        except (ValueError, RecursionError):
            agents = None
        if not isinstance(agents, list):
            return ""
        if not agents:
            return f": {self.userid} has no agents, and so nobody to chat with; an AIRisk administrator gives them"
        return f": {self.userid} has {len(agents)} agent{'s' if len(agents) > 1 else ''}"


def _moment(date: str) -> datetime | None:
    """Read an HTTP date; ``None`` for what is none, or is beyond the calendar."""
    try:
        moment = parsedate_to_datetime(date)
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, TypeError, OverflowError):
        return None

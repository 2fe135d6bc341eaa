"""Tests a deployment for real, step by step; tells how to fix each problem, and who can. Stores nothing."""

import time
from collections.abc import Iterator
from datetime import timedelta
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
from ..oauth.messages import Secret, TokenGrant, http_date
from ..oauth.transport import OAuthClient
from . import api_call, codes, site
from .faults import ADMINISTRATOR, NETWORK, SERVER, SITE, Fault, Finding, no_usable_answer, plain
from .look import look, unreachable
from .refusals import authorization_refused, request_authorization, token_refused

#: A token with a shorter lifetime would be renewed all the time.
SHORT_LIFETIME: Final = timedelta(minutes=2)

_STEPS: Final = ("database", "user", "callback", "connection", "clock", "authorization", "token", "life", "call")
#: Steps whose faults do not stop the steps after them.
_INDEPENDENT: Final = frozenset({"callback", "clock", "life", "call"})


def diagnose(alias: str, user: Any = None) -> Iterator[Finding]:
    """Yield what each step found, up to the first fault that makes the next step impossible.

    :param user: whose token to request; ``None``: the application's.
    :raises ImproperlyConfigured: ``AIRISK_OAUTH`` does not exist, or has no such deployment.
    """
    faults = list(_settings_faults(alias))
    yield from faults
    if faults:
        return
    yield Finding.of("settings", "complete")
    steps = _Steps(conf.deployment(alias), user)
    for name in _STEPS:
        try:
            message = getattr(steps, f"check_{name}")()
        except Fault as fault:
            yield Finding.of(name, fault.message, fault.remedy)
            if name not in _INDEPENDENT:
                return
        else:
            if message:
                yield Finding.of(name, message)
        if steps.need_a_browser:
            return
    yield from codes.findings(steps.deployment, steps.userid)


def _settings_faults(alias: str) -> Iterator[Finding]:
    for problem in conf.problems_of(alias):
        yield Finding.of("settings", problem.message, f"{SITE} {problem.hint}")
    site_settings = [
        (sealing.KEYS.failure(), "Fix what makes the function fail; it may be the server that it asks."),
        (sealing.problem(), "Put valid keys there, or remove the setting."),
        (impersonation.problem(), "Name a function (request) -> bool, or remove the setting."),
        (None if settings.USE_TZ else "USE_TZ is not True.", "Set it to True."),
    ]
    for message, remedy in site_settings:
        if message:
            yield Finding.of("settings", message, f"{SITE} {remedy}")


class _Steps:
    """The steps, in order. Each returns what it found to be in order, or an empty string if there is nothing to say.

    :ivar need_a_browser: the steps that are left cannot be tested from here.
    """

    def __init__(self, deployment: Deployment, user: Any) -> None:
        self.deployment = deployment
        self.user = user
        self.userid: str | None = None
        self.need_a_browser = False
        self.is_our_callback = False
        self.is_clock_right = False
        self.date_header = ""
        self.requested_at = self.answered_at = timezone.now()
        self.code: Secret
        self.grant: TokenGrant

    def check_database(self) -> str:
        return site.check_tables()

    def check_user(self) -> str:
        if self.user is None:
            return ""
        self.userid = site.userid_of(self.deployment, self.user)
        return f"{self.user} is {self.userid} on AIRisk"

    def check_callback(self) -> str:
        message = site.check_callback(self.deployment)
        self.is_our_callback = True
        return message

    def check_connection(self) -> str:
        url, timeout = self.deployment.base_url, self.deployment.timeout
        began, self.requested_at = time.monotonic(), timezone.now()
        try:
            headers = look(self.deployment, url, timeout, {"User-Agent": USER_AGENT}).headers
        except OSError as error:
            raise unreachable(urlsplit(url).netloc, error, timeout) from None
        self.date_header, self.answered_at = headers.get("Date", ""), timezone.now()
        how = "TLS verified" if url.startswith("https:") else "plain HTTP"
        return f"{url} answered in {time.monotonic() - began:.2f} s, {how}"

    def check_clock(self) -> str:
        airisks = http_date(self.date_header)
        if airisks is None:
            return "not compared, because AIRisk's answer has no valid date"
        # AIRisk dated its answer at some time between request and answer.
        ahead, behind = self.requested_at - airisks, airisks - self.answered_at
        if max(ahead, behind) > SKEW:
            way, off = ("ahead of", ahead) if ahead > behind else ("behind", behind)
            raise Fault(
                f"This server's clock is {off.total_seconds():.0f} s {way} AIRisk's.",
                f"{SERVER} Set the clock with NTP.",
            )
        self.is_clock_right = True
        return f"within {SKEW.total_seconds():.0f} s of AIRisk's"

    def check_authorization(self) -> str:
        deployment, began = self.deployment, time.monotonic()
        with OAuthClient(deployment) as client:
            try:
                self.code = client.run(authorize, deployment, state=new_state(), userid=self.userid)
            except PageShown:
                if not deployment.silent_renewal:
                    self.need_a_browser = True
                    return self._expected_page()
                raise self._page_fault(client) from None
            except AIRiskRefused as error:
                raise authorization_refused(
                    deployment, self.userid, error, is_our_callback=self.is_our_callback
                ) from None
            except AIRiskError as error:
                raise no_usable_answer(error, deployment, time.monotonic() - began) from None
        return "AIRisk issued a code at once"

    def _expected_page(self) -> str:
        message = "AIRisk shows a page, as expected with SILENT_RENEWAL = False; testing the rest requires a browser"
        if self.deployment.code_from == "server":
            message += '. CODE_FROM = "server" has no effect here: where a page is shown, only the browser gets a code'
        return message

    def _page_fault(self, client: OAuthClient) -> Fault:
        """Repeat the request that was not redirected to us, and say where it leads; the query may be secret."""
        remedy = (
            f"{SITE} If Connect leads to a page of AIRisk, set SILENT_RENEWAL to False. "
            f"{NETWORK} If the page is a proxy's, let this server through to AIRisk. "
            f"{SITE} If it is neither, correct BASE_URL."
        )
        reply = request_authorization(client, self.deployment, self.userid)
        location = reply.location if reply is not None and 300 <= reply.status < 400 else None
        if not location:
            return Fault("The authorization endpoint showed a page instead of redirecting at once.", remedy)
        try:
            target = urljoin(self.deployment.authorize_url, location).partition("?")[0]
        except ValueError:
            target = location.partition("?")[0]
        origin, redirect_uri = origin_of(target), self.deployment.redirect_uri
        if origin and origin != self.deployment.origin and origin[1] == urlsplit(redirect_uri).hostname:
            return Fault(
                f"AIRisk redirects to {plain(target)!r}, but REDIRECT_URI is {redirect_uri!r}.",
                f"{SITE} Make REDIRECT_URI the same here and on the APIUser, character for character.",
            )
        where = target if origin is None or origin == self.deployment.origin else origin[1]
        return Fault(f"The authorization endpoint redirects to {plain(where)} instead of REDIRECT_URI.", remedy)

    def check_token(self) -> str:
        deployment, began = self.deployment, time.monotonic()
        with OAuthClient(deployment) as client:
            try:
                self.grant = client.run(exchange, deployment, self.code, userid=self.userid)
            except AIRiskRefused as error:
                raise token_refused(deployment, self.userid, error) from None
            except AIRiskError as error:
                is_expiry = isinstance(error, AIRiskInvalidResponse) and "has an expiry" in str(error)
                if is_expiry and not self.is_clock_right:
                    raise Fault(str(error), f"{SERVER} First make sure that this server's clock is right.") from None
                raise no_usable_answer(error, deployment, time.monotonic() - began) from None
        return "AIRisk issued a token" if self.userid is None else f"AIRisk issued a token for {self.userid}"

    def check_life(self) -> str:
        if self.grant.expires_at is None:
            return "AIRisk named no expiry, so the token is used until it is refused"
        left = self.grant.expires_at - timezone.now()
        if left < SHORT_LIFETIME:
            raise Fault(
                f"The token is valid for only {left.total_seconds():.0f} s.",
                f"{ADMINISTRATOR} Give the tokens of the APIUser {self.deployment.client_id} a longer lifetime.",
            )
        return f"the token expires in {round(left.total_seconds() / 60)} minutes"

    def check_call(self) -> str:
        return api_call.check_call(self.deployment, self.grant, self.userid)

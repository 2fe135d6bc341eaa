"""What an authorization code of a deployment is good for, and what that means for ``CODE_FROM``.

AIRisk's public client trades a code without naming a user, and gets a token of the user that the authorization URL
named. Where a deployment does not compare the two, whoever edits ``userid=`` in the address bar is connected as
somebody else.
Whatever tokens come here are thrown away.
"""

import uuid
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final
from urllib.parse import urljoin

from .. import flow
from ..conf import Deployment
from ..exceptions import AIRiskError, AIRiskRefused
from ..models import AIRiskIdentity
from ..protocol import Calls, PageShown
from ..transport import OAuthClient
from .faults import SITE, SUPPORT, Finding

STEP: Final = "codes"
_TRADED: Final = "traded"
_REFUSED: Final = "refused"


def findings(deployment: Deployment, userid: str | None) -> Iterator[Finding]:
    """Yield what codes for this user, or for the application, turn out to be good for."""
    whose = "the application" if userid is None else userid
    trials = _Trials(deployment, userid)
    found = {name: trials.outcome(calls) for name, calls in trials.all()}
    unbound = [name for name in (trials.OTHER, trials.NOBODY) if found.get(name) == _TRADED]
    if unbound:
        yield _unbound(deployment, whose, unbound)
    for name, said in ((trials.AGAIN, "works a second time"), (trials.ADDRESS, "works with another redirect URI")):
        if found[name] == _TRADED:
            yield _loose(deployment, f"A code for {whose} {said}.")
    kept = [name for name, outcome in found.items() if outcome == _REFUSED]
    if kept:
        yield Finding.of(STEP, f"a code for {whose} is refused {_listed(kept)}{_hint(deployment, userid, unbound)}")
    for name, outcome in found.items():
        if outcome not in (_TRADED, _REFUSED):
            yield Finding.of(STEP, f"whether a code for {whose} is refused {name} is not known: {outcome}")


def _unbound(deployment: Deployment, whose: str, how: list[str]) -> Finding:
    said = f"A code for {whose} was traded {_listed(how)}: this deployment's codes carry their user."
    if deployment.code_from == "server":
        return Finding.of(STEP, f'{said} CODE_FROM = "server" is what this site needs, and has.')
    return Finding.of(
        STEP,
        f"{said} Whoever edits userid= in the address bar while connecting is connected as somebody else.",
        f'{SITE} set CODE_FROM to "server".',
    )


def _loose(deployment: Deployment, said: str) -> Finding:
    if deployment.code_from == "server":
        return Finding.of(STEP, f'{said} This site trades no code that came through a browser: CODE_FROM = "server".')
    return Finding.of(
        STEP,
        said,
        f"{SUPPORT} have codes work once, and only with what they were given for. "
        f'{SITE} until then, set CODE_FROM to "server".',
    )


def _hint(deployment: Deployment, userid: str | None, unbound: list[str]) -> str:
    if userid is None:
        return "; for a user's codes, run this with --user"
    return '; CODE_FROM = "browser" is safe here' if not unbound and deployment.code_from == "browser" else ""


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


class _Trials:
    """Token requests that AIRisk should refuse, each for a code of its own."""

    OTHER: Final = "with another userid"
    NOBODY: Final = "without a userid"
    AGAIN: Final = "a second time"
    ADDRESS: Final = "with another redirect URI"

    def __init__(self, deployment: Deployment, userid: str | None) -> None:
        self.deployment, self.userid = deployment, userid

    def all(self) -> Iterator[tuple[str, Calls[str]]]:
        yield self.OTHER, self._trade(self.deployment, self._another_userid())
        if self.userid is not None:
            yield self.NOBODY, self._trade(self.deployment, None)
        yield self.AGAIN, self._trade(self.deployment, self.userid, again=True)
        elsewhere = urljoin(self.deployment.redirect_uri, f"/{uuid.uuid4()}/")
        yield self.ADDRESS, self._trade(replace(self.deployment, redirect_uri=elsewhere), self.userid)

    def outcome(self, calls: Calls[str]) -> str:
        """Return what became of a trial, or why that is not known."""
        try:
            with OAuthClient(self.deployment) as client:
                return client.run(calls)
        except AIRiskError as error:
            return f"{error}"
        except PageShown:
            return "AIRisk showed a page."

    def _trade(self, with_what: Deployment, userid: str | None, *, again: bool = False) -> Calls[str]:
        code = yield from flow.authorize(self.deployment, state=flow.new_state(), userid=self.userid)
        if again:
            yield from flow.exchange(with_what, code, userid=userid)
        try:
            yield from flow.exchange(with_what, code, userid=userid)
        except AIRiskRefused:
            return _REFUSED
        return _TRADED

    def _another_userid(self) -> str:
        """Return one that AIRisk knows, if this site does; else one that is made up, as AIRisk's own look."""
        others: Any = AIRiskIdentity.objects.primary().filter(deployment=self.deployment.alias)
        known = others.exclude(userid=self.userid or "").order_by("pk").values_list("userid", flat=True).first()
        return str(known or uuid.uuid4())

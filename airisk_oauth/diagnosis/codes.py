"""What an authorization code of a deployment is good for, and what that means for ``CODE_FROM``.

AIRisk's public client trades a code without naming a user, and gets a token of the user that the authorization URL
named. Where a deployment does not compare the two, whoever edits ``userid=`` in the address bar is connected as
somebody else.
Whatever tokens come here are thrown away.
"""

import uuid
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final
from urllib.parse import urljoin

from ..exceptions import AIRiskError, AIRiskRefused
from ..models import AIRiskIdentity
from ..oauth.authorization import PageShown
from ..oauth.calls import Send
from ..oauth.code_flow import authorize, exchange, new_state
from ..oauth.deployment import Deployment
from ..oauth.transport import OAuthClient
from .faults import SITE, SUPPORT, Finding

#: A flow that says what became of it.
Flow = Callable[[Send], Coroutine[Any, Any, str]]

STEP: Final = "codes"
_TRADED: Final = "traded"
_REFUSED: Final = "refused"


def findings(deployment: Deployment, userid: str | None) -> Iterator[Finding]:
    """Yield what codes for this user, or for the application, turn out to be good for."""
    whose = "the application" if userid is None else userid
    trials = _Trials(deployment, userid)
    found = {name: trials.outcome(flow) for name, flow in trials.all()}
    traded = [name for name, outcome in found.items() if outcome == _TRADED]
    kept = [name for name, outcome in found.items() if outcome == _REFUSED]
    if unbound := [name for name in traded if name in trials.binding]:
        yield _unbound(deployment, whose, unbound)
    for name in traded:
        if name not in trials.binding:
            yield _loose(deployment, f"A code for {whose} works {name}.")
    if kept:
        hint = trials.hint if len(kept) == len(found) else ""
        yield Finding.of(STEP, f"a code for {whose} is refused {_listed(kept)}{hint}")
    for name in (each for each in found if each not in (*traded, *kept)):
        yield Finding.of(STEP, f"whether a code for {whose} is refused {name} is not known: {found[name]}")


def _unbound(deployment: Deployment, whose: str, how: list[str]) -> Finding:
    said = f"A code for {whose} was traded {_listed(how)}: userids are not compared, and a code may carry its user."
    if deployment.code_from == "server":
        return Finding.of(STEP, f'{said} CODE_FROM = "server" is what this site needs, and has.')
    return Finding.of(
        STEP,
        f"{said} Whoever edits userid= in the address bar while connecting may be connected as somebody else.",
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


def _listed(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


class _Trials:
    """Token requests that AIRisk should refuse, each for a code of its own."""

    def __init__(self, deployment: Deployment, userid: str | None) -> None:
        self.deployment, self.userid = deployment, userid
        others: Any = AIRiskIdentity.objects.primary().filter(deployment=deployment.alias).order_by("pk")
        #: One that AIRisk knows, if this site has one; else one that is made up, and refused if only for that.
        self.other: str | None = others.exclude(userid=userid or "").values_list("userid", flat=True).first()
        self.binding = (f"with {'a made-up' if self.other is None else 'another'} userid", "without a userid")

    @property
    def hint(self) -> str:
        """What follows from it if all were refused."""
        if self.userid is None:
            return "; for a user's codes, run this with --user"
        if self.deployment.code_from == "server":
            return ""
        return '; CODE_FROM = "browser" is safe' + (" as far as that can tell" if self.other is None else "")

    def all(self) -> Iterator[tuple[str, Flow]]:
        yield self.binding[0], partial(self._trade, self.deployment, self.other or str(uuid.uuid4()))
        if self.userid is not None:
            yield self.binding[1], partial(self._trade, self.deployment, None)
        yield "a second time", partial(self._trade, self.deployment, self.userid, again=True)
        elsewhere = urljoin(self.deployment.redirect_uri, f"/{uuid.uuid4()}/")
        yield (
            "with another redirect URI",
            partial(self._trade, replace(self.deployment, redirect_uri=elsewhere), self.userid),
        )

    def outcome(self, flow: Flow) -> str:
        """Return what became of a trial, or why that is not known."""
        try:
            with OAuthClient(self.deployment) as client:
                return client.run(flow)
        except AIRiskError as error:
            return f"{error}"
        except PageShown:
            return "AIRisk showed a page."

    async def _trade(self, with_what: Deployment, userid: str | None, send: Send, *, again: bool = False) -> str:
        code = await authorize(send, self.deployment, state=new_state(), userid=self.userid)
        if again:
            await exchange(send, with_what, code, userid=userid)
        try:
            await exchange(send, with_what, code, userid=userid)
        except AIRiskRefused:
            return _REFUSED
        return _TRADED

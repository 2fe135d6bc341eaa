"""What a deployment's authorization codes can be used for, and what that means for ``CODE_FROM``.

AIRisk's public client exchanges a code without naming a user, and gets a token of the user that the authorization URL
named. If a deployment does not compare the two, whoever edits ``userid=`` in the address bar is connected as someone
else. All tokens that are issued here are thrown away.
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
from .faults import SITE, SUPPORT, Finding, described

#: A flow that returns its outcome.
Flow = Callable[[Send], Coroutine[Any, Any, str]]

STEP: Final = "codes"
_ACCEPTED: Final = "accepted"
_REFUSED: Final = "refused"


def findings(deployment: Deployment, userid: str | None) -> Iterator[Finding]:
    """Yield what codes can be used for.

    :param userid: whose codes to try; ``None``: the application's.
    """
    whose = "the application" if userid is None else userid
    trials = _Trials(deployment, userid)
    outcomes = {name: trials.outcome(flow) for name, flow in trials.all()}
    accepted = [name for name, outcome in outcomes.items() if outcome == _ACCEPTED]
    refused = [name for name, outcome in outcomes.items() if outcome == _REFUSED]
    if with_wrong_userid := [name for name in accepted if name in trials.with_wrong_userid]:
        yield _userids_not_compared(deployment, whose, with_wrong_userid)
    for name in accepted:
        if name not in trials.with_wrong_userid:
            yield _too_permissive(deployment, f"A code for {whose} works {name}.")
    if refused:
        conclusion = trials.conclusion if len(refused) == len(outcomes) else ""
        yield Finding.of(STEP, f"a code for {whose} is refused {_enumerated(refused)}{conclusion}")
    for name in (each for each in outcomes if each not in (*accepted, *refused)):
        yield Finding.of(STEP, f"it is not known whether a code for {whose} is refused {name}: {outcomes[name]}")


def _userids_not_compared(deployment: Deployment, whose: str, how: list[str]) -> Finding:
    message = (
        f"A code for {whose} was exchanged {_enumerated(how)}: AIRisk does not compare userids, and the token may "
        "belong to the user that the authorization URL named."
    )
    if deployment.code_from == "server":
        return Finding.of(STEP, f'{message} This site needs CODE_FROM = "server", and has it.')
    return Finding.of(
        STEP,
        f"{message} Whoever edits userid= in the address bar while connecting may be connected as someone else.",
        f'{SITE} Set CODE_FROM to "server".',
    )


def _too_permissive(deployment: Deployment, message: str) -> Finding:
    if deployment.code_from == "server":
        safe = 'With CODE_FROM = "server" this site exchanges no code that came through a browser.'
        return Finding.of(STEP, f"{message} {safe}")
    return Finding.of(
        STEP,
        message,
        f"{SUPPORT} Ask them to let each code work only once, and only with what it was issued for. "
        f'{SITE} Until then, set CODE_FROM to "server".',
    )


def _enumerated(names: list[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


class _Trials:
    """Token requests that AIRisk should refuse, each with a code of its own."""

    def __init__(self, deployment: Deployment, userid: str | None) -> None:
        self.deployment, self.userid = deployment, userid
        identities: Any = AIRiskIdentity.objects.primary().filter(deployment=deployment.alias).order_by("pk")
        #: A userid that AIRisk knows, if this site has one. A made-up one may be refused only because it is unknown.
        self.other = identities.exclude(userid=userid or "").values_list("userid", flat=True).first()
        self.with_wrong_userid = (
            f"with {'a made-up' if self.other is None else 'another'} userid",
            "without a userid",
        )

    @property
    def conclusion(self) -> str:
        """What follows if AIRisk refused them all."""
        if self.userid is None:
            return "; to test the codes of a user, add --user NAME"
        if self.deployment.code_from == "server":
            return ""
        return '; CODE_FROM = "browser" is safe' + (" as far as this test can tell" if self.other is None else "")

    def all(self) -> Iterator[tuple[str, Flow]]:
        another, none = self.with_wrong_userid
        yield another, partial(self._exchange, self.deployment, self.other or str(uuid.uuid4()))
        if self.userid is not None:
            yield none, partial(self._exchange, self.deployment, None)
        yield "a second time", partial(self._exchange, self.deployment, self.userid, again=True)
        elsewhere = urljoin(self.deployment.redirect_uri, f"/{uuid.uuid4()}/")
        yield (
            "with another redirect URI",
            partial(self._exchange, replace(self.deployment, redirect_uri=elsewhere), self.userid),
        )

    def outcome(self, flow: Flow) -> str:
        """Return the outcome of a trial, or why there is none."""
        try:
            with OAuthClient(self.deployment) as client:
                return client.run(flow)
        except AIRiskError as error:
            return described(error)
        except PageShown:
            return "AIRisk showed a page."

    async def _exchange(self, changed: Deployment, userid: str | None, send: Send, *, again: bool = False) -> str:
        code = await authorize(send, self.deployment, state=new_state(), userid=self.userid)
        if again:
            await exchange(send, changed, code, userid=userid)
        try:
            await exchange(send, changed, code, userid=userid)
        except AIRiskRefused:
            return _REFUSED
        return _ACCEPTED

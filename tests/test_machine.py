"""Random walks through connecting: whatever people, browsers, time and AIRisk do, a token reaches only its owner.

The machine keeps its own small memory of what happened, and predicts the outcome of every step.
"""

import hashlib
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest
from django.contrib.auth import HASH_SESSION_KEY, SESSION_KEY
from django.contrib.auth.models import User
from django.contrib.sessions.models import Session
from django.core.signals import request_started
from django.db import connection
from django.test import Client
from django.urls import reverse
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from airisk_oauth import AIRiskSession
from airisk_oauth.exceptions import AIRiskError, ConnectionRequired
from airisk_oauth.models import AIRiskIdentity, AIRiskToken
from airisk_oauth.sandbox.world import Caller, Switches, World
from tests.support.clock import set_clock
from tests.support.people import token_requests
from tests.support.stored import rows_of_flows_and_tokens

EXAMPLES: Final = int(os.environ.get("AIRISK_OAUTH_MACHINE_EXAMPLES", "0"))
#: A few walks, always the same; if more are asked for, others each time, except in CI, which has to be repeatable.
PROFILE: Final = hypothesis_settings(
    max_examples=EXAMPLES or 10,
    stateful_step_count=60 if EXAMPLES else 40,
    derandomize=not EXAMPLES or "CI" in os.environ,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

CLIENTS: Final = {"default": "client-1", "second": "client-2"}
CALLBACKS: Final = {"default": "/airisk/callback/", "second": "/airisk/callback/second/"}
FLOW_LIFE, CODE_LIFE, REMEMBERED, MOST_PENDING = 600, 60, 3600, 10
#: Where to go afterwards, and where that leads.
NEXT: Final = {"": "/airisk/", "/needs/?a=b": "/needs/?a=b", "//evil.example": "/airisk/"}
DAYS: Final = [{}, {"token_life": None}, *({bad: True} for bad in ("outage", "refuse", "malformed", "login_page"))]
MALFORMED: Final = [
    "",
    "state={state}",
    "code={code}",
    "state=&code={code}",
    "state=None&code={code}",
    "state={state}&code=",
    "state={state}&code=%00",
    "state={state}&code=%ff",
    "state={state}&code[]={code}",
    "state={state}&state={state}&code={code}",
    "state={state}&code={code}&code={code}",
    "state={state}&code={code}&error=access_denied",
    "state={state}&code={code}&iss=https://evil.example",
]
FORGERIES: Final[list[Callable[[str], str]]] = [
    str.swapcase,
    lambda state: state[:-1],
    lambda state: f"{state} ",
    lambda state: hashlib.sha256(state.encode()).hexdigest(),
]

aliases = st.sampled_from(sorted(CLIENTS))
people = st.integers(0, 1)
#: Two of each person, and one in which nobody ever signs in.
browsers, any_browser = st.integers(0, 3), st.integers(0, 4)
userids = st.sampled_from(["user_42", "user_1", None])


@dataclass(eq=False)
class Person:
    user: User
    userids: dict[str, str | None]
    active: bool = True


@dataclass(eq=False)
class Browser:
    person: Person | None = None
    client: Client = field(default_factory=Client)
    #: What a session's end takes away.
    session: object = field(default_factory=object)


@dataclass(eq=False)
class Flow:
    person: Person
    browser: Browser
    session: object
    alias: str
    userid: str
    leads_to: str
    url: str
    state: str
    started: int
    outcome: str = ""
    posts: int = 0


@dataclass(eq=False)
class Return:
    """A browser sent back by AIRisk; without a code, refused."""

    flow: Flow
    code: str
    given: int
    used: bool = False


class Verdict(NamedTuple):
    """The predicted result of a callback: its status, the number of requests for a token, and the flow's outcome."""

    status: int
    posts: int = 0
    outcome: str = ""


class Connecting(RuleBasedStateMachine):
    flows = Bundle("flows")
    returns = Bundle("returns")

    def __init__(self, airisk: World, caplog: pytest.LogCaptureFixture) -> None:
        super().__init__()
        self.airisk, self.caplog, self.clock = airisk, caplog, pytest.MonkeyPatch()
        self.elapsed = 0
        self.remembered: list[Flow] = []
        self.tokens: dict[tuple[int, str], str] = {}
        self.callers: dict[str, Caller | None] = {}
        self.in_trouble: set[tuple[int, str]] = set()
        self.secrets = {f"canary-of-{alias}" for alias in CLIENTS}
        self.seen: list[str] = []
        self.wait(0)
        self.people = [Person(User.objects.create_user(name), dict.fromkeys(CLIENTS)) for name in ("mia", "tom")]
        self.browsers = [Browser() for _number in range(5)]
        for index in range(4):
            self.sign_in(index, index // 2)

    def teardown(self) -> None:
        self.clock.undo()
        self.airisk.reset()
        self.caplog.clear()
        User.objects.all().delete()
        Session.objects.all().delete()

    # The way to AIRisk

    @initialize(target=returns, same=st.booleans())
    def everybody_is_somebody(self, same: bool) -> Any:
        """Two users of the site may be the same person on AIRisk; then only the site can tell their flows apart."""
        for alias in CLIENTS:
            self.remap(0, alias, "user_42")
            self.remap(1, alias, "user_42" if same else "user_1")
        flow = self.start(0, "default", "")
        return self.visit_airisk(flow)

    @rule(target=flows, where=browsers, alias=aliases, next_url=st.sampled_from(sorted(NEXT)))
    def start(self, where: int, alias: str, next_url: str) -> Any:
        browser = self.browsers[where]
        connect = reverse("airisk_oauth:connect", args=[alias])
        response = self.ask(browser.client.post, connect, {"next": next_url, "userid": "user_evil"})
        person = browser.person
        if person is None or not person.active:
            assert response["Location"].startswith("/accounts/login/")
            return multiple()
        userid = person.userids[alias]
        if userid is None:
            assert response.status_code == 403
            return multiple()
        url = response["Location"]
        asked = dict(parse_qsl(urlsplit(url).query))
        state = asked.pop("state")
        back = f"https://app.example.com{CALLBACKS[alias]}"
        assert asked == {"client_id": CLIENTS[alias], "redirect_uri": back, "userid": userid}
        assert state not in self.secrets
        self.secrets.add(state)
        flow = Flow(person, browser, browser.session, alias, userid, NEXT[next_url], url, state, self.elapsed)
        self.remember(flow)
        return flow

    @rule(target=flows, where=browsers, alias=aliases)
    def start_a_dozen(self, where: int, alias: str) -> MultipleResults[Flow]:
        started = [self.start(where, alias, "") for _time in range(12)]
        return multiple(*(flow for flow in started if isinstance(flow, Flow)))

    @rule(target=returns, flow=flows)
    def visit_airisk(self, flow: Flow) -> Any:
        address = urlsplit(flow.url)
        response: Any = Client().get(f"{address.path}?{address.query}")
        if response.status_code == 200:
            # A page with a button, which the person presses.
            response = Client().post(f"{address.path}/Consent", dict(parse_qsl(address.query)))
        if response.status_code == 503:
            return multiple()
        answer = dict(parse_qsl(urlsplit(response["Location"]).query))
        assert answer["state"] == flow.state
        self.secrets |= {answer["code"]} if "code" in answer else set()
        return Return(flow, answer.get("code", ""), self.elapsed)

    # The way back

    @rule(back=returns)
    def deliver(self, back: Return) -> None:
        self.call_back(back.flow.browser, back.flow.alias, back.flow, back)

    @rule(back=returns, where=any_browser, alias=aliases)
    def deliver_astray(self, back: Return, where: int, alias: str) -> None:
        self.call_back(self.browsers[where], alias, back.flow, back)

    @rule(back=returns, other=returns)
    def deliver_with_the_code_of_another(self, back: Return, other: Return) -> None:
        self.call_back(back.flow.browser, back.flow.alias, back.flow, other)

    @rule(back=returns, userid=userids)
    def deliver_while_staff_remap(self, back: Return, userid: str | None) -> None:
        flow = back.flow

        def meanwhile(environ: dict[str, Any], **kwargs: Any) -> None:
            if environ["PATH_INFO"].endswith("/Token"):
                self.remap(self.people.index(flow.person), flow.alias, userid)
                connection.close()

        request_started.connect(meanwhile)
        try:
            self.call_back(flow.browser, flow.alias, flow, back, remapped=userid != flow.userid)
        finally:
            request_started.disconnect(meanwhile)

    @rule(back=returns, forge=st.sampled_from(FORGERIES))
    def forge_the_state(self, back: Return, forge: Callable[[str], str]) -> None:
        query = urlencode({"state": forge(back.flow.state), "code": back.code or "code"})
        self.call_back_in_vain(back.flow, query, 403)

    @rule(back=returns, query=st.sampled_from(MALFORMED))
    def malform_the_query(self, back: Return, query: str) -> None:
        filled = query.format(state=back.flow.state, code=back.code or "code")
        self.call_back_in_vain(back.flow, filled, 400, 403, 410)

    # People

    @rule(where=browsers)
    def log_out(self, where: int) -> None:
        browser = self.browsers[where]
        browser.client.logout()
        browser.person, browser.session = None, object()

    @rule(where=browsers, who=people)
    def sign_in(self, where: int, who: int) -> None:
        browser, person = self.browsers[where], self.people[who]
        browser.client.force_login(person.user)
        if browser.person not in (None, person):
            browser.session = object()
        browser.person = person

    @rule(where=browsers, who=people)
    def become_another_in_the_same_session(self, where: int, who: int) -> None:
        """Do what a site's own "act as" may do: unlike Django's login, it keeps the session's contents."""
        browser, person = self.browsers[where], self.people[who]
        if browser.person is not None:
            session = browser.client.session
            session[SESSION_KEY], session[HASH_SESSION_KEY] = str(person.user.pk), person.user.get_session_auth_hash()
            session.save()
            browser.person = person

    @rule(who=people, alias=aliases, userid=userids)
    def remap(self, who: int, alias: str, userid: str | None) -> None:
        person = self.people[who]
        person.userids[alias] = userid
        identities = AIRiskIdentity.objects.filter(user=person.user, deployment=alias)
        if userid is None:
            identities.delete()
        elif not identities.update(userid=userid):
            AIRiskIdentity.objects.create(user=person.user, deployment=alias, userid=userid)

    @rule(who=people)
    def deactivate_or_reactivate(self, who: int) -> None:
        person = self.people[who]
        person.active = not person.active
        User.objects.filter(pk=person.user.pk).update(is_active=person.active)

    @rule(where=browsers, alias=aliases)
    def disconnect(self, where: int, alias: str) -> None:
        browser = self.browsers[where]
        self.ask(browser.client.post, reverse("airisk_oauth:disconnect", args=[alias]))
        if browser.person is not None and browser.person.active:
            self.tokens.pop((browser.person.user.pk, alias), None)

    @rule(where=any_browser, alias=aliases)
    def look(self, where: int, alias: str) -> None:
        browser = self.browsers[where]
        signed_in = browser.person is not None and browser.person.active
        for page in (reverse("airisk_oauth:connection"), reverse("airisk_oauth:connect", args=[alias])):
            assert self.ask(browser.client.get, page).status_code == (200 if signed_in else 302)

    @rule(who=people, alias=aliases)
    def use_the_token(self, who: int, alias: str) -> None:
        person, day = self.people[who], self.airisk.switches
        key = (person.user.pk, alias)
        usable = self.tokens.get(key, "") == person.userids[alias]
        if day.outage or day.refuse or day.malformed or day.login_page:
            self.in_trouble.add(key)
        before = len(self.airisk.journal)
        try:
            with AIRiskSession.for_user(person.user, deployment=alias) as session:
                status = session.get("/api/GetConversations").status_code
        except AIRiskError as error:
            self.seen.append(f"{error!r} {error}")
            expected = key in self.in_trouble if usable else isinstance(error, ConnectionRequired)
            assert expected, "a call may fail where AIRisk did, or somebody has to connect"
        else:
            assert usable
            assert status == 200 or key in self.in_trouble
        calls = self.airisk.journal[before:]
        assert usable or not calls
        assert sum(call.method == "POST" for call in calls) <= 1
        assert {call.values.get("userid", self.tokens[key]) for call in calls} <= {self.tokens.get(key)}

    # The world

    @rule(seconds=st.sampled_from([30, 270, 660]))
    def wait(self, seconds: int) -> None:
        # So that no age is ever near to a limit: the real time that a walk takes must not matter.
        self.elapsed += seconds
        set_clock(self.clock, self.elapsed)
        self.airisk.clock = lambda: time.time() + self.elapsed

    @rule(day=st.sampled_from(DAYS))
    def another_day_at_airisk(self, day: dict[str, Any]) -> None:
        self.airisk.switches = Switches(**day)

    @rule()
    def airisk_ends_all_tokens(self) -> None:
        self.airisk.end_all_tokens()

    # What must hold after every step

    @invariant()
    def every_stored_token_opens_and_is_its_owners(self) -> None:
        stored = self.stored()
        assert {key: userid for key, (userid, _token) in stored.items()} == self.tokens
        for (_user, alias), (userid, token) in stored.items():
            # Asked when it is new: of one that has ended, AIRisk says nothing.
            self.callers.setdefault(token, self.airisk.caller_of(token))
            assert self.callers[token] == Caller(CLIENTS[alias], userid)

    @invariant()
    def the_rows_are_those_of_flows_that_were_started(self) -> None:
        pending = [row for row in rows_of_flows_and_tokens() if "state_hash" in row]
        assert len(pending) == len(self.remembered)
        for person in self.people:
            mine = [row for row in pending if row["user_id"] == person.user.pk and row["spent_at"] is None]
            assert len(mine) <= MOST_PENDING

    @invariant()
    def no_secret_gets_out(self) -> None:
        tokens = {token for _userid, token in self.stored().values()}
        sessions = [session.get_decoded() for session in Session.objects.all()]
        records = [record for record in self.caplog.records if record.name.startswith("airisk_oauth")]
        logs = [f"{record.getMessage()}{record.__dict__}" for record in records]
        seen = "\n".join([*self.seen, *logs, repr(rows_of_flows_and_tokens()), repr(sessions)])
        self.secrets |= tokens
        assert [secret for secret in self.secrets if secret in seen] == []
        self.seen.clear()
        self.caplog.clear()

    # How the machine acts, and what it expects

    def ask(self, method: Callable[..., Any], path: str, data: dict[str, str] | None = None) -> Any:
        """Let a browser ask the site; only the redirect to AIRisk may hold a secret."""
        response = method(path, data)
        assert response.status_code < 500
        headers = {name: value for name, value in response.items() if "/api/oauth2?" not in value}
        self.seen.append(f"{response.content.decode()}{headers}{response.cookies}")
        return response

    def stored(self) -> dict[tuple[int, str], tuple[str, str]]:
        tokens = AIRiskToken.objects.all()
        return {(token.user_id or 0, token.deployment): (token.userid, str(token.access_token)) for token in tokens}

    def remember(self, flow: Flow) -> None:
        self.remembered.append(flow)
        pending = [other for other in self.remembered if other.person is flow.person and not other.outcome]
        gone = pending[:-MOST_PENDING]
        young = [other for other in self.remembered if self.elapsed - other.started < REMEMBERED]
        self.remembered = [other for other in young if other not in gone]

    def verdict(self, browser: Browser, alias: str, flow: Flow, code: Return) -> Verdict:
        person, is_due = browser.person, self.elapsed - flow.started < FLOW_LIFE
        if person is None or not person.active or flow not in self.remembered:
            return Verdict(403)
        if (flow.session, flow.person, flow.alias) != (browser.session, person, alias):
            return Verdict(403)
        if flow.outcome or not is_due:
            return Verdict(302 if flow.outcome == "connected" else 410)
        if not code.code or person.userids[alias] != flow.userid:
            return Verdict(302, 0, "failed")
        fits = (code.flow.alias, code.flow.userid) == (flow.alias, flow.userid)
        fresh = not code.used and self.elapsed - code.given < CODE_LIFE
        day = self.airisk.switches
        return Verdict(302, 1, "connected" if fits and fresh and not day.outage and not day.malformed else "failed")

    def call_back(self, browser: Browser, alias: str, flow: Flow, code: Return, *, remapped: bool = False) -> None:
        verdict = self.verdict(browser, alias, flow, code)
        if verdict.outcome == "connected" and remapped:
            verdict = verdict._replace(outcome="failed")
        outage = self.airisk.switches.outage
        before, posts = self.stored(), len(token_requests(self.airisk))
        answer = {"code": code.code} if code.code else {"error": "access_denied"}
        response = self.ask(browser.client.get, CALLBACKS[alias], {**answer, "state": flow.state})
        assert response.status_code == verdict.status
        assert len(token_requests(self.airisk)) - posts == verdict.posts
        flow.posts += verdict.posts
        assert flow.posts <= 1
        code.used |= verdict.posts == 1 and not outage
        flow.outcome = verdict.outcome or flow.outcome
        key = (flow.person.user.pk, flow.alias)
        connected = {key} if verdict.outcome == "connected" else set()
        after = self.stored()
        assert {changed for changed in after if after[changed] != before.get(changed)} == connected
        if verdict.status == 302:
            assert response["Location"] == (flow.leads_to if flow.outcome == "connected" else "/airisk/")
        if connected:
            self.tokens[key] = flow.userid
            self.in_trouble.discard(key)

    def call_back_in_vain(self, flow: Flow, query: str, *statuses: int) -> None:
        before, posts = self.stored(), len(token_requests(self.airisk))
        response = self.ask(flow.browser.client.get, f"{CALLBACKS[flow.alias]}?{query}")
        assert response.status_code in statuses
        assert (self.stored(), len(token_requests(self.airisk))) == (before, posts)


@pytest.mark.django_db(transaction=True)
def test_token_reaches_only_the_user_who_asked(airisk: World, settings: Any, caplog: pytest.LogCaptureFixture) -> None:
    for alias, options in settings.AIRISK_OAUTH.items():
        options["CLIENT_SECRET"] = f"canary-of-{alias}"
    with caplog.at_level(logging.DEBUG, logger="airisk_oauth"):
        run_state_machine_as_test(partial(Connecting, airisk, caplog), settings=PROFILE)  # type: ignore[arg-type]

"""What the make-believe AIRisk knows: its switches, the codes and tokens it gave out, and what it saw.

Everything lives in this one process and ends with it, tokens excepted: those carry their own content, signed,
so that a developer stays connected when the development server reloads. Serve the sandbox from one process.
"""

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.core.signing import BadSignature, Signer

from .answers import moment, moment_without_offset
from .chat import Chats

CODE_LIFE = 60
JOURNAL_LENGTH = 10_000
#: By status and reason, by a redirect with error parameters, by a redirect to JSON, or by JSON with status 200.
REFUSALS = ("", "error", "redirect", "json")


@dataclass
class Switches:
    """How AIRisk is to behave; the defaults are AIRisk on a good day."""

    latency: float = 0.0
    """Seconds that pass before every answer."""
    outage: bool = False
    """Every endpoint answers 503 with the page of the front end, not of AIRisk."""
    retry_after: int | None = None
    """The `Retry-After` header of an outage, in seconds."""
    token_life: int | None = 3600
    """Seconds for which a new token is good; None: AIRisk names no end."""
    expires_in_shape: bool = False
    """The token answer has `expires_in` where it would have `expiration`."""
    login_page: bool = False
    """The authorization endpoint shows a page with a button before it redirects."""
    refuse: bool = False
    """The authorization endpoint redirects with `error=access_denied`."""
    malformed: bool = False
    """A valid token request is answered 200 with a web page."""
    refusals: str = ""
    """How the authorization endpoint refuses: one of `REFUSALS`."""
    state_missing: bool = False
    """The authorization endpoint does not return the `state`, as old deployments may."""
    codes_carry_user: bool = False
    """A code is traded with any `userid` or none, for a token of the user that the authorization URL named."""
    codes_reusable: bool = False
    """A code can be traded again and again until it expires."""
    any_redirect_uri: bool = False
    """The token endpoint does not compare `redirect_uri`, nor ask for one."""
    no_offset: bool = False
    """Times are written without an offset, with seven fractional digits."""
    no_agents: bool = False
    """Nobody has any agents."""
    old_stream: bool = False
    """Answers are streamed as server-sent events, as in 2025."""
    first_text_after: float | None = None
    """Seconds before the first text of an answer; None: at once."""
    stream_breaks_off: bool = False
    """Answers end in the middle."""


@dataclass(frozen=True)
class Grant:
    """What a code was given for; every part has to come back with it."""

    client_id: str
    redirect_uri: str
    userid: str | None


@dataclass(frozen=True)
class Caller:
    """On whose behalf a token speaks; without a `userid` it is the application's own, a generic token."""

    client_id: str
    userid: str | None


@dataclass(frozen=True)
class Seen:
    """One request as AIRisk saw it, without anything that would let a reader repeat it."""

    time: float
    """When it was answered, by the world's clock."""
    started: float
    """Monotonic seconds, like `ended`: a stopped or turned clock cannot hide that two requests overlapped."""
    ended: float
    endpoint: str
    method: str
    parameters: tuple[str, ...]
    """The names of all parameters of query and body, sorted."""
    values: Mapping[str, str]
    """`client_id`, `redirect_uri`, `userid` as they were sent; with a bearer token, those it stands for."""
    status: int


class World:
    """The state behind the views. All methods may be called from any thread."""

    switches: Switches
    clock: Callable[[], float]

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Back to the start: default switches, the real clock, no codes, the first conversations, an empty journal."""
        with self._lock:
            self.switches = Switches()
            self.clock = time.time
            self._codes: dict[str, tuple[Grant, float]] = {}
            self._chats: dict[str, Chats] = {}
            self._journal: deque[Seen] = deque(maxlen=JOURNAL_LENGTH)
            self._latest_tick = self._ended_tick = 0

    @property
    def journal(self) -> list[Seen]:
        """What AIRisk saw, oldest first: a copy, since other threads go on writing."""
        with self._lock:
            return list(self._journal)

    def record(self, seen: Seen) -> None:
        """Add a line to the journal."""
        with self._lock:
            self._journal.append(seen)

    def new_code(self, grant: Grant) -> str:
        """A short-lived, single-use code (RFC 6749, section 4.1.2)."""
        code = secrets.token_urlsafe(32)
        now = self.clock()
        with self._lock:
            self._codes = {old: entry for old, entry in self._codes.items() if entry[1] > now}
            self._codes[code] = (grant, now + CODE_LIFE)
        return code

    def redeem(self, code: str) -> Grant | None:
        """What the code was given for; None if it is wrong, used or expired. Asking uses up a code for one use."""
        with self._lock:
            grant, ends = self._codes.get(code, (None, 0.0))
            if not self.switches.codes_reusable:
                self._codes.pop(code, None)
        return grant if self.clock() < ends else None

    def chats_of(self, userid: str) -> Chats:
        """The conversations of a person, of whom nobody else sees anything."""
        with self._lock:
            if userid not in self._chats:
                self._chats[userid] = Chats(userid, self.clock())
            return self._chats[userid]

    def moment(self, timestamp: float) -> str:
        """A moment as AIRisk writes it at present."""
        return moment_without_offset(timestamp) if self.switches.no_offset else moment(timestamp)

    def new_token(self, caller: Caller, life: int | None = 3600) -> tuple[str, int | None]:
        """An opaque token and the second at which it ends, if it does; `life` is in seconds."""
        # Whole seconds, upwards: AIRisk names whole seconds, and no token may end before the moment it names.
        ends = None if life is None else math.ceil(self.clock() + life)
        with self._lock:
            born = self._tick()
        content = {"client_id": caller.client_id, "userid": caller.userid, "ends": ends, "born": born}
        return _signer().sign_object(content), ends

    def caller_of(self, token: str) -> Caller | None:
        """Whom the token stands for; None if it is not one of ours or has ended."""
        try:
            content = _signer().unsign_object(token)
        except BadSignature:
            return None
        if content["born"] <= self._ended_tick:
            return None
        if content["ends"] is not None and self.clock() >= content["ends"]:
            return None
        return Caller(content["client_id"], content["userid"])

    def end_all_tokens(self) -> None:
        """Every token given out so far is refused from now on (until a restart or a `reset`)."""
        with self._lock:
            self._ended_tick = self._tick()

    def _tick(self) -> int:
        """A number larger than any before: of two events one is older, even if the clock stands still.

        It follows the clock so that it goes on growing across restarts, which tokens outlive.
        """
        self._latest_tick = max(self._latest_tick + 1, int(self.clock() * 1_000_000))
        return self._latest_tick


def _signer() -> Signer:
    # With "." the token keeps to the alphabet of RFC 6750, section 2.1, which has no ":".
    return Signer(salt="airisk_oauth.sandbox.token", sep=".")


world = World()

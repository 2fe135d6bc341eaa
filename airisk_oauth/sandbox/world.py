"""The state of the simulated AIRisk: its switches, codes, tokens and conversations, and the requests it received.

All of this is kept in the memory of one process, so serve the sandbox from a single process. Tokens survive a restart,
because they contain their data, signed: a developer stays connected when the development server reloads.
"""

import math
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from django.core.signing import BadSignature, Signer

from .answers import format_time, format_time_without_offset
from .chat import Chats

#: Seconds for which a code is valid.
CODE_LIFE = 60
JOURNAL_LENGTH = 10_000
#: Status and reason, a redirect with error parameters, a redirect to JSON, JSON with status 200.
REFUSALS = ("", "error", "redirect", "json")


@dataclass
class Switches:
    """How AIRisk behaves; by default, everything works."""

    latency: float = 0.0
    """Seconds before each answer."""
    outage: bool = False
    """Every endpoint answers with status 503 and a web page, which comes from AIRisk's front end."""
    retry_after: int | None = None
    """The `Retry-After` header during an outage, in seconds; None: no header."""
    token_life: int | None = 3600
    """Seconds for which a new token is valid; None: AIRisk names no expiry."""
    expires_in_shape: bool = False
    """Token answers contain `expires_in` instead of `expiration`."""
    login_page: bool = False
    """The authorization endpoint shows a page with a button before it redirects."""
    refuse: bool = False
    """The authorization endpoint redirects with `error=access_denied`."""
    malformed: bool = False
    """A valid token request is answered with status 200 and a web page."""
    refusals: str = ""
    """How the authorization endpoint refuses: one of `REFUSALS`."""
    state_missing: bool = False
    """The authorization endpoint does not return the `state`, like some old deployments."""
    codes_carry_user: bool = False
    """A code can be exchanged with any `userid` or none; the token is for the user in the authorization URL."""
    codes_reusable: bool = False
    """A code can be exchanged any number of times until it expires."""
    any_redirect_uri: bool = False
    """The token endpoint neither checks nor requires `redirect_uri`."""
    no_offset: bool = False
    """Times are written without an offset, with seven fractional digits."""
    no_agents: bool = False
    """No user has any agents."""
    old_stream: bool = False
    """Answers are streamed as server-sent events, as in 2025."""
    first_text_after: float | None = None
    """Seconds before the first text of an answer; None: no delay."""
    stream_breaks_off: bool = False
    """Answers break off in the middle."""


@dataclass(frozen=True)
class Grant:
    """What a code was issued for; the token request has to repeat all of it."""

    client_id: str
    redirect_uri: str
    userid: str | None


@dataclass(frozen=True)
class Caller:
    """The owner of a token; without a `userid` it is the application's own, generic token."""

    client_id: str
    userid: str | None


@dataclass(frozen=True)
class JournalEntry:
    """A request that AIRisk received, without the secrets that would allow repeating it."""

    time: float
    """When it was answered, by the world's clock."""
    started: float
    """On the monotonic clock, like `ended`: shows whether requests overlapped, even if a test has set the clock."""
    ended: float
    endpoint: str
    method: str
    parameters: tuple[str, ...]
    """The names of all parameters in the query and the body, sorted."""
    values: Mapping[str, str]
    """`client_id`, `redirect_uri` and `userid` as they were sent; with a bearer token, its owner's."""
    status: int


class World:
    """The state behind the views. All methods are thread-safe."""

    switches: Switches
    clock: Callable[[], float]

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Restore the initial state: default switches, real clock, no codes, first conversations, empty journal."""
        with self._lock:
            self.switches = Switches()
            self.clock = time.time
            self._codes: dict[str, tuple[Grant, float]] = {}
            self._chats: dict[str, Chats] = {}
            self._journal: deque[JournalEntry] = deque(maxlen=JOURNAL_LENGTH)
            self._latest_tick = self._ended_tick = 0
            self._reset_at = time.monotonic()

    @property
    def journal(self) -> list[JournalEntry]:
        """A copy of the requests that AIRisk received, oldest first."""
        with self._lock:
            return list(self._journal)

    def record(self, entry: JournalEntry) -> None:
        """Add an entry to the journal, unless the request was received before the last reset."""
        with self._lock:
            if entry.started >= self._reset_at:
                self._journal.append(entry)

    def new_code(self, grant: Grant) -> str:
        """Return a short-lived, single-use code (RFC 6749, section 4.1.2)."""
        code = secrets.token_urlsafe(32)
        now = self.clock()
        with self._lock:
            self._codes = {old: entry for old, entry in self._codes.items() if entry[1] > now}
            self._codes[code] = (grant, now + CODE_LIFE)
        return code

    def redeem(self, code: str) -> Grant | None:
        """Spend a code and return what it was issued for; None if it is wrong, spent or expired."""
        with self._lock:
            grant, expires_at = self._codes.get(code, (None, 0.0))
            if not self.switches.codes_reusable:
                self._codes.pop(code, None)
        return grant if self.clock() < expires_at else None

    def chats_of(self, userid: str) -> Chats:
        """Return a user's conversations, which no other user can see."""
        with self._lock:
            if userid not in self._chats:
                self._chats[userid] = Chats(userid, self.clock())
            return self._chats[userid]

    def format_time(self, timestamp: float) -> str:
        """Return a time as AIRisk writes it, depending on the switches."""
        return format_time_without_offset(timestamp) if self.switches.no_offset else format_time(timestamp)

    def new_token(self, caller: Caller, life: int | None = 3600) -> tuple[str, int | None]:
        """Return an opaque token and the Unix timestamp of its expiry, if it has one.

        :param life: seconds for which the token is valid; None: for ever.
        """
        # Rounded up: AIRisk names whole seconds, and no token may expire before the time that it names.
        expires_at = None if life is None else math.ceil(self.clock() + life)
        with self._lock:
            born = self._tick()
        content = {"client_id": caller.client_id, "userid": caller.userid, "ends": expires_at, "born": born}
        return _signer().sign_object(content), expires_at

    def caller_of(self, token: str) -> Caller | None:
        """Return the owner of a token; None if it is not one of ours, or no longer valid."""
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
        """Refuse every token issued so far (until a restart or a `reset`)."""
        with self._lock:
            self._ended_tick = self._tick()

    def _tick(self) -> int:
        """Return a number larger than any before, which orders events even if the clock stands still.

        It follows the clock so that it keeps growing after a restart, which tokens survive.
        """
        self._latest_tick = max(self._latest_tick + 1, int(self.clock() * 1_000_000))
        return self._latest_tick


def _signer() -> Signer:
    # The separator is "." because the alphabet of RFC 6750, section 2.1, has no ":".
    return Signer(salt="airisk_oauth.sandbox.token", sep=".")


world = World()

"""The messages of OAuth 2 between this server and AIRisk."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, NamedTuple, Self

#: In bytes: no answer of an OAuth endpoint is longer.
MAX_BODY: Final = 64 * 1024
MAX_TOKEN: Final = 16 * 1024

# Patterns are strings, here and elsewhere: re compiles and keeps each when it is first used, not when a site starts.
_B64TOKEN: Final = r"[A-Za-z0-9._~+/-]+=*"
#: Words of AIRisk that can be shown.
READABLE: Final = r"[\x20-\x7e]{1,120}"


class Secret(str):
    """A string that neither its ``repr`` nor a pickle shows: a traceback or a crash report stays harmless."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'[secret]'"

    def __reduce_ex__(self, _protocol: object) -> tuple[type[str], tuple[str]]:
        # What is pickled leaves the process: for another worker, a cache, a recorded cassette.
        return str, ("[secret]",)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, _memo: object) -> Self:
        return self


class TokenGrant(NamedTuple):
    """A token as AIRisk granted it.

    :ivar access_token: opaque; see :func:`is_access_token`.
    :ivar expires_at: when it expires (aware, UTC), or ``None`` where AIRisk named no expiry.
    :ivar origin: scheme, host and port that issued it, or an empty string.
    """

    access_token: Secret
    expires_at: datetime | None
    origin: str = ""


class OAuthRequest(NamedTuple):
    """A request to one of the two OAuth endpoints."""

    method: str
    url: str
    form: Mapping[str, str] | None = None

    def __repr__(self) -> str:
        return f"<OAuthRequest {self.method}>"


class OAuthResponse(NamedTuple):
    """The parts of an HTTP response that the protocol gives a meaning to."""

    status: int
    body: bytes = b""
    location: str | None = None
    content_type: str = ""
    retry_after: str = ""
    answered_at: datetime | None = None

    def __repr__(self) -> str:
        return f"<OAuthResponse {self.status}>"

    @classmethod
    def of(cls, status: int, headers: Mapping[str, str], body: bytes, *, now: datetime | None = None) -> Self:
        """Take from an HTTP response what counts.

        :param headers: looked up by lower-case names; the mapping has to ignore case.
        :param now: when the response came (aware). AIRisk's own ``Date`` goes first, because
            ``Retry-After`` uses the same clock.
        """
        location, retry_after = headers.get("location"), headers.get("retry-after", "")
        answered_at = http_date(headers.get("date", "")) or now
        return cls(status, body, location, headers.get("content-type", "").lower(), retry_after, answered_at)


class ConnectionLost(Exception):
    """A reused connection was closed before a byte of an answer came. Only a flow sees this exception."""


def is_access_token(value: object) -> bool:
    """Tell whether a value can be sent as a bearer: a ``b64token`` (RFC 6750, section 2.1) of at most 16 KiB."""
    return isinstance(value, str) and len(value) <= MAX_TOKEN and bool(re.fullmatch(_B64TOKEN, value))


def http_date(value: str) -> datetime | None:
    """Read a date of HTTP (RFC 9110, section 5.6.7), or return ``None`` for anything else."""
    try:
        date = parsedate_to_datetime(value)
        return date.replace(tzinfo=date.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None

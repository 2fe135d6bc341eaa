"""Requests to AIRisk's chat API and replies from it, for both clients; and how a reply's body is read."""

import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol

from django.utils import timezone

from ..exceptions import AIRiskError, AIRiskInvalidResponse, AIRiskUnavailable
from ..oauth.messages import MAX_BODY, OAuthResponse
from ..oauth.refusals import refusal

#: Bytes that are read or decompressed at once.
PART: Final = 64 * 1024

_HEADERS: Final = {"Accept": "application/json", "Accept-Encoding": "identity"}


class ChatRequest(NamedTuple):
    """A request to AIRisk's API.

    :ivar json: the content to send as JSON, or ``None``.
    :ivar files: the files to send as multipart, in the form that ``requests`` and ``httpx2`` take, or ``None``.
    :ivar patience: seconds to wait for the headers of the reply; ``None``: ``API_TIMEOUT`` applies.
    """

    method: str
    path: str
    params: Mapping[str, str] | None = None
    json: Mapping[str, object] | None = None
    files: Mapping[str, Any] | None = None
    headers: Mapping[str, str] = _HEADERS
    patience: float | None = None

    def __repr__(self) -> str:
        return f"<ChatRequest {self.method} {self.path}>"


class Reply(Protocol):
    """A reply whose headers have arrived."""

    @property
    def status(self) -> int: ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Ignores the case of names."""

    @property
    def token(self) -> str:
        """The token that was sent, which must not be repeated in an error."""

    async def read(self, ends: float) -> bytes:
        """Return the next part of the body, not decoded; no bytes at its end.

        :param ends: the time limit, on the monotonic clock.
        :raises AIRiskUnavailable: nothing arrived in time, or the connection broke.
        """

    async def close(self) -> None:
        """Close the connection, unless the whole body has been read."""


class Call(Protocol):
    """Sends a request with the user's token, and returns the reply.

    :raises AIRiskError: as any call of the API does. Every HTTP status is returned as a reply.
    """

    async def __call__(self, request: ChatRequest, /) -> Reply: ...


class Unpacker:
    """Decompresses a body, because some gateways compress it without being asked to.

    :raises AIRiskInvalidResponse: the encoding is neither ``gzip`` nor ``deflate``.
    """

    def __init__(self, reply: Reply) -> None:
        encoding = reply.headers.get("content-encoding", "").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise AIRiskInvalidResponse("AIRisk's answer is in an encoding that was not asked for.")
        self._is_packed = encoding not in ("", "identity")
        self._unpack = _new_unpack()

    def __call__(self, data: bytes) -> Iterable[bytes]:
        """Return a part of the body, decompressed, in pieces of at most 64 KiB, none of them empty.

        :raises AIRiskInvalidResponse: it cannot be decompressed.
        """
        return self._unpacked(data) if self._is_packed else (data,)

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        while data:
            try:
                part = self._unpack.decompress(data, PART)
            except zlib.error:
                raise AIRiskInvalidResponse("AIRisk's answer cannot be decompressed.") from None
            data = self._unpack.unconsumed_tail
            if self._unpack.eof:
                # What follows was compressed separately.
                data, self._unpack = self._unpack.unused_data, _new_unpack()
            if part:
                yield part


def _new_unpack() -> Any:
    return zlib.decompressobj(zlib.MAX_WBITS | 32)


async def read_body(reply: Reply, limit: int, seconds: float) -> bytes | None:
    """Return the whole body, or ``None`` if it is longer than so many bytes.

    :param seconds: how long all of it may take.
    :raises AIRiskUnavailable: it did not arrive in time, or broke off.
    :raises AIRiskInvalidResponse: it cannot be decompressed.
    """
    ends = time.monotonic() + seconds
    unpack, parts, length = Unpacker(reply), list[bytes](), 0
    while data := await reply.read(ends):
        if time.monotonic() > ends:
            raise AIRiskUnavailable("AIRisk's answer took too long.")
        for part in unpack(data):
            parts.append(part)
            length += len(part)
            if length > limit:
                return None
    return b"".join(parts)


async def check_accepted(reply: Reply, seconds: float) -> None:
    """Raise the error for a status that is not a success, with AIRisk's reason from the body.

    :param seconds: how long the body may take.
    :raises AIRiskRefused: 4xx.
    :raises AIRiskUnavailable: 429 or 5xx.
    :raises AIRiskInvalidResponse: a redirect, say.
    """
    if 200 <= reply.status < 300:
        return
    if reply.status < 400:
        raise AIRiskInvalidResponse(f"AIRisk answered with status {reply.status}.")
    raise await _refusal(reply, seconds)


async def _refusal(reply: Reply, seconds: float) -> AIRiskError:
    # Returned, because the body is in this frame.
    body = None
    with suppress(AIRiskUnavailable, AIRiskInvalidResponse):
        body = await read_body(reply, MAX_BODY, seconds)
    response = OAuthResponse.of(reply.status, reply.headers, body or b"", now=timezone.now())
    return refusal(response, secrets=(reply.token,))

"""A single request outside any flow, and what it means if no answer comes back."""

import re
import socket
import time
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

import requests
from requests.exceptions import ConnectTimeout, ProxyError, ReadTimeout, SSLError
from urllib3.exceptions import ProtocolError

from ..oauth.deployment import Deployment
from ..oauth.messages import MAX_BODY
from ..oauth.transport import looking
from ..wire.environment import BundleMissing, ProxyUnusable
from .faults import NETWORK, SITE, SUPPORT, Fault, plain

#: OpenSSL's reasons if the other side answers with something else than TLS.
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})


class Look(NamedTuple):
    """The answer of an address; ``body`` is ``None`` if it was not asked for, or is longer than 64 KiB."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None


def look(
    deployment: Deployment,
    url: str,
    timeout: tuple[float, float],
    headers: dict[str, str],
    *,
    with_body: bool = False,
) -> Look:
    """Request a URL, following no redirect; return the status, the headers and, if asked for, a body of limited size.

    :param timeout: seconds to connect and to read.
    :raises OSError: no answer came back, or only a part of it; the errors of ``requests`` are among them.
    """
    with looking(deployment, url, headers, timeout) as response:
        body = _body(response, time.monotonic() + timeout[1]) if with_body else None
        return Look(response.status_code, response.headers, body)


def _body(response: requests.Response, deadline: float) -> bytes | None:
    body = b""
    for chunk in response.iter_content(4096):
        body += chunk
        if len(body) > MAX_BODY:
            return None
        if time.monotonic() > deadline:
            raise ReadTimeout
    return body


def unreachable(host: str, error: OSError, timeout: tuple[float, float]) -> Fault:
    """Return the fault for a host that sent no answer.

    :param timeout: the seconds to connect and to read that were allowed.
    """
    if isinstance(error, ProxyUnusable | BundleMissing):
        return Fault(
            f"Nothing can be sent to {host}: {error.cause}.", f"{NETWORK} Correct this server's environment variables."
        )
    if isinstance(error, ProxyError):
        return Fault(
            f"{host} cannot be reached through the proxy.",
            f"{NETWORK} Make the proxy let this server through to {host}, or use another proxy.",
        )
    if isinstance(error, SSLError):
        return _tls_failed(host, str(error))
    if isinstance(error, ReadTimeout):
        return Fault(
            f"{host} is slow: it accepted the connection, but did not answer within {timeout[1]:g} s.",
            f"{SUPPORT} Ask them why, or try again later. {SITE} Raise TIMEOUT if AIRisk always takes that long.",
        )
    if isinstance(error, ConnectTimeout):
        return Fault(
            f"{host} cannot be reached: no connection within {timeout[0]:g} s.",
            f"{NETWORK} Let this server connect to {host}.",
        )
    return _not_connected(host, error)


def _not_connected(host: str, error: OSError) -> Fault:
    causes = list(_causes_of(error))
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            if cause.errno == socket.EAI_NONAME:
                return Fault(f"There is no host {host}.", f"{SITE} Correct BASE_URL.")
            return Fault(
                f"The name {host} could not be looked up ({plain(str(cause.strerror))}).",
                f"{NETWORK} Make DNS work on this server.",
            )
    if any(isinstance(cause, ProtocolError) for cause in causes):
        return Fault(
            f"{host} accepted the connection, but closed it without answering.",
            f"{SUPPORT} Ask them why, or try again later. {SITE} Check the port in BASE_URL.",
        )
    return Fault(f"{host} cannot be reached ({type(error).__name__}).", f"{NETWORK} Let this server connect to {host}.")


def _causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and its causes: ``requests`` keeps the cause in ``args``, urllib3 in ``reason``."""
    while isinstance(error, BaseException):
        yield error
        inner = [getattr(error, "reason", None), error.__cause__, *error.args[:1], error.__context__]
        error = next((each for each in inner if isinstance(each, BaseException)), None)


def _tls_failed(host: str, error: str) -> Fault:
    verification = re.search(r"verify failed: ([^(]+?)\.? \(_ssl", error)
    openssl = re.search(r"\[SSL(?:: (\w+))?", error)
    name = (openssl[1] if openssl else None) or "SSLError"
    proxy = f"{NETWORK} If a proxy intercepts TLS, name its CA bundle in REQUESTS_CA_BUNDLE."
    if verification is not None:
        return Fault(
            f"The identity of {host} cannot be verified: {plain(verification[1])}.",
            f"{proxy} {SUPPORT} Otherwise, ask them to fix the certificate.",
        )
    if name in _NO_TLS:
        return Fault(
            f"The identity of {host} cannot be verified: it does not use TLS.",
            f"{proxy} {SITE} Otherwise, correct BASE_URL.",
        )
    return Fault(f"No TLS connection to {host} could be made ({plain(name)}).", f"{SUPPORT} Ask them why.")

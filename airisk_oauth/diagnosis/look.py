"""One request that is no part of a flow, and what it means when nothing comes back."""

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

#: What OpenSSL says where the other side answers something else than TLS.
_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST", "UNKNOWN_PROTOCOL"})


class Look(NamedTuple):
    """What an address answered; ``body`` is ``None`` where it was not asked for, or is longer than 64 KiB."""

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
    """Look at status and headers, and at a body of limited size if asked to; follow nothing.

    :param timeout: seconds to connect and to read.
    :raises OSError: nothing, or not all of it, came back; ``requests``'s own errors are among them.
    """
    with looking(deployment, url, headers, timeout) as response:
        body = _body(response, time.monotonic() + timeout[1]) if with_body else None
        return Look(response.status_code, response.headers, body)


def _body(response: requests.Response, ends: float) -> bytes | None:
    body = b""
    for chunk in response.iter_content(4096):
        body += chunk
        if len(body) > MAX_BODY:
            return None
        if time.monotonic() > ends:
            raise ReadTimeout
    return body


def unreachable(host: str, error: OSError, timeout: tuple[float, float]) -> Fault:
    """Return the fault for a host from which nothing came back."""
    if isinstance(error, ProxyUnusable | BundleMissing):
        return Fault(f"Nothing can be sent to {host}: {error.cause}.", f"{NETWORK} correct the environment.")
    if isinstance(error, ProxyError):
        return Fault(f"The proxy does not lead to {host}.", f"{NETWORK} let the proxy pass, or name another one.")
    if isinstance(error, SSLError):
        return _no_trust(host, str(error))
    if isinstance(error, ReadTimeout):
        return Fault(
            f"{host} is slow: it took the connection, and did not answer within {timeout[1]:g} s.",
            f"{SUPPORT} ask why, or try later. {SITE} raise TIMEOUT, if AIRisk always takes that long.",
        )
    if isinstance(error, ConnectTimeout):
        return Fault(
            f"{host} cannot be reached: no connection within {timeout[0]:g} s.",
            f"{NETWORK} let this server reach {host}.",
        )
    return _no_connection(host, error)


def _no_connection(host: str, error: OSError) -> Fault:
    causes = list(_causes_of(error))
    for cause in causes:
        if isinstance(cause, socket.gaierror):
            if cause.errno == socket.EAI_NONAME:
                return Fault(f"There is no host {host}.", f"{SITE} correct BASE_URL.")
            return Fault(
                f"The name of {host} could not be looked up ({plain(str(cause.strerror))}).",
                f"{NETWORK} let this server resolve names.",
            )
    if any(isinstance(cause, ProtocolError) for cause in causes):
        return Fault(
            f"{host} took the connection, and closed it without an answer.",
            f"{SUPPORT} ask why, or try later. {SITE} check the port in BASE_URL.",
        )
    return Fault(f"{host} cannot be reached ({type(error).__name__}).", f"{NETWORK} let this server reach {host}.")


def _causes_of(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an exception and what it came of: ``requests`` keeps the cause in ``args``, urllib3 in ``reason``."""
    while isinstance(error, BaseException):
        yield error
        inner = [getattr(error, "reason", None), error.__cause__, *error.args[:1], error.__context__]
        error = next((each for each in inner if isinstance(each, BaseException)), None)


def _no_trust(host: str, words: str) -> Fault:
    verify = re.search(r"verify failed: ([^(]+?)\.? \(_ssl", words)
    of_openssl = re.search(r"\[SSL(?:: (\w+))?", words)
    name = (of_openssl[1] if of_openssl else None) or "SSLError"
    if verify is None and name in _NO_TLS:
        return Fault(
            f"{host} does not prove who it is: it speaks no TLS.",
            f"{NETWORK} if a proxy opens TLS, name its CA bundle in REQUESTS_CA_BUNDLE. {SITE} else, correct BASE_URL.",
        )
    if verify is None:
        return Fault(f"No TLS connection to {host} comes about ({plain(name)}).", f"{SUPPORT} ask why.")
    return Fault(
        f"{host} does not prove who it is: {plain(verify[1])}.",
        f"{NETWORK} if a proxy opens TLS, name its CA bundle in REQUESTS_CA_BUNDLE. {SUPPORT} else, fix it.",
    )

"""The proxies and the CA bundle that the environment names, read as ``requests`` reads them.

They apply to ``requests`` and to ``httpx2``, so that what works for one works for the other.
"""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from types import CodeType
from typing import Any, Final

import requests
from requests.utils import get_environ_proxies, select_proxy
from urllib3.exceptions import HTTPError
from urllib3.util import Url, parse_url

#: The proxy schemes that ``requests`` supports, with the module that each needs, if any.
REQUESTS_SCHEMES: Final = {
    "http": "",
    "https": "",
    **dict.fromkeys(("socks4", "socks4a", "socks5", "socks5h"), "socks"),
}
_DISTRIBUTIONS: Final = {"socks": "PySocks", "socksio": "socksio"}
_BUNDLE_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class ProxyUnusable(requests.exceptions.ProxyError):
    """The environment names a proxy that cannot be used. ``cause`` says why, without the proxy's password."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class BundleMissing(requests.ConnectionError):
    """The environment names a CA bundle that does not exist; ``cause`` says so."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def proxies_and_ca_bundle(url: str) -> dict[str, Any]:
    """Return the ``proxies`` and ``verify`` that ``requests`` would take from the environment for this URL.

    A proxy without a scheme is taken to be an HTTP proxy.
    """
    bundle = next(filter(None, map(os.environ.get, _BUNDLE_VARIABLES)), None)
    proxy = select_proxy(url, get_environ_proxies(url))
    if proxy and "://" not in proxy:
        # As curl does. requests would take a host name without a dot for a scheme.
        proxy = f"http://{proxy.removeprefix('//')}"
    proxies = {url.partition(":")[0]: proxy} if proxy else {}
    return {"proxies": proxies, "verify": bundle or True}


def obstacle(proxy: str | None, bundle: str | bool, schemes: dict[str, str] = REQUESTS_SCHEMES) -> OSError | None:
    """Return an error that says why nothing can be sent with this proxy and CA bundle, or ``None``.

    :param proxy: the proxy's URL.
    :param bundle: the path of a CA bundle, or a boolean, as for ``verify`` of ``requests``.
    :param schemes: the proxy schemes that can be used, with the module that each needs.
    """
    if isinstance(bundle, str) and not Path(bundle).exists():
        return BundleMissing(f"the CA certificate bundle that {' or '.join(_BUNDLE_VARIABLES)} names does not exist")
    if not proxy:
        return None
    try:
        address = parse_url(proxy)
    except HTTPError:
        address = Url()
    if not address.host:
        return ProxyUnusable("the environment names a proxy with an invalid address")
    scheme = str(address.scheme)
    if scheme not in schemes:
        known = ", ".join(schemes)
        return ProxyUnusable(f"the environment names a proxy with the scheme {scheme}, which is not one of {known}")
    module = schemes[scheme]
    if module and find_spec(module) is None:
        return ProxyUnusable(f"the environment names a SOCKS proxy, which needs {_DISTRIBUTIONS[module]}")
    return None


def described(error: BaseException) -> str:
    """Return the name of an error's class and, where it is ours, its cause; the words of others may hold secrets."""
    cause = getattr(error, "cause", "")
    return f"{type(error).__name__}: {cause}" if cause else type(error).__name__


def suppress_tracing() -> AbstractContextManager[Any]:
    """Keep OpenTelemetry from recording a call whose URL contains a state and a userid.

    OpenTelemetry is not imported for this: if nothing else has imported it, nothing is traced.
    """
    opentelemetry = sys.modules.get("opentelemetry.instrumentation.utils")
    suppressed: AbstractContextManager[Any] = getattr(opentelemetry, "suppress_http_instrumentation", nullcontext)()
    return suppressed


def interruption(error: BaseException) -> BaseException | None:
    """Return what a signal handler of the site's raised, if that is what this error comes from, else ``None``.

    A handler for SIGALRM that raises ``TimeoutError`` means the site's own time limit, and not that AIRisk is slow.
    """
    if threading.current_thread() is not threading.main_thread():
        return None
    handlers = set(_handlers())
    for each in _chain(error):
        traceback = each.__traceback__
        while traceback is not None:
            if traceback.tb_frame.f_code in handlers:
                return each
            traceback = traceback.tb_next
    return None


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the errors that led to this one, the first of them first."""
    if error is not None:
        yield from _chain(error.__cause__ or error.__context__)
        yield error


def _handlers() -> Iterator[CodeType]:
    for number in signal.valid_signals():
        handler: Any = signal.getsignal(number)
        if callable(handler):
            function = getattr(handler, "func", handler)
            function = function if hasattr(function, "__code__") else function.__call__
            code = getattr(function, "__code__", None)
            if isinstance(code, CodeType):
                yield code

"""The proxies and the CA bundle that the environment names, read as ``requests`` reads them.

They apply to ``requests`` and to ``httpx2``, so that what works for one works for the other.
"""

import os
import sys
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
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


def suppress_tracing() -> AbstractContextManager[Any]:
    """Keep OpenTelemetry from recording a call whose URL contains a state and a userid.

    OpenTelemetry is not imported for this: if nothing else has imported it, nothing is traced.
    """
    opentelemetry = sys.modules.get("opentelemetry.instrumentation.utils")
    suppressed: AbstractContextManager[Any] = getattr(opentelemetry, "suppress_http_instrumentation", nullcontext)()
    return suppressed

"""What the environment says about the way to AIRisk: proxies and CA bundle, read as ``requests`` reads them.

Both sides, ``requests`` and ``httpx2``, take them from here, so that what works for one works for the other.
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

#: By scheme: the package that ``requests`` needs for such a proxy, if any.
REQUESTS_SCHEMES: Final = {
    "http": "",
    "https": "",
    **dict.fromkeys(("socks4", "socks4a", "socks5", "socks5h"), "socks"),
}
_DISTRIBUTIONS: Final = {"socks": "PySocks", "socksio": "socksio"}
_BUNDLE_VARIABLES: Final = ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")


class ProxyUnusable(requests.exceptions.ProxyError):
    """The proxy that the environment names cannot be used. ``cause`` says why, without the proxy's password."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


class BundleMissing(requests.ConnectionError):
    """The CA bundle that the environment names is not there, as ``cause`` says."""

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


def proxies_and_ca_bundle(url: str) -> dict[str, Any]:
    """Return ``proxies`` and ``verify`` for calls of this URL, as ``requests`` would take them from the environment.

    A proxy without a scheme is an HTTP proxy.
    """
    bundle = next(filter(None, map(os.environ.get, _BUNDLE_VARIABLES)), None)
    proxy = select_proxy(url, get_environ_proxies(url))
    if proxy and "://" not in proxy:
        # As curl has it. requests takes the name of a host without a dot for a scheme.
        proxy = f"http://{proxy.removeprefix('//')}"
    proxies = {url.partition(":")[0]: proxy} if proxy else {}
    return {"proxies": proxies, "verify": bundle or True}


def obstacle(proxy: str | None, bundle: str | bool, schemes: dict[str, str] = REQUESTS_SCHEMES) -> OSError | None:
    """Return the error that says why nothing can be sent with such an environment, or ``None``.

    :param schemes: of proxies that can be used, with the module that each needs.
    """
    if isinstance(bundle, str) and not Path(bundle).exists():
        return BundleMissing(f"the CA certificate bundle that {' or '.join(_BUNDLE_VARIABLES)} names is not there")
    if not proxy:
        return None
    try:
        address = parse_url(proxy)
    except HTTPError:
        address = Url()
    if not address.host:
        return ProxyUnusable("the environment names a proxy whose address cannot be read")
    scheme = str(address.scheme)
    if scheme not in schemes:
        known = ", ".join(schemes)
        return ProxyUnusable(f"the environment names a proxy of the scheme {scheme}, which is none of {known}")
    module = schemes[scheme]
    if module and find_spec(module) is None:
        return ProxyUnusable(f"the environment names a SOCKS proxy, which needs {_DISTRIBUTIONS[module]}")
    return None


def suppress_tracing() -> AbstractContextManager[Any]:
    """Let OpenTelemetry make no span of a call whose URL carries a state and a userid.

    Not imported here: where nothing has loaded it, nothing traces.
    """
    opentelemetry = sys.modules.get("opentelemetry.instrumentation.utils")
    suppressed: AbstractContextManager[Any] = getattr(opentelemetry, "suppress_http_instrumentation", nullcontext)()
    return suppressed

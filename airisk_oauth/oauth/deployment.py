"""One AIRisk deployment: its addresses, the client registered there, and the limits of a call."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final, cast
from urllib.parse import urlsplit

DEFAULT_PORTS: Final = {"http": 80, "https": 443}


@dataclass(frozen=True)
class Deployment:
    """One AIRisk deployment, as ``AIRISK_OAUTH[alias]`` describes it."""

    alias: str
    base_url: str
    client_id: str
    client_secret: str = field(repr=False)
    redirect_uri: str
    authorize_path: str = "/api/oauth2"
    token_path: str = "/api/oauth2/Token"  # noqa: S105 - a path
    userid: str = "airisk_oauth.userids.from_identity"
    silent_renewal: bool = True
    code_from: str = "browser"
    renew_before: int = 300
    renew_unused_for: int = 30
    timeout: tuple[float, float] = (5, 10)
    api_timeout: tuple[float, float] = (5, 30)
    extra_authorize_params: Mapping[str, str] = field(default_factory=dict)
    extra_token_params: Mapping[str, str] = field(default_factory=dict)

    @property
    def authorize_url(self) -> str:
        return self.base_url + self.authorize_path

    @property
    def token_url(self) -> str:
        return self.base_url + self.token_path

    @cached_property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port that the bearer may be sent to."""
        return cast("tuple[str, str, int]", origin_of(self.base_url))

    @property
    def origin_text(self) -> str:
        """The origin as it is noted beside a token, such as ``https://demo.aicrisk.com:443``."""
        scheme, host, port = self.origin
        return f"{scheme}://{host}:{port}"


def origin_of(url: str) -> tuple[str, str, int] | None:
    """Return scheme, host and port of an absolute http(s) URL, or ``None`` for anything else."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    if parts.scheme not in DEFAULT_PORTS or not parts.hostname or "@" in parts.netloc:
        return None
    return parts.scheme, parts.hostname, port or DEFAULT_PORTS[parts.scheme]

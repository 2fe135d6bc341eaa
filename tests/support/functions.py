"""The functions of a site that return its deployments and keys."""

from typing import Any

from airisk_oauth import conf, sealing


class SiteFunction:
    """A function of the site's own, which a setting names.

    :ivar returns: what it returns, or raises if that is an exception, or calls if that is a function.
    :ivar calls: how often it was called.
    """

    def __init__(self) -> None:
        self.returns: Any = None
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        if isinstance(self.returns, Exception):
            raise self.returns
        return self.returns() if callable(self.returns) else self.returns


deployments = SiteFunction()
keys = SiteFunction()
no_function = "a string"


def name_deployments(settings: Any, returns: Any) -> SiteFunction:
    """Set ``AIRISK_OAUTH`` to the function, and what it returns."""
    settings.AIRISK_OAUTH = "tests.support.functions.deployments"
    deployments.returns, deployments.calls = returns, 0
    return deployments


def name_keys(settings: Any, *returns: Any) -> SiteFunction:
    """Set ``AIRISK_OAUTH_ENCRYPTION_KEYS`` to the function, and the keys it returns, or the exception it raises."""
    settings.AIRISK_OAUTH_ENCRYPTION_KEYS = "tests.support.functions.keys"
    keys.returns = returns[0] if returns and isinstance(returns[0], Exception) else list(returns)
    keys.calls = 0
    return keys


def time_passes(monkeypatch: Any) -> None:
    """Make what the functions returned too old, from now on always."""
    for source in (conf.DEPLOYMENTS, sealing.KEYS):
        monkeypatch.setattr(source, "every", 0.0)

"""Connect the users of a Django site to AIRisk.

PYTEST_DONT_REWRITE: our pytest plugin has no assertion to rewrite, and pytest would warn of what is imported before it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.async_client import AsyncAIRiskClient
    from .client.sessions import AIRiskAuth, AIRiskSession

__all__ = ["AIRiskAuth", "AIRiskSession", "AsyncAIRiskClient"]


def __getattr__(name: str) -> Any:
    # On first use: models cannot be imported before the apps are ready, and requests and httpx2 are heavy.
    if name == "AsyncAIRiskClient":
        from .client import async_client

        return async_client.AsyncAIRiskClient
    if name in __all__:
        from .client import sessions

        return getattr(sessions, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

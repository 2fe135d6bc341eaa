"""Connect the users of a Django site to AIRisk.

PYTEST_DONT_REWRITE: our pytest plugin has no assertions to rewrite, and pytest would warn about what was imported
before it.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .client.async_client import AsyncAIRiskClient
    from .client.auth import AIRiskAuth
    from .client.sessions import AIRiskSession

__all__ = ["AIRiskAuth", "AIRiskSession", "AsyncAIRiskClient"]


def __getattr__(name: str) -> Any:
    # On first use: models cannot be imported before the apps are ready, and requests and httpx2 are heavy.
    if name == "AIRiskAuth":
        from .client.auth import AIRiskAuth

        return AIRiskAuth
    if name == "AIRiskSession":
        from .client.sessions import AIRiskSession

        return AIRiskSession
    if name == "AsyncAIRiskClient":
        from .client.async_client import AsyncAIRiskClient

        return AsyncAIRiskClient
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

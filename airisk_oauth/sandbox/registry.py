"""Which clients and users exist on the make-believe AIRisk. Settings are read anew at every question."""

from collections.abc import Mapping
from typing import TypeAlias

from django.conf import settings

Clients: TypeAlias = Mapping[str, Mapping[str, str]]


def clients() -> Clients:
    """Every `APIUser`: its client_id, with `client_secret` and `redirect_uris`, comma-separated as in AIRisk.

    Where `AIRISK_OAUTH_SANDBOX_CLIENTS` is unset, they are the clients that the site itself is set up as.
    """
    configured: Clients | None = getattr(settings, "AIRISK_OAUTH_SANDBOX_CLIENTS", None)
    if configured is not None:
        return configured
    derived: dict[str, dict[str, str]] = {}
    for deployment in getattr(settings, "AIRISK_OAUTH", {}).values():
        client = derived.setdefault(deployment.get("CLIENT_ID", ""), {"redirect_uris": ""})
        client["client_secret"] = deployment.get("CLIENT_SECRET", "")
        # Two deployments may be one client with a callback each.
        client["redirect_uris"] += f"{deployment.get('REDIRECT_URI', '')},"
    return derived


def redirect_uris(client: Mapping[str, str]) -> list[str]:
    """The addresses to which AIRisk may send a browser for this client."""
    return [uri.strip() for uri in client["redirect_uris"].split(",") if uri.strip()]


def display_name(userid: str) -> str | None:
    """The name of an `ApplicationUser`, or None if there is none with this id."""
    users: Mapping[str, str] | None = getattr(settings, "AIRISK_OAUTH_SANDBOX_USERS", None)
    if users is not None:
        return users.get(userid)
    return None if not userid or userid.startswith("unknown") else userid

"""Which clients and users exist on the make-believe AIRisk. Settings are read anew at every question."""

from collections.abc import Iterable, Mapping
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
    deployments = getattr(settings, "AIRISK_OAUTH", {}).values()
    names = ("CLIENT_ID", "CLIENT_SECRET", "REDIRECT_URI")
    return clients_of(tuple(deployment.get(name, "") for name in names) for deployment in deployments)


def clients_of(deployments: Iterable[tuple[str, ...]]) -> Clients:
    """The clients that a site is, by `client_id`, `client_secret` and `redirect_uri` of each deployment."""
    derived: dict[str, dict[str, str]] = {}
    for client_id, client_secret, redirect_uri in deployments:
        client = derived.setdefault(client_id, {"redirect_uris": ""})
        client["client_secret"] = client_secret
        # Two deployments may be one client with a callback each.
        client["redirect_uris"] += f"{redirect_uri},"
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

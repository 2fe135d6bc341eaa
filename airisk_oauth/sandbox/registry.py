"""The clients and users that exist on the simulated AIRisk. Settings are read on every call."""

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from django.conf import settings
from django.utils.module_loading import import_string

Clients: TypeAlias = Mapping[str, Mapping[str, str]]


def clients() -> Clients:
    """Return each `APIUser` by its client_id, with `client_secret` and `redirect_uris`, comma-separated as on AIRisk.

    If `AIRISK_OAUTH_SANDBOX_CLIENTS` is not set, these are the clients in the site's own `AIRISK_OAUTH`.
    """
    configured: Clients | None = getattr(settings, "AIRISK_OAUTH_SANDBOX_CLIENTS", None)
    if configured is not None:
        return configured
    configured_by_site = getattr(settings, "AIRISK_OAUTH", {})
    if isinstance(configured_by_site, str):
        configured_by_site = import_string(configured_by_site)()
    deployments = configured_by_site.values()
    names = ("CLIENT_ID", "CLIENT_SECRET", "REDIRECT_URI")
    return clients_of(tuple(deployment.get(name, "") for name in names) for deployment in deployments)


def clients_of(deployments: Iterable[tuple[str, ...]]) -> Clients:
    """Return the clients of a site, given `client_id`, `client_secret` and `redirect_uri` of each deployment."""
    derived: dict[str, dict[str, str]] = {}
    for client_id, client_secret, redirect_uri in deployments:
        client = derived.setdefault(client_id, {"redirect_uris": ""})
        client["client_secret"] = client_secret
        # Two deployments may use the same client, each with its own callback.
        client["redirect_uris"] += f"{redirect_uri},"
    return derived


def redirect_uris(client: Mapping[str, str]) -> list[str]:
    """Return the addresses that AIRisk may redirect a browser to for this client."""
    return [uri.strip() for uri in client["redirect_uris"].split(",") if uri.strip()]


def display_name(userid: str) -> str | None:
    """Return the name of the `ApplicationUser` with this id, or None if there is none."""
    users: Mapping[str, str] | None = getattr(settings, "AIRISK_OAUTH_SANDBOX_USERS", None)
    if users is not None:
        return users.get(userid)
    return None if not userid or userid.startswith("unknown") else userid

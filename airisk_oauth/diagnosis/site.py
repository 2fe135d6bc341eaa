"""What the site itself must have in place: tables, a userid, a callback."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections, router, transaction
from django.http.request import validate_host

from .. import conf, userids
from ..oauth.deployment import Deployment
from .faults import FROM_IDENTITY, SERVER, SITE, STAFF, Fault


def check_tables() -> str:
    """Check that each of our tables can be read, in the database that it is written to.

    :raises Fault: one cannot.
    """
    for model in apps.get_app_config("airisk_oauth").get_models():
        alias = router.db_for_write(model)
        table = model._meta.db_table
        try:
            with transaction.atomic(using=alias):
                exists = table in connections[alias].introspection.table_names()
        except DatabaseError as error:
            raise Fault(
                f"The database {alias!r} cannot be read ({type(error).__name__}).",
                f"{SERVER} Make sure that it is running, and that DATABASES points to it.",
            ) from None
        if not exists:
            raise Fault(f"The database {alias!r} has no table {table}.", f"{SERVER} Run manage.py migrate.")
        try:
            with transaction.atomic(using=alias):
                model._default_manager.using(alias).first()
        except DatabaseError as error:
            raise Fault(
                f"The table {table} does not match this version of the package ({type(error).__name__}).",
                f"{SERVER} Run manage.py migrate.",
            ) from None
    return "all tables are in place"


def userid_of(deployment: Deployment, user: Any) -> str:
    """Return the user's userid on AIRisk.

    :raises Fault: this site has none, or its function fails.
    """
    try:
        userid = userids.userid_of(deployment, user)
    except ImproperlyConfigured as error:
        raise Fault(str(error), f"{SITE} Correct USERID, or fix the function that it names.") from None
    except Exception as error:  # noqa: BLE001 - the site's own code
        raise Fault(
            f"{deployment.userid} raised {type(error).__name__} for {user}.",
            f"{SITE} Correct USERID, or fix the function that it names.",
        ) from None
    if userid is None:
        raise Fault(
            f"This site has no AIRisk userid for {user}: {deployment.userid} returns none.",
            f"{STAFF} Add an AIRisk identity for this user in the admin."
            if deployment.userid == FROM_IDENTITY
            else f"{SITE} Correct what {deployment.userid} returns.",
        )
    return userid


def check_callback(deployment: Deployment) -> str:
    """Check that ``REDIRECT_URI`` leads to this site's callback, as far as a site can know its own address.

    :raises Fault: it does not.
    """
    path = conf.page_url("callback", deployment.alias)
    if path is None:
        return "this site does not include airisk_oauth.urls, so nobody can connect in a browser"
    uri = urlsplit(deployment.redirect_uri)
    paths = {path, f"{path}{deployment.alias}/"} if deployment.alias == conf.DEFAULT_ALIAS else {path}
    if not any(uri.path.endswith(each) for each in paths):
        raise Fault(
            f"REDIRECT_URI {deployment.redirect_uri} is not this deployment's callback, which is at {path}.",
            f"{SITE} Set REDIRECT_URI to {urljoin(deployment.redirect_uri, path)}, and have the same address "
            "registered with AIRisk. If a proxy maps one address to the other, nothing is wrong.",
        )
    host = f"[{uri.hostname}]" if ":" in str(uri.hostname) else str(uri.hostname)
    allowed: Sequence[str] = settings.ALLOWED_HOSTS
    # An empty list means nothing: under DEBUG Django allows this machine's names.
    if allowed and not validate_host(host, allowed):
        raise Fault(
            f"REDIRECT_URI leads to {host}, but this site does not answer there: {host} is not in ALLOWED_HOSTS.",
            f"{SITE} Correct REDIRECT_URI, or add {host} to ALLOWED_HOSTS.",
        )
    stripped = "" if uri.path in paths else f", if a proxy strips {uri.path.removesuffix(path)}"
    return f"REDIRECT_URI is this site's callback{stripped}{_other_hosts(host, allowed)}"


def _other_hosts(host: str, allowed: Sequence[str]) -> str:
    """Name the hosts where a visitor has a different session than at the callback's host."""
    this_machine = ("localhost", "127.0.0.1", "[::1]", "testserver")
    others = [
        name
        for name in allowed
        if name.lower() != host and not name.startswith((".", "*")) and name not in this_machine
    ]
    if not others or settings.SESSION_COOKIE_DOMAIN:
        return ""
    return f"; people who sign in at {', '.join(others)} cannot connect, because AIRisk sends them to {host}"

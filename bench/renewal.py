"""Renewing many tokens: our sweep, django-esi's bulk refresh, and bare threads that store nothing."""

import http.client
import secrets
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from pathlib import Path
from threading import local
from time import perf_counter
from urllib.parse import parse_qs, urlencode, urlsplit

import requests
from django.apps import apps
from django.conf import settings
from django.core.cache import cache
from django.utils import timezone

from airisk_oauth import conf
from airisk_oauth.tokens.report import RENEWED
from airisk_oauth.tokens.selection import Selection
from airisk_oauth.tokens.sweep import sweep

from .airisk import AIRisk
from .contenders import Measure, Measurement
from .people import Queries, connected_users, expire_tokens, migrated

WORKERS = 32
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def prepare(contender: str, number: str) -> Measure:
    prepares = {"ours": ours, "prepared": prepared, "django-esi": django_esi, "bare": bare, "requests": bare_requests}
    measure = prepares[contender](int(number))
    airisk = AIRisk(settings.AIRISK_URL)

    def counted() -> Measurement:
        airisk.renewed()
        measured, seen = measure(), airisk.renewed()
        least = seen["least"] if seen["owners"] == int(number) else 0
        return {**measured, "least": least, "most": seen["most"]}

    return counted


def ours(number: int) -> Measure:
    migrated()
    connected_users(number, expires_in=-60)
    return partial(measured_sweep, number, Queries())


def prepared(number: int) -> Measure:
    """Sweep a database that another process has filled, so that filling it does not add to the peak of memory."""
    return partial(measured_sweep, number, Queries())


def measured_sweep(number: int, queries: Queries) -> Measurement:
    expire_tokens(-60)
    queries.count = 0
    memory = peak()
    start = perf_counter()
    report = sweep(Selection(conf.deployment()), workers=WORKERS)
    seconds = perf_counter() - start
    if report.counts[RENEWED] != number:
        raise RuntimeError(f"Not all tokens were renewed: {report}")
    return {"rate": number / seconds, "queries": queries.count / number, "memory": peak() - memory}


def peak() -> float:
    """Return the peak memory of this process so far, in MiB.

    Read from ``/proc``, because ``getrusage`` on Linux starts with the memory of the parent process.
    """
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def django_esi(number: int) -> Measure:
    """Renew one token after the other, as its nightly task does, without its check of the tokens' signatures."""
    migrated()
    # Otherwise it would fetch the keys for that check from the only server that it supports.
    cache.set("esi_sso_jwks", {"keys": []}, timeout=None)
    tokens = apps.get_model("esi", "Token")
    tokens.objects.bulk_create(
        tokens(
            access_token="a-token",
            refresh_token=f"refresh-{i}",
            character_id=i,
            character_name=f"user-{i}",
            character_owner_hash=f"owner-{i}",
        )
        for i in range(number)
    )
    queries = Queries()

    def measure() -> Measurement:
        tokens.objects.update(created=timezone.now() - timedelta(days=1))
        queries.count = 0
        start = perf_counter()
        tokens.objects.all().bulk_refresh()
        seconds = perf_counter() - start
        return {"rate": number / seconds, "queries": queries.count / number}

    return measure


class Bare:
    """Makes the two requests of our flow on a kept connection, and does nothing else."""

    def __init__(self) -> None:
        self.connection = http.client.HTTPConnection(urlsplit(settings.AIRISK_URL).netloc)

    def renew(self, userid: str) -> None:
        deployment = conf.deployment()
        self.connection.request("GET", f"{deployment.authorize_path}?{urlencode(query(userid))}")
        answer = self.connection.getresponse()
        answer.read()
        form = exchange(str(answer.headers["Location"]), userid)
        self.connection.request("POST", deployment.token_path, urlencode(form), FORM)
        self.connection.getresponse().read()


class BareRequests:
    """The same with ``requests``."""

    def __init__(self) -> None:
        self.session = requests.Session()

    def renew(self, userid: str) -> None:
        deployment = conf.deployment()
        answer = self.session.get(deployment.authorize_url, params=query(userid), allow_redirects=False)
        self.session.post(deployment.token_url, exchange(answer.headers["Location"], userid)).json()


def query(userid: str) -> dict[str, str]:
    deployment = conf.deployment()
    return {
        "client_id": deployment.client_id,
        "redirect_uri": deployment.redirect_uri,
        "state": secrets.token_urlsafe(32),
        "userid": userid,
    }


def exchange(location: str, userid: str) -> dict[str, str]:
    deployment = conf.deployment()
    return {
        "code": parse_qs(urlsplit(location).query)["code"][0],
        "client_id": deployment.client_id,
        "client_secret": deployment.client_secret,
        "redirect_uri": deployment.redirect_uri,
        "userid": userid,
    }


def threads(client: type[Bare] | type[BareRequests], number: int) -> Measure:
    def measure() -> Measurement:
        own = local()

        def renew(i: int) -> None:
            if not hasattr(own, "client"):
                own.client = client()
            own.client.renew(f"airisk-{i}")

        start = perf_counter()
        with ThreadPoolExecutor(WORKERS) as pool:
            for _done in pool.map(renew, range(number)):
                pass
        return {"rate": number / (perf_counter() - start), "queries": 0}

    return measure


bare = partial(threads, Bare)
bare_requests = partial(threads, BareRequests)

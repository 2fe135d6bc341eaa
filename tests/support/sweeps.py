"""Sweeps, and AIRisk as a sweep meets it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any
from urllib.parse import urlencode

import responses
from django.db import connection

from airisk_oauth import conf
from airisk_oauth.models import AIRiskToken
from airisk_oauth.tokens.report import Report
from airisk_oauth.tokens.selection import Selection
from airisk_oauth.tokens.sweep import sweep
from tests.support.database import quoted
from tests.support.wire import BASE_URL


def swept(alias: str = "default", **options: Any) -> Report:
    """Sweep a deployment; the options are those of a selection and of a sweep."""
    of_sweep = {name: options.pop(name) for name in ("workers", "stop", "progress") if name in options}
    return sweep(Selection(conf.deployment(alias), **options), **of_sweep)


def counted(report: Report) -> dict[str, int]:
    """Return what a sweep counted, zeros left out."""
    assert report.counts["skipped"] == report.reasons.total()
    return dict(+report.counts)


def run(alias: str = "default", **options: Any) -> dict[str, int]:
    """Sweep a deployment, and return what was counted, zeros left out."""
    return counted(swept(alias, **options))


@contextmanager
def just_before(what: str, tokens: list[AIRiskToken], **values: Any) -> Iterator[None]:
    """Change these rows, once, just before the first statement that has this in it, as another process might."""
    waiting = [values]

    def execute_later(execute: Any, sql: str, *args: Any) -> Any:
        if waiting and what in quoted(sql):
            AIRiskToken.objects.filter(userid__in=[token.userid for token in tokens]).update(**waiting.pop())
        return execute(sql, *args)

    with connection.execute_wrapper(execute_later):
        yield
    assert not waiting


@contextmanager
def failing_at(fails: Callable[[int], bool], pause: float = 0) -> Iterator[None]:
    """Let AIRisk be down for those authorizations, numbered from 0; the others take ``pause`` seconds."""
    numbers = count()

    def authorize(request: Any) -> tuple[int, dict[str, str], str]:
        if fails(next(numbers)):
            return 503, {}, ""
        time.sleep(pause)
        query = urlencode({"code": "code", "state": request.params["state"]})
        return 302, {"Location": f"https://app.example.com/airisk/callback/?{query}"}, ""

    with responses.RequestsMock() as wire:
        wire.add_callback(responses.GET, f"{BASE_URL}/api/oauth2", authorize)
        wire.post(f"{BASE_URL}/api/oauth2/Token", json={"access_token": "renewed"})
        yield


@contextmanager
def answering(status_of: Callable[[str], int]) -> Iterator[list[str]]:
    """Let AIRisk answer each userid ("" is the application) with this status; yield the userids in the order asked."""
    asked: list[str] = []

    def authorize(request: Any) -> tuple[int, dict[str, str], str]:
        asked.append(request.params.get("userid", ""))
        status = status_of(asked[-1])
        query = urlencode({"code": "code", "state": request.params["state"]})
        return status, {"Location": f"https://app.example.com/airisk/callback/?{query}"} if status == 302 else {}, ""

    with responses.RequestsMock(assert_all_requests_are_fired=False) as wire:
        wire.add_callback(responses.GET, f"{BASE_URL}/api/oauth2", authorize)
        wire.post(f"{BASE_URL}/api/oauth2/Token", json={"access_token": "renewed"})
        yield asked


def refusing(departed: list[AIRiskToken], application: int = 302, others: int = 302) -> Callable[[str], int]:
    """Return what AIRisk answers when it does not know these users."""
    statuses = {"": application, **{token.userid: 401 for token in departed}}
    return lambda userid: statuses.get(userid, others)

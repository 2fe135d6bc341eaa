"""The reasons why a person could not be connected: as scripts, alerts and people read them."""

import logging
import re
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import Http404
from django.test import Client

from airisk_oauth.connecting.problems import ConnectionFailed, Problem, reason_of
from airisk_oauth.connecting.reasons import Reason
from airisk_oauth.exceptions import AIRiskInvalidResponse, AIRiskRefused, AIRiskUnavailable
from airisk_oauth.models import PendingAuthorization
from airisk_oauth.providers.source import SettingUnavailable
from airisk_oauth.sandbox.world import World
from tests.support.browsing import authorize, start

#: Scripts and alerts know these, so none may change.
CODES = {
    "signed_out": 403,
    "at_another_host": 409,
    "no_identity": 403,
    "malformed_callback": 400,
    "unknown_deployment": 404,
    "callback_rejected": 403,
    "signed_in_again": 403,
    "state_expired": 410,
    "state_spent": 410,
    "identity_changed": 403,
    "not_permitted": 403,
    "access_denied": 403,
    "airisk_refused": 403,
    "airisk_unavailable": 502,
    "airisk_invalid_response": 502,
    "settings_unavailable": 503,
}


def test_reasons_keep_their_codes_and_statuses() -> None:
    assert {reason.value: reason.status for reason in Reason} == CODES


@pytest.mark.parametrize("reason", Reason)
def test_reason_tells_people_what_to_do(reason: Reason) -> None:
    assert not re.search(r"[.!]$", reason.title)
    assert reason.text.endswith(".")


@pytest.mark.parametrize(
    ("problem", "reason"),
    [
        (ConnectionFailed(Reason.STATE_SPENT), Reason.STATE_SPENT),
        (Http404(), Reason.UNKNOWN_DEPLOYMENT),
        (AIRiskRefused(401), Reason.AIRISK_REFUSED),
        (AIRiskUnavailable("down"), Reason.AIRISK_UNAVAILABLE),
        (SettingUnavailable("a function fails"), Reason.SETTINGS_UNAVAILABLE),
        (AIRiskInvalidResponse("odd"), Reason.AIRISK_INVALID_RESPONSE),
    ],
    ids=repr,
)
def test_every_problem_has_a_reason(problem: Problem, reason: Reason) -> None:
    assert reason_of(problem) is reason


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/airisk/callback/", "MalformedCallback"),
        ("/airisk/callback/?state=a&code=b", "CallbackRejected"),
        ("/airisk/callback/nowhere/?state=a&code=b", "Http404"),
    ],
)
def test_log_names_why_a_callback_was_rejected(
    path: str, error: str, browser: Client, mia: User, caplog: pytest.LogCaptureFixture
) -> None:
    browser.get(path)
    assert logged(caplog, "callback.rejected") == (error, mia.pk)


def test_log_names_who_is_signed_out(client: Client, db: None, caplog: pytest.LogCaptureFixture) -> None:
    client.get("/airisk/callback/?state=a&code=b")
    assert logged(caplog, "callback.rejected") == ("SignedOut", None)


def test_log_tells_expired_state_from_spent_one(
    browser: Client, mia: User, airisk: World, caplog: pytest.LogCaptureFixture
) -> None:
    back = authorize(start(browser))
    begun = PendingAuthorization.objects.values_list("created_at", flat=True).get()
    PendingAuthorization.objects.update(created_at=begun.replace(year=2020))
    browser.get(back)
    assert logged(caplog, "callback.rejected") == ("StateExpired", mia.pk)
    PendingAuthorization.objects.update(created_at=begun)
    airisk.switches.outage = True
    browser.get(back)
    assert logged(caplog, "connection.failed") == ("AIRiskUnavailable", mia.pk)
    browser.get(back)
    assert logged(caplog, "callback.rejected") == ("StateSpent", mia.pk)


def logged(caplog: pytest.LogCaptureFixture, event: str) -> tuple[str, Any]:
    """Return the fields of the one warning of our pages, and clear the log."""
    [record] = [record for record in caplog.records if record.name == "airisk_oauth.views"]
    caplog.clear()
    assert (record.levelno, vars(record)["event"]) == (logging.WARNING, event)
    return vars(record)["error"], vars(record)["user_id"]

"""The error tree, and the messages and attributes of its errors."""

import pickle
import re

import pytest
from django.core.exceptions import ImproperlyConfigured

from airisk_oauth import exceptions
from airisk_oauth.exceptions import (
    AIRiskError,
    AIRiskInvalidResponse,
    AIRiskRefused,
    AIRiskUnavailable,
    ConnectionRequired,
)

LEAVES = {AIRiskUnavailable, AIRiskRefused, AIRiskInvalidResponse, ConnectionRequired}


def test_error_tree_is_as_its_module_draws() -> None:
    drawn = re.findall(r"[├└]── (\w+)", str(exceptions.__doc__))
    assert set(AIRiskError.__subclasses__()) == LEAVES == {getattr(exceptions, name) for name in drawn}
    assert not [leaf for leaf in LEAVES if leaf.__subclasses__()]


def test_wrong_setting_is_outside_the_tree() -> None:
    assert not issubclass(ImproperlyConfigured, AIRiskError)
    assert not issubclass(AIRiskError, ImproperlyConfigured)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (AIRiskRefused(400), "AIRisk refused the request with status 400"),
        (AIRiskRefused(400, "Invalid Code"), "AIRisk refused the request with status 400: Invalid Code"),
        (AIRiskRefused(401, "", "00-1"), "AIRisk refused the request with status 401 (traceId 00-1)"),
        (AIRiskRefused(302, "access_denied"), "AIRisk refused the request by redirect: access_denied"),
        (AIRiskRefused(200, "No"), "AIRisk refused the request in an answer with status 200: No"),
        (AIRiskRefused(0), "AIRisk refused the request"),
        (AIRiskRefused(401, "No", "00-1"), "AIRisk refused the request with status 401: No (traceId 00-1)"),
        (AIRiskUnavailable("Down."), "Down."),
        (AIRiskUnavailable("Down.", retry_after=3), "Down."),
        (AIRiskInvalidResponse("Odd."), "Odd."),
        (ConnectionRequired("Connect."), "Connect."),
        (ConnectionRequired("Connect.", deployment="second", connect_url="/airisk/"), "Connect."),
    ],
)
def test_error_message_survives_a_pickle(error: AIRiskError, words: str) -> None:
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert str(error) == str(again) == words
    assert (type(again), vars(again)) == (type(error), vars(error))


def test_error_attributes_have_defaults() -> None:
    assert vars(AIRiskUnavailable("")) == {"retry_after": None}
    assert vars(AIRiskRefused(400)) == {"status": 400, "reason": "", "trace_id": ""}
    assert vars(ConnectionRequired("")) == {"deployment": "default", "connect_url": None}

"""Sites with a minimal user model: every page works, and failures are shown without a 500."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
FAILURES = {
    "callback of nobody": [403, "This connection was not started here"],
    "half a callback": [400, "This link does not work"],
    "no deployment": [404, "This link does not work"],
    "signed out": [403, "You are not signed in here"],
    "no identity": [403, "You have no AIRisk identity yet"],
    "refused": [403, "You did not allow the connection"],
    "down": [502, "AIRisk could not be reached"],
    "no permission": [403, "You no longer have permission to do this"],
}


@pytest.fixture(scope="module", params=["Person", "Bare"])
def seen(request: Any) -> dict[str, Any]:
    """What a process that uses all pages of a site with this user model printed."""
    command = [sys.executable, "-W", "error", "-m", "tests.minimal_user.walk", request.param]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_connecting_works_with_a_minimal_user(seen: dict[str, Any]) -> None:
    assert seen["needs"] == [302, "/airisk/connect/?next=%2Fneeds%2F"]
    assert seen["connected"] == [302, "/call/"]
    assert (seen["called"], seen["renewed"]) == ('["a plan"]', '["a plan"]')
    assert seen["tag"]
    assert seen["disconnected"] == [302, "/airisk/"]
    assert seen["rows of the departed"] == 0


def test_failures_work_with_a_minimal_user(seen: dict[str, Any]) -> None:
    assert seen["failures"] == FAILURES


def test_user_key_may_be_in_another_form(seen: dict[str, Any]) -> None:
    assert seen["key in another form"] == [302, "/call/"]


def test_losses_ask_nothing_of_a_user_model(seen: dict[str, Any]) -> None:
    """Such a user has no address to write to."""
    assert seen["told"] == [["boss@example.com"]]


def test_commands_work_with_a_minimal_user(seen: dict[str, Any]) -> None:
    assert seen["swept"]
    assert seen["nobody's sweep"] == "--user: there is no user 'nobody'."
    assert seen["nobody's doctor"] == "There is no user 'nobody'."
    assert "a code for user_42 is refused with a made-up userid" in seen["doctor"]
    assert seen["import"] == "1 added, 0 changed, 1 unchanged."
    assert seen["reseal"] == "0 resealed, 0 cannot be opened."
    assert seen["check"] == "System check identified no issues (0 silenced)."

"""The README, followed to the letter."""

import re
import subprocess
from functools import partial
from pathlib import Path

import pytest

from airisk_oauth.sandbox.world import World
from tests.support import pages, quickstart
from tests.support.quickstart import PYTHON, Site

snippet = partial(pages.snippet, "README.md")


@pytest.fixture
def site(tmp_path: Path, airisk: World) -> Site:
    return Site(tmp_path)


VISIT = """
import requests
from django.contrib.auth import get_user_model
from django.test import Client
from urllib.parse import urlsplit

get_user_model().objects.create_user("mia")
{identity}
browser = Client(SERVER_NAME="127.0.0.1")
browser.force_login(mia)
to_connect = browser.get("/mine/")
assert to_connect["Location"] == "/airisk/connect/?next=%2Fmine%2F", to_connect
to_airisk = browser.post("/airisk/connect/", {{"next": "/mine/"}})
back = urlsplit(requests.get(to_airisk["Location"], allow_redirects=False).headers["Location"])
home = browser.get(f"{{back.path}}?{{back.query}}")
assert home["Location"] == "/mine/", home
print(browser.get("/mine/").json())
{outside}
print(mine, agents)
"""


def test_quickstart_ends_in_a_call_to_airisk(site: Site) -> None:
    for line in [*snippet("manage.py migrate").splitlines(), snippet("check_airisk")]:
        site.run(PYTHON, *line.split()[1:])
    output = site.manage("shell", "-c", VISIT.format(identity=snippet("objects.create"), outside=snippet("for_user")))
    assert output.count("lastUpdated") > 1
    assert "botSuggestion" in output
    cron = snippet("refresh_airisk_tokens").split()
    assert "0 refused" in site.manage(*cron[cron.index("manage.py") + 1 :])


def test_database_note_satisfies_the_check(site: Site) -> None:
    ids = (
        "from django.core.checks import run_checks; print(*(m.id for m in run_checks(include_deployment_checks=True)))"
    )
    assert "airisk_oauth.W009" in site.manage("shell", "-c", ids)
    site.append("settings.py", snippet("transaction_mode"))
    site.manage("migrate")
    output = site.manage("shell", "-c", ids)
    assert "airisk_oauth.W004" in output
    assert "airisk_oauth.W009" not in output


def test_install_line_finds_nothing_left_to_do() -> None:
    """It is run in an environment that has everything that the README names, and installs nothing."""
    command = snippet("pip install").split()
    subprocess.run([PYTHON, "-m", *command, "--quiet", "--no-index"], check=True, timeout=60)


def test_make_commands_of_the_readme_exist() -> None:
    targets = re.findall(r"^(\w[\w-]*):", (pages.ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    commands = re.findall(r"^make (\w+)", snippet("make demo"), re.MULTILINE)
    assert commands == ["demo", "test"]
    assert set(commands) <= set(targets)


def test_every_readme_snippet_is_used_in_a_test() -> None:
    source = "".join(Path(str(file)).read_text(encoding="utf-8") for file in (__file__, quickstart.__file__))
    used = {snippet(words) for words in re.findall(r'snippet\("([^"]*)"\)', source)}
    assert used == {text for _language, text in pages.snippets_of("README.md")}

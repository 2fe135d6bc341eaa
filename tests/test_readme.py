"""The README, followed to the letter."""

import re
import shlex
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from airisk_oauth.sandbox.world import World
from tests.support import pages, quickstart
from tests.support.chromium import click, needs_chromium
from tests.support.quickstart import PYTHON, Site
from tests.support.servers import wait_for

snippet = partial(pages.snippet, "README.md")
PASSWORD = "a password that is long enough"


# A chat, with the sandbox


@contextmanager
def served(site: Site) -> Iterator[None]:
    """Serve a site as the README says."""
    [_python, *serve] = commands("runserver")[-1]
    server = subprocess.Popen(
        [PYTHON, *serve, site.address, "--noreload"],
        cwd=site.folder,
        env=site.environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(int(site.address.partition(":")[2]), server)
        yield
    finally:
        server.terminate()
        server.wait(10)


def commands(words: str) -> list[list[str]]:
    """Return the commands of a snippet, split into words."""
    return [shlex.split(line) for line in snippet(words).splitlines()]


@needs_chromium
def test_new_project_ends_in_a_streaming_chat(tmp_path: Path, chromium: Browser) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        site = Site(tmp_path, f"127.0.0.1:{free.getsockname()[1]}")
    [migrate, create_user, identify, _serve] = commands("createsuperuser")
    site.run(PYTHON, *migrate[1:])
    answers = ("--noinput", "--email=mia@example.com")
    site.run(PYTHON, *create_user[1:], *answers, DJANGO_SUPERUSER_PASSWORD=PASSWORD)
    site.run(PYTHON, *identify[1:])
    with served(site), chromium.new_context() as context:
        page = context.new_page()
        page.goto(f"http://{site.address}/")
        page.get_by_label("Username").fill("mia")
        page.get_by_label("Password").fill(PASSWORD)
        click(page, "Log in")
        click(page, "Connect")
        expect(page).to_have_url(f"http://{site.address}/")
        page.get_by_role("combobox").select_option("Risk classes under the EU AI Act")
        page.evaluate(WATCH)
        # A browser with much else to do may draw several pieces at once, but not those of every answer.
        for asked, question in enumerate(["Is it a high risk?", "And why?", *(f"Why, {n}?" for n in range(10))]):
            if asked >= 2 and page.evaluate("seen.size") > asked:
                break
            page.get_by_role("textbox").fill(question)
            click(page, "Ask")
            expect(page.get_by_role("status")).to_contain_text(f"You asked: {question}")
            expect(page.get_by_role("status")).to_contain_text("No other finding.")
        else:
            pytest.fail("No answer came in pieces.")


WATCH = """() => {
  window.seen = new Set();
  const output = document.querySelector("output");
  new MutationObserver(() => seen.add(output.value)).observe(output, { childList: true });
}"""


def test_chat_takes_no_more_than_forty_lines() -> None:
    files = [snippet(words) for words in ("def chat_page", "INSTALLED_APPS +=", "views.chat_page", "csrf_token")]
    lines = [line for text in files for line in text.splitlines() if line.strip()]
    assert len(lines) == 40
    assert f"takes {len(lines)} lines" in pages.text_of("README.md")


# With an AIRisk


@pytest.fixture
def site(tmp_path: Path, airisk: World) -> Site:
    site = Site(tmp_path)
    site.use_airisk()
    return site


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
    site.manage("migrate")
    for command in [*commands("manage.py check\n"), *commands("check_airisk")]:
        site.run(PYTHON, *command[1:])
    output = site.manage("shell", "-c", VISIT.format(identity=snippet("update_or_create"), outside=snippet("for_user")))
    assert output.count("lastUpdated") > 1
    assert "botSuggestion" in output
    cron, _to_nowhere = snippet("refresh_airisk_tokens").split(">")
    assert "0 refused" in site.manage(*cron.partition("manage.py")[2].split())


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
    [command, _startproject] = commands("pip install")
    subprocess.run([PYTHON, "-m", *command, "--quiet", "--no-index"], check=True, timeout=60)


def test_make_commands_of_the_readme_exist() -> None:
    targets = re.findall(r"^(\w[\w-]*):", (pages.ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    commands = re.findall(r"^make (\w+)", snippet("make demo"), re.MULTILINE)
    assert commands == ["demo", "test"]
    assert set(commands) <= set(targets)


def test_every_readme_snippet_is_used_in_a_test() -> None:
    source = "".join(Path(str(file)).read_text(encoding="utf-8") for file in (__file__, quickstart.__file__))
    words = re.findall(r'(?:snippet|commands)\("([^"]*)"\)', source)
    used = {snippet(each.replace("\\n", "\n")) for each in words}
    assert used == {text for _language, text in pages.snippets_of("README.md")}

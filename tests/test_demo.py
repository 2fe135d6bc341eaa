"""The demo does what the README promises, when it is started as by `make demo` and used like by a person."""

import html
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from demo_project.conversations import Conversation, read_conversations
from tests.support.chromium import assert_no_barrier, assert_said, click, needs_chromium
from tests.support.texts import Shown

ROOT = Path(__file__).resolve().parent.parent


class Browser(requests.Session):
    """Reads the text of pages, and submits forms with the CSRF token of the page that it read last."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self.trust_env = False
        self.headers["Accept"] = "text/html"
        self.site = site

    def see(self, path: str, status: int = 200) -> str:
        return self._text(self.get(self.site + path, timeout=10), status)

    def submit(self, path: str, status: int = 200, **fields: str) -> str:
        data = {"csrfmiddlewaretoken": self.csrf_token, **fields}
        return self._text(self.post(self.site + path, data, timeout=10), status)

    def _text(self, response: requests.Response, status: int) -> str:
        assert response.status_code == status, response.text
        self.page = response.text
        match = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', response.text)
        self.csrf_token = match[1] if match else ""
        self.address = response.url.removeprefix(self.site)
        without_tags = re.sub(r"<(style|script).*?</\1>|<[^>]+>", " ", response.text, flags=re.DOTALL)
        return " ".join(html.unescape(without_tags).split())

    def sign_in(self, name: str) -> str:
        self.see("/accounts/login/")
        return self.submit("/accounts/login/", username=name, password=name)

    def switch(self, action: str = "save", **switches: str) -> None:
        """Press a button of the sandbox; switches that are not given are reset to their defaults."""
        self.see("/sandbox/control/")
        fields: Any = {"action": action, "latency": "0", "token_life": "3600", **switches}
        self.submit("/sandbox/control/", **fields)


def manage(*arguments: str, output: Any = subprocess.PIPE, **variables: str) -> subprocess.Popen[str]:
    """Start a command of the demo."""
    return run("manage.py", *arguments, output=output, **variables)


def run(*arguments: str, output: Any = subprocess.PIPE, **variables: str) -> subprocess.Popen[str]:
    """Start a process of the demo without a developer's own settings: an empty variable overrides those in .env."""
    command = [sys.executable, "-W", "error", *arguments]
    ours = {"DJANGO_SETTINGS_MODULE": "demo_project.settings", "PYTHONUNBUFFERED": "1"}
    unset = dict.fromkeys(("SECRET_KEY", "DEBUG", "ALLOWED_HOSTS", "AIRISK_BASE_URL"), "")
    env = {**os.environ, **ours, **unset, **variables}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=output, stderr=subprocess.STDOUT, text=True)


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return process.returncode, output


@contextmanager
def running(log: Path, **variables: str) -> Iterator[str]:
    """Run the development server, and check that it starts without a warning of Django's system checks."""
    address = ("127.0.0.1", int(variables["PORT"]))
    with (
        log.open("w") as output,
        manage("runserver", "--noreload", f"127.0.0.1:{address[1]}", output=output, **variables) as server,
    ):
        try:
            give_up = time.monotonic() + 30
            while is_silent(address):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < give_up, log.read_text()
                time.sleep(0.05)
            assert "System check identified no issues (0 silenced)." in log.read_text()
            yield f"http://127.0.0.1:{address[1]}"
        finally:
            server.terminate()


def is_silent(address: tuple[str, int]) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(address) != 0


def free_port() -> str:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return str(sock.getsockname()[1])


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a demo that is ready to run; it was seeded twice, which must do no harm."""
    database = tmp_path_factory.mktemp("demo") / "demo.sqlite3"
    variables = {"DEBUG": "true", "PORT": free_port(), "DATABASE_URL": f"sqlite:///{database}"}
    for command in (["migrate", "--verbosity", "0"], ["seed_demo"], ["seed_demo"]):
        status, output = end(manage(*command, **variables))
        assert status == 0, output
    assert f"http://127.0.0.1:{variables['PORT']}/" in output
    assert "user_42" in output
    return variables


@pytest.fixture(scope="module")
def site(demo: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("log") / "log", **demo) as url:
        yield url


@pytest.fixture(scope="module")
def signed_in(site: str) -> Iterator[Browser]:
    with Browser(site) as browser:
        browser.sign_in("demo")
        yield browser


@pytest.fixture
def browser(signed_in: Browser) -> Browser:
    """A browser in which the user demo is signed in and not connected; AIRisk works."""
    signed_in.switch()
    signed_in.submit("/airisk/disconnect/")
    return signed_in


def test_two_clicks_lead_to_the_conversations(browser: Browser) -> None:
    home = browser.see("/")
    assert "Not connected" in home
    assert "user_42" in home
    page = browser.submit("/airisk/connect/", next="/conversations/")
    assert browser.address == "/conversations/"
    assert "You are connected to AIRisk." in page
    assert re.search(r"Fetched from AIRisk just now, on your behalf\. \w.+ ago", page)


def test_switches_do_what_the_home_page_says(browser: Browser) -> None:
    browser.submit("/airisk/connect/", next="/")
    browser.switch("end_all_tokens")
    assert "Fetched from AIRisk just now" in browser.see("/conversations/")
    assert re.search(r"Recent events Conversations fetched .+? Token renewed", browser.see("/"))
    browser.switch(outage="on")
    assert "AIRisk is down. Fix AIRisk" in browser.see("/conversations/", status=503)
    browser.switch()
    assert "Fetched from AIRisk just now" in browser.see("/conversations/")


@pytest.mark.parametrize(
    ("name", "status", "address", "words", "state"),
    [
        ("expire", 200, "/conversations/", "Fetched from AIRisk just now", ""),
        ("down", 503, "/conversations/", "AIRisk is not available", "AIRisk is down."),
        ("login", 200, "/airisk/connect/?next=%2Fconversations%2F", "Please reconnect", "AIRisk shows a login page"),
        ("short", 200, "/conversations/", "Fetched from AIRisk just now", "AIRisk's tokens expire after a minute."),
    ],
)
def test_one_click_breaks_airisk_and_one_fixes_it(
    name: str, status: int, address: str, words: str, state: str, browser: Browser
) -> None:
    browser.submit("/airisk/connect/", next="/")
    assert words in browser.submit(f"/trials/{name}/", status)
    assert browser.address == address
    home = browser.see("/")
    assert (state or "Conversations fetched") in home
    assert bool(state) == ("Fix AIRisk" in home)
    home = browser.submit("/trials/fix/")
    assert "Fix AIRisk" not in home
    browser.submit("/trials/nothing/", 404)


def test_short_lived_token_has_a_countdown(browser: Browser) -> None:
    browser.submit("/airisk/connect/", next="/")
    browser.submit("/trials/short/")
    assert re.search(r"The token expires in (5\d|60) seconds", browser.see("/"))


def test_switches_set_by_hand_are_shown(browser: Browser) -> None:
    browser.switch(latency="0.1")
    assert "AIRisk behaves as set by the sandbox switches. Fix AIRisk" in browser.see("/")
    browser.switch(latency="3")
    assert "AIRisk is slow. Fix AIRisk" in browser.see("/")


@needs_chromium
@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (360, "dark")])
@pytest.mark.usefixtures("browser")
def test_pages_have_no_barriers(chromium: Any, site: str, width: int, scheme: Any) -> None:
    window: Any = {"width": width, "height": 800}
    with chromium.new_context(base_url=site, viewport=window, color_scheme=scheme) as context:
        tab = context.new_page()
        tab.goto("/")
        assert_no_barrier(tab)
        tab.goto("/accounts/login/")
        assert_no_barrier(tab)
        for label in ("Username", "Password"):
            tab.get_by_label(label).fill("demo")
        tab.locator("main").get_by_role("button", name="Sign in").click()
        click(tab, "Connect to AIRisk")
        assert_said(tab, "Fetched from AIRisk just now")
        assert_no_barrier(tab)
        tab.goto("/")
        assert_no_barrier(tab)
        click(tab, "Take AIRisk down")
        assert_said(tab, "AIRisk is not available")
        assert_no_barrier(tab)
        click(tab, "Fix AIRisk")
        tab.goto("/sandbox/control/")
        assert_no_barrier(tab)
        tab.goto("/")
        click(tab, "Disconnect")
        assert_said(tab, "You are disconnected")
        assert_no_barrier(tab)


def test_visitor_is_shown_how_to_begin(site: str) -> None:
    with Browser(site) as browser:
        welcome = browser.see("/")
        assert "demo demo" in welcome
        assert "admin admin" in welcome
        browser.see("/conversations/")
        assert browser.address == "/accounts/login/?next=/conversations/"
        browser.see("/static/demo/demo.css")


def test_admin_is_staff_with_another_userid(site: str) -> None:
    with Browser(site) as browser:
        assert "user_1" in browser.sign_in("admin")
        assert "user_42" in browser.see("/admin/airisk_oauth/airiskidentity/")


def test_localhost_is_redirected_to_the_site(site: str) -> None:
    host = site.removeprefix("http://").replace("127.0.0.1", "localhost")
    answer = requests.get(f"{site}/accounts/login/?next=/", headers={"Host": host}, allow_redirects=False, timeout=10)
    assert answer.headers["Location"] == f"{site}/accounts/login/?next=/"


@pytest.mark.parametrize(
    ("preferred", "of_the_package", "of_the_demo"),
    [
        ("de-CH", "Ihre AIRisk-Verbindung", "AIRisk-Demo"),
        ("es-MX", "Su conexión con AIRisk", "Demo AIRisk"),
        ("fr", "Votre connexion à AIRisk", "Démo AIRisk"),
        ("ja", "AIRisk との接続", "AIRisk デモ"),
        ("zh-CN", "您的 AIRisk 连接", "AIRisk 演示"),
        # Klingon: a language that nobody will add.
        ("tlh", "Your AIRisk connection", "AIRisk demo"),
    ],
)
def test_pages_are_in_the_browsers_language(
    preferred: str, of_the_package: str, of_the_demo: str, browser: Browser
) -> None:
    page = browser.get(f"{browser.site}/airisk/", headers={"Accept-Language": preferred}, timeout=10).text
    assert f"<h1>{of_the_package}</h1>" in page
    assert f">{of_the_demo}</a>" in page


def in_many_a_state(browser: Browser) -> Iterator[set[str]]:
    """Yield the texts on the demo's pages in many states, except AIRisk's own, and restore the initial state."""

    def shown() -> set[str]:
        return Shown(re.sub(r"<article.*?</article>", "", browser.page, flags=re.DOTALL)).found - {"demo"}

    browser.switch()
    browser.submit("/airisk/disconnect/")
    browser.see("/")
    yield shown()
    browser.submit("/airisk/connect/", next="/conversations/")
    yield shown()
    for name, status in (("down", 503), ("short", 200), ("login", 200)):
        browser.submit(f"/trials/{name}/", status)
        yield shown()
        browser.see("/")
        yield shown()
    browser.switch()
    browser.submit("/airisk/connect/", next="/")
    browser.switch(malformed="on")
    browser.switch("end_all_tokens")
    browser.see("/conversations/", 502)
    yield shown()
    browser.see("/")
    yield shown()
    browser.switch(latency="3")
    with Browser(browser.site) as nobody:
        nobody.headers.update(browser.headers)
        for path in ("/", "/accounts/login/"):
            nobody.see(path)
            yield Shown(nobody.page).found
    browser.switch()


def test_japanese_pages_have_no_english_left(browser: Browser) -> None:
    """Japanese has no words that look like English; for all languages, another test checks the catalogues."""
    english = list(in_many_a_state(browser))
    browser.headers["Accept-Language"] = "ja"
    try:
        japanese = list(in_many_a_state(browser))
    finally:
        del browser.headers["Accept-Language"]
    for before, after in zip(english, japanese, strict=True):
        assert len(before) >= 8
        assert before & after == set()


def test_demo_passes_its_own_tests(tmp_path: Path) -> None:
    variables = {
        "SECRET_KEY": "a secret of one's own",
        "DATABASE_URL": f"sqlite:///{tmp_path}/demo.sqlite3",
        "AIRISK_BASE_URL": "https://demo.aicrisk.com",
        "AIRISK_CLIENT_ID": "client-1",
        "AIRISK_CLIENT_SECRET": "secret-1",
        "AIRISK_REDIRECT_URI": "https://app.example.com/airisk/callback/",
    }
    command = ["-m", "pytest", "-p", "no:cacheprovider", "--ds=demo_project.settings", "demo_project/tests.py"]
    processes = [run(*command, **variables), manage("check", **variables)]
    for status, output in map(end, processes):
        assert status == 0, output
    assert "no issues" in output


def test_public_secrets_are_for_development_only() -> None:
    processes = [manage("check"), manage("seed_demo", SECRET_KEY="a secret of one's own")]
    results = [end(process) for process in processes]
    for (status, output), reason in zip(results, ("Set SECRET_KEY", "DEBUG=true only"), strict=True):
        assert status != 0
        assert reason in output


@pytest.mark.parametrize(
    "answer",
    [
        [{"title": "Plan", "updated": "2025-03-31T13:12:17Z", "model": "m", "lastMessage": "Yes.", "status": "Open"}],
        {
            "success": True,
            "data": {
                "conversations": [
                    {
                        "Name": "Plan",
                        "UpdatedAt": "2025-03-31T15:12:17.0000000+02:00",
                        "Model": {"Id": 7, "DisplayName": "m"},
                        "last_message": {"role": "assistant", "content": "Yes."},
                        "State": "Open",
                    }
                ]
            },
        },
    ],
)
def test_conversations_are_found_by_any_names(answer: object) -> None:
    updated = datetime(2025, 3, 31, 13, 12, 17, tzinfo=UTC)
    assert read_conversations(answer) == [Conversation("Plan", "m", updated, "Yes.", "Open")]


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00", "0001-01-01T00:00:00+14:00", "2025-02-30T00:00:00Z", "", 7])
def test_invalid_time_is_left_out(moment: object) -> None:
    assert read_conversations([{"title": "Plan", "updated": moment}]) == [Conversation("Plan", "", None, "", "")]


@pytest.mark.parametrize("answer", [None, 7, "text", {}, {"a": [], "b": []}, ["text"], [{"colour": "red"}], [[]]])
def test_unknown_answer_is_not_guessed_at(answer: object) -> None:
    assert read_conversations(answer) is None

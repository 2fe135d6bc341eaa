"""The demo as a process, started as `make demo` does, and a browser without scripts that uses it."""

import html
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

ROOT = Path(__file__).resolve().parent.parent.parent


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
        output, _ = process.communicate(timeout=120)
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
def demo_site(demo: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running(tmp_path_factory.mktemp("log") / "log", **demo) as url:
        yield url


@pytest.fixture(scope="module")
def demo_visit(demo_site: str) -> Iterator[Browser]:
    with Browser(demo_site) as browser:
        browser.sign_in("demo")
        yield browser


@pytest.fixture
def visitor(demo_visit: Browser) -> Browser:
    """A browser in which the user demo is signed in and not connected; AIRisk works."""
    demo_visit.switch()
    demo_visit.submit("/airisk/disconnect/")
    return demo_visit

"""The site under test behind gunicorn and uvicorn, and a browser that listens to it."""

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from typing import Any, Final

from django.contrib.auth.models import User
from django.test import Client

from tests.support.pages import ROOT

SERVERS: Final = {
    "sync": ["gunicorn", "--bind=127.0.0.1:{port}", "tests.site_servers:wsgi"],
    "gthread": ["gunicorn", "--bind=127.0.0.1:{port}", "--threads=8", "tests.site_servers:wsgi"],
    "uvicorn": ["uvicorn", "--port={port}", "--log-level=warning", "--lifespan=off", "tests.site_servers:asgi"],
}


@contextmanager
def serving(name: str, environment: dict[str, str]) -> Iterator[int]:
    """Serve the site with one worker process, and return the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    module, *options = [part.format(port=port) for part in SERVERS[name]]
    process = subprocess.Popen([sys.executable, "-m", module, *options], cwd=ROOT, env=environment)
    try:
        wait_for(port, process)
        yield port
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + 60
    while True:
        assert process.poll() is None, "The server has ended."
        assert time.monotonic() < ends
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return


class Listener:
    """A browser in which a user is signed in, and which listens to one stream of events.

    :ivar raw: what was sent so far.
    """

    def __init__(self, port: int, path: str, user: User) -> None:
        client = Client()
        client.force_login(user)
        cookie = f"sessionid={client.cookies['sessionid'].value}"
        self._connection = HTTPConnection("127.0.0.1", port, timeout=20)
        self._connection.request("GET", path, headers={"Cookie": cookie, "Accept-Encoding": "gzip"})
        self.response: HTTPResponse = self._connection.getresponse()
        self.headers: Any = self.response.headers
        self.raw = b""

    def listen_until(self, words: bytes) -> None:
        """Listen until these words have been sent."""
        while words not in self.raw:
            received = self.response.read1()
            assert received, self.raw
            self.raw += received

    def listen_to_the_end(self) -> bytes:
        while received := self.response.read1():
            self.raw += received
        return self.raw

    def leave(self) -> float:
        """Close the browser, and return when that was."""
        self.response.close()
        self._connection.close()
        return time.monotonic()


def events_in(raw: bytes) -> list[tuple[str, str]]:
    """Return the name and the data of each event, comments left out."""
    blocks = [block for block in raw.decode().split("\n\n") if block and not block.startswith(":")]
    return [tuple(line.partition(": ")[2] for line in block.split("\n")) for block in blocks]  # type: ignore[misc]

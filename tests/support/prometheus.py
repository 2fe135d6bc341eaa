"""A real Prometheus (Debian's package ``prometheus``) that scrapes this process. In CI it has to be installed."""

import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests

PROMETHEUS, PROMTOOL = (shutil.which(name) for name in ("prometheus", "promtool"))
needs_prometheus = pytest.mark.skipif(
    not PROMETHEUS and "CI" not in os.environ, reason="Debian's package prometheus is not installed"
)
#: Seconds that nothing here takes, even on a busy machine.
TOO_LONG = 60


def promtool(*arguments: object) -> str:
    """Run promtool, and return what it printed."""
    done = subprocess.run([PROMTOOL or "promtool", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


class Prometheus:
    """Prometheus's HTTP API."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **params: str) -> Any:
        answer = requests.get(f"{self.url}/api/v1/{path}", params=params, timeout=10).json()
        assert answer["status"] == "success", answer
        return answer["data"]

    def query(self, expression: str) -> list[Any]:
        """Return the series that an expression has now."""
        found: list[Any] = self.get("query", query=expression)["result"]
        return found

    def wait_for(self, is_there: Callable[[], bool]) -> None:
        ends = time.monotonic() + TOO_LONG
        while not is_there():
            assert time.monotonic() < ends, "Prometheus did not scrape in time."
            time.sleep(0.2)


@contextmanager
def scraping(read: Callable[[], str], rules: Path, folder: Path) -> Iterator[Prometheus]:
    """Let Prometheus scrape once a second what ``read`` returns, and evaluate these rules."""
    with served(read) as target, socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
        free.close()
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "scrape_configs": [{"job_name": "site", "static_configs": [{"targets": [target]}]}],
            "rule_files": [str(rules)],
        }
        # JSON is YAML.
        (folder / "prometheus.yml").write_text(json.dumps(config), encoding="utf-8")
        command = [
            PROMETHEUS or "prometheus",
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            prometheus = Prometheus(f"http://127.0.0.1:{port}")
            prometheus.wait_for(lambda: _is_ready(prometheus.url))
            yield prometheus
        finally:
            process.terminate()
            process.wait(TOO_LONG)


def _is_ready(url: str) -> bool:
    try:
        return requests.get(f"{url}/-/ready", timeout=10).ok
    except requests.ConnectionError:
        return False


@contextmanager
def served(read: Callable[[], str]) -> Iterator[str]:
    """Serve metrics, and yield host and port."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(read().encode())

        def log_message(self, *args: object) -> None:
            """Log nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()

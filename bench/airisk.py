"""A fake AIRisk in its own process, with as little overhead as possible.

For the other libraries it also renews by refresh token. Its OAuth endpoints answer after a delay and its API at once,
and it counts the renewals of each owner. An agent's answer is as the question says.
"""

import asyncio
import json
import secrets
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from urllib.request import urlopen

LIFETIME = timedelta(hours=1)
API_BODY = b"[]"
ASK = "/api/Chat/AskAgent"


class State:
    """What all connections share: the delay in seconds, and the number of renewals by owner."""

    delay = 0.0
    renewed: Counter[str] = Counter()


class Connection(asyncio.Protocol):
    def __init__(self) -> None:
        self.unread = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self.unread += data
        head, separator, body = self.unread.partition(b"\r\n\r\n")
        if not separator:
            return
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:"):
                length = int(line.partition(b":")[2])
        if len(body) < length:
            return
        self.unread = body[length:]
        target, content = head.split(b" ", 2)[1].decode(), body[:length].decode()
        if target == ASK:
            self.stream(**json.loads(json.loads(content)["text"]))
        else:
            self.answer(target, dict(parse_qsl(content)))

    def stream(self, pieces: int, interval: float, length: int) -> None:
        """Answer a question with so many pieces of text, each of which begins with the time at which it is sent."""
        lines = ["HTTP/1.1 200 OK", "Content-Type: text/event-stream", "Transfer-Encoding: chunked"]
        self.transport.write("\r\n".join([*lines, "", ""]).encode())
        self.send_piece(pieces, interval, "x" * length)

    def send_piece(self, left: int, interval: float, text: str) -> None:
        if not left:
            end = b'{"UpdateKind": 6}\n[DONE]\n'
            self.transport.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))
        elif not self.transport.is_closing():
            line = _json({"UpdateKind": 21, "Text": f"{time.monotonic():.6f} {text}"}) + b"\n"
            self.transport.write(b"%x\r\n%b\r\n" % (len(line), line))
            asyncio.get_running_loop().call_later(interval, self.send_piece, left - 1, interval, text)

    def answer(self, target: str, form: dict[str, str]) -> None:
        url = urlsplit(target)
        query = dict(parse_qsl(url.query))
        if url.path == "/api/oauth2":
            location = f"{query['redirect_uri']}?code={secrets.token_hex(16)}&state={query['state']}"
            self.reply(b"", status="302 Found", location=location, delay=State.delay)
        elif url.path == "/api/oauth2/Token":
            State.renewed[form.get("userid", "")] += 1
            expiration = (datetime.now(UTC) + LIFETIME).isoformat(timespec="seconds")
            self.reply(_json({"access_token": _token(), "expiration": expiration}), delay=State.delay)
        elif url.path == "/refresh":
            State.renewed[form["refresh_token"]] += 1
            grant = {"access_token": _token(), "token_type": "Bearer", "expires_in": LIFETIME.seconds}
            self.reply(_json({**grant, "refresh_token": form["refresh_token"]}), delay=State.delay)
        elif url.path == "/bench/delay":
            State.delay = float(query["seconds"])
            self.reply(b"")
        elif url.path == "/bench/renewed":
            counts = State.renewed.values() or [0]
            seen = {"renewals": sum(counts), "owners": len(State.renewed), "least": min(counts), "most": max(counts)}
            self.reply(_json(seen))
            State.renewed = Counter()
        else:
            self.reply(API_BODY)

    def reply(self, body: bytes, *, status: str = "200 OK", location: str = "", delay: float = 0.0) -> None:
        lines = [f"HTTP/1.1 {status}", "Content-Type: application/json", f"Content-Length: {len(body)}"]
        if location:
            lines.append(f"Location: {location}")
        answer = "\r\n".join([*lines, "", ""]).encode() + body
        if delay:
            asyncio.get_running_loop().call_later(delay, self.transport.write, answer)
        else:
            self.transport.write(answer)


def _json(value: object) -> bytes:
    return json.dumps(value).encode()


def _token() -> str:
    # About as long as AIRisk's JWTs.
    return "eyJ" + secrets.token_hex(400)


async def serve() -> None:
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


class AIRisk:
    """Controls the fake AIRisk from another process."""

    def __init__(self, url: str) -> None:
        self.url = url

    def delay(self, seconds: float) -> None:
        """Set after how many seconds the OAuth endpoints answer."""
        self._get(f"delay?seconds={seconds}")

    def renewed(self) -> dict[str, int]:
        """Return the number of renewals since the last call, of their owners, and the least and most of one owner."""
        counts: dict[str, int] = json.loads(self._get("renewed"))
        return counts

    def _get(self, path: str) -> bytes:
        with urlopen(f"{self.url}/bench/{path}", timeout=10) as response:
            answer: bytes = response.read()
        return answer


@contextmanager
def running() -> Iterator[AIRisk]:
    command = [sys.executable, "-m", "bench.airisk"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield AIRisk(f"http://127.0.0.1:{process.stdout.readline().strip()}")
        finally:
            process.terminate()


if __name__ == "__main__":
    asyncio.run(serve())

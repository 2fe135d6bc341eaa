"""Agents' answers on their way to browsers: how late a piece is, and what relaying costs, in time and in memory."""

import asyncio
import atexit
import os
import re
import socket
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from .contenders import Measure, Measurement
from .people import connected_users, migrated

if TYPE_CHECKING:
    from collections.abc import Callable

SERVERS: Final = {
    "uvicorn": ["uvicorn", "--fd={fd}", "--log-level=warning", "--lifespan=off", "bench.streaming:asgi"],
    "gunicorn": ["gunicorn", "--bind=fd://{fd}", "--threads=32", "--log-level=warning", "bench.streaming:wsgi"],
}
PATHS: Final = {
    "uvicorn": {"ours": "/ours-async/", "by hand": "/by-hand-async/"},
    "gunicorn": {"ours": "/ours/", "by hand": "/by-hand/"},
}
PIECES: Final = 100
_SENT_AT: Final = rb'"(\d+\.\d{6}) '
_TICKS: Final = os.sysconf("SC_CLK_TCK")
_PAGE: Final = os.sysconf("SC_PAGE_SIZE")


class Server:
    """One worker process of a server."""

    def __init__(self, name: str) -> None:
        self.paths = PATHS[name]
        with socket.create_server(("127.0.0.1", 0), backlog=512) as listening:
            self.address = listening.getsockname()
            module, *options = [part.format(fd=listening.fileno()) for part in SERVERS[name]]
            command = [sys.executable, "-m", module, *options]
            self.process = subprocess.Popen(command, pass_fds=[listening.fileno()], stdout=subprocess.DEVNULL)
        atexit.register(self.process.terminate)

    def pid(self) -> int:
        """Return the process that does the work: gunicorn has another for it."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return int(children[0]) if children else self.process.pid

    def cpu(self) -> float:
        """Return the seconds of processor time used so far."""
        fields = Path(f"/proc/{self.pid()}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / _TICKS

    def memory(self) -> float:
        """Return the resident memory in MiB."""
        return int(Path(f"/proc/{self.pid()}/statm").read_text().split()[1]) * _PAGE / 2**20


async def listen(server: Server, path: str) -> list[float]:
    """Take one answer, and return by how many seconds each read brought its last piece late."""
    reader, writer = await asyncio.open_connection(*server.address, limit=2**20)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
    delays = []
    while received := await reader.read(2**16):
        now = time.monotonic()
        delays += [now - float(sent_at) for sent_at in re.findall(_SENT_AT, received)]
    writer.close()
    return delays


def path_of(server: Server, who: str, pieces: int, interval: float, length: int) -> str:
    return f"{server.paths[who]}?pieces={pieces}&interval={interval}&length={length}"


async def listen_all(server: Server, who: str, answers: int, **shape: Any) -> list[list[float]]:
    """Take so many answers at once, which begin within a second."""

    async def begin(number: int) -> list[float]:
        await asyncio.sleep(number / answers)
        return await listen(server, path_of(server, who, **shape))

    return await asyncio.gather(*(begin(number) for number in range(answers)))


async def sampled(server: Server, work: Any) -> tuple[Any, list[float]]:
    """Return what this brings, and the server's memory meanwhile."""
    samples: list[float] = []

    async def sample() -> None:
        while True:
            samples.append(server.memory())
            await asyncio.sleep(0.1)

    sampling = asyncio.ensure_future(sample())
    result = await work
    sampling.cancel()
    return result, samples


def measure_cost(server: Server, answers: int) -> Measurement:
    """Measure the delay of single answers, and the processor time of many."""
    measured: Measurement = {}
    for who in server.paths:
        single = [asyncio.run(listen(server, path_of(server, who, 3, 0.02, 20))) for _ in range(10)]
        before = server.cpu()
        found = asyncio.run(listen_all(server, who, answers, pieces=PIECES, interval=0.05, length=20))
        measured[who] = {
            "delay": statistics.median(delays[0] for delays in single),
            "cpu": (server.cpu() - before) / sum(map(len, found)),
        }
    return measured


def measure_crowd(server: Server, answers: int) -> Measurement:
    """Measure many long answers at once."""
    measured: Measurement = {}
    for who in server.paths:
        work = listen_all(server, who, answers, pieces=PIECES, interval=0.1, length=1000)
        found, samples = asyncio.run(sampled(server, work))
        third = len(samples) // 3
        measured[who] = {
            "delay": statistics.median(delay for delays in found for delay in delays),
            "complete": sum(len(delays) == PIECES for delays in found),
            "growth": max(samples[2 * third :]) - max(samples[third : 2 * third]),
        }
    return measured


def prepare(name: str, what: str, answers: str) -> Measure:
    migrated()
    connected_users(1, expires_in=3600)
    server = Server(name)
    measures: dict[str, Callable[[Server, int], Measurement]] = {"cost": measure_cost, "crowd": measure_crowd}
    for who in server.paths:
        asyncio.run(listen_all(server, who, int(answers), pieces=5, interval=0.02, length=20))
    return lambda: measures[what](server, int(answers))

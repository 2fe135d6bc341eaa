"""Shows the figures as text, as an image and in the documentation, with a description of the machine."""

import os
import platform
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Canvas

from .contenders import Databases
from .figures import OURS, Figure

BEGIN: Final = "<!-- `make bench-docs` writes everything from here -->"
END: Final = "<!-- to here. -->"
PEERS: Final = ("requests", "google-auth", "requests-oauthlib", "Authlib", "django-esi", "social-auth-app-django")
COLOURS: Final = {True: "#0b6e99", False: "#b8c0c8"}


def table(figures: Sequence[Figure]) -> str:
    """Return a Markdown table whose columns are aligned, so that its source is readable."""
    lines = [("", "ours", "others")]
    for figure in figures:
        lines.append((f"**{figure.title}**", "", ""))
        lines.extend((row.what, row.ours, row.others) for row in figure.rows)
    widths = [max(len(line[column]) for line in lines) for column in range(3)]
    rule = tuple("-" * width for width in widths)
    padded = [
        [cell.ljust(width) for cell, width in zip(line, widths, strict=True)] for line in [lines[0], rule, *lines[1:]]
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in padded)


def how(figures: Sequence[Figure]) -> str:
    return "\n".join(f"- {figure.title}: {figure.how}" for figure in figures)


def machine(databases: Databases) -> dict[str, str]:
    return {
        "Date": datetime.now(UTC).date().isoformat(),
        "Machine": f"{_cpu()}, {os.cpu_count()} cores, {platform.system()}",
        "Python": platform.python_version(),
        "Django": version("django"),
        "Peers": ", ".join(f"{name} {version(name)}" for name in PEERS),
        "Databases": f"PostgreSQL {databases.version()} by socket, SQLite {sqlite3.sqlite_version} in WAL mode",
    }


def listed(facts: dict[str, str]) -> str:
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


def write(docs: Path, figures: Sequence[Figure], facts: dict[str, str]) -> None:
    page = docs / "performance.md"
    before, _, rest = page.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    parts = [BEGIN, table(figures), "How each was measured:", how(figures), "Measured on:", listed(facts), END]
    page.write_text(before + "\n\n".join(parts) + after)
    plot(docs / "images" / "performance.svg", figures)


def plot(path: Path, figures: Sequence[Figure]) -> None:
    """Draw the figures that compare us with others. The same numbers always give the same file."""
    drawn = [figure for figure in figures if figure.bars]
    mpl.rcParams.update({"svg.hashsalt": "airisk_oauth", "font.size": 9, "svg.fonttype": "path"})
    canvas = Canvas(figsize=(10.5, 5.6), layout="constrained", facecolor="white")
    for axes, figure in zip(canvas.subplots(2, 2).flat, drawn, strict=True):
        _bars(axes, figure)
    canvas.savefig(path, metadata={"Date": None})


def _bars(axes: Axes, figure: Figure) -> None:
    names = [name for name in figure.bars if name != OURS] + [OURS]
    values = [figure.bars[name] for name in names]
    bars = axes.barh(names, values, height=0.6, color=[COLOURS[name == OURS] for name in names])
    axes.bar_label(bars, fmt="%.3g", padding=3)
    axes.set_title(f"{figure.title}\n{figure.scale}", fontsize=9, loc="left")
    axes.margins(x=0.12)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.tick_params(left=False, bottom=False, labelbottom=False)


def _cpu() -> str:
    """Return the name of the processor, from ``/proc`` on Linux."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

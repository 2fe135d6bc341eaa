"""Measure all figures and print them as one table; with ``--write``, put it in docs/performance.md as well."""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from . import airisk, figures, report
from .contenders import Databases, Site

DOCS = Path(__file__).parent.parent / "docs"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--write", action="store_true", help="rewrite the generated part of docs/performance.md")
    parser.add_argument("--full", action="store_true", help="sweep 100,000 tokens instead of 15,000")
    parser.add_argument("--only", metavar="FIGURE", help="take one of the functions in bench/figures.py")
    options = parser.parse_args()
    if options.only and options.write:
        parser.error("the page shows all figures: --write and --only exclude each other")
    taken = []
    with tempfile.TemporaryDirectory(prefix="airisk-oauth-bench-") as folder, airisk.running() as server:
        site = Site(Databases(folder), server)
        started = time.monotonic()
        many = 100_000 if options.full else 15_000
        chosen = [getattr(figures, options.only)(site)] if options.only else figures.take(site, many)
        for figure in chosen:
            taken.append(figure)
            print(f"{figure.title}: measured, {time.monotonic() - started:.0f} s", file=sys.stderr)
        machine = report.machine(site.databases)
    print(report.table(taken), report.how(taken), report.listed(machine), sep="\n\n")
    if options.write:
        report.write(DOCS, taken, machine)


if __name__ == "__main__":
    main()

"""The child process of a contender: prepares a figure's module, then measures once for each line on standard input.

Usage: python -m bench.contender MODULE ARGUMENT …
"""

import json
import sys
from importlib import import_module

import django


def main(module: str, *arguments: str) -> None:
    django.setup()
    measure = import_module(f"bench.{module}").prepare(*arguments)
    print("{}", flush=True)
    for _line in sys.stdin:
        print(json.dumps(measure()), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

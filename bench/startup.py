"""``django.setup()`` of a plain project, and of the same project with one app more: each in a fresh process."""

import json
import os
import subprocess
import sys
from typing import Final

from .contenders import ENVIRONMENT, Measurement
from .rounds import Rounds

PLAIN: Final = "plain Django"
APPS: Final = {PLAIN: "", "ours": "airisk_oauth", "django-esi": "esi", "social-auth-app-django": "social_django"}
HEAVY: Final = ("requests", "cryptography")

#: Whether the garbage collector runs: one full collection more or less in so short a time is chance, and a tenth of it.
WITH_GC, WITHOUT_GC = "seconds", "seconds without collections"

# What reading the settings costs is the benchmark's own.
SCRIPT: Final = f"""
import gc, json, sys, time
import django
from django.conf import settings
settings.INSTALLED_APPS
if sys.argv[1] == "{WITHOUT_GC}":
    gc.disable()
start = time.perf_counter()
django.setup()
seconds = time.perf_counter() - start
print(json.dumps({{sys.argv[1]: seconds, "heavy": [name for name in {HEAVY!r} if name in sys.modules]}}))
"""


def rounds(number: int) -> Rounds:
    for apps in APPS.values():
        start(apps, WITH_GC)
    return [
        {name: {**start(apps, WITH_GC), **start(apps, WITHOUT_GC)} for name, apps in APPS.items()}
        for _ in range(number)
    ]


def start(apps: str, collector: str) -> Measurement:
    command = [sys.executable, "-c", SCRIPT, collector]
    environment = {**os.environ, **ENVIRONMENT, "BENCH_APPS": apps, "DATABASE_URL": "sqlite://:memory:"}
    # An installed package is compiled; this one, run from its repository, is by the start before the first round.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    answer: Measurement = json.loads(
        subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    )
    return answer

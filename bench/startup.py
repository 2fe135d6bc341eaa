"""``django.setup()`` of a plain project, and of the same project with one more app, each in a new process."""

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

#: With and without the garbage collector: in so short a time, one more full collection is chance, and a tenth of it.
WITH_GC, WITHOUT_GC = "seconds", "seconds without collections"

# Reading the settings is not measured, because the benchmark's own settings are unusual.
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
    # An installed package is compiled. This one runs from its repository: starting once before the rounds compiles it.
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    answer: Measurement = json.loads(
        subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout
    )
    return answer

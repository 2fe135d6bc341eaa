"""An unchanged ``startproject``: DEBUG, and SQLite with Django's default options.

``python -m tests.sites.startproject atomic`` puts a transaction around every view.
"""

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import django
from django.core.management import call_command

from tests.sites.running import deployments, keep
from tests.support import airisk
from tests.support.threads import at_once

ATOMIC = "atomic" in sys.argv
AIRISK = airisk.start()
FOLDER = tempfile.TemporaryDirectory()
SETTINGS = f"""
ALLOWED_HOSTS = ["app.example.com"]
INSTALLED_APPS += ["airisk_oauth"]
MIDDLEWARE += ["airisk_oauth.middleware.AIRiskMiddleware"]
AIRISK_OAUTH = {deployments(AIRISK.url)}
DATABASES["default"]["ATOMIC_REQUESTS"] = {ATOMIC}
"""
URLS = """
from django.http import HttpResponse
from django.urls import include
urlpatterns += [
    path("airisk/", include("airisk_oauth.urls")),
    path("conversations/", lambda request: HttpResponse(request.airisk.get("/api/GetConversations"))),
]
"""

in_site = partial(subprocess.run, cwd=FOLDER.name, capture_output=True, text=True)
in_site([sys.executable, "-m", "django", "startproject", "mysite", "."], check=True)
for module, addition in (("settings.py", SETTINGS), ("urls.py", URLS)):
    with Path(FOLDER.name, "mysite", module).open("a") as file:
        file.write(addition)
sys.path.insert(0, FOLDER.name)
os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()
call_command("migrate", verbosity=0)

from tests.sites import mission as people  # noqa: E402 - after the set-up


def mission() -> None:
    people.mission(AIRISK, people.new_person("mia", "user_42"))


def sixteen_people_connect_beside_a_sweep() -> None:
    for number in range(40):
        people.new_connected_person(AIRISK, f"away{number}", f"away_{number}", expires_in=60)
    visitors = [people.new_person(f"visitor{number}", f"user_{number}") for number in range(16)]
    AIRISK.has_granted.clear()
    AIRISK.latency = 0.1

    def connect(visitor: people.Person) -> None:
        assert AIRISK.has_granted.wait(30), "The sweep renews nothing."
        answer = people.connect(visitor)
        assert answer.status_code == 302, people.why(answer)

    sweep = partial(in_site, [sys.executable, "manage.py", "refresh_airisk_tokens"])
    swept: Any
    swept, *_nothing = at_once(sweep, *(partial(connect, visitor) for visitor in visitors))
    assert swept.returncode == 0, swept.stderr
    for visitor in visitors:
        people.assert_called(visitor)


def visitors_with_expired_tokens_are_answered_at_once() -> None:
    ada, *others = (
        people.new_connected_person(AIRISK, f"late{number}", f"late_{number}", expires_in=-60) for number in range(7)
    )
    at_once(*(partial(people.assert_called, visitor) for visitor in (ada, ada, *others)))


keep(mission, visitors_with_expired_tokens_are_answered_at_once, sixteen_people_connect_beside_a_sweep)

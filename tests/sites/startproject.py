"""``startproject`` as it comes: DEBUG, and SQLite with Django's own options."""

import os
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import django
from django.core.management import call_command

from tests.sites.running import at_once, deployments, keep
from tests.support import airisk

AIRISK = airisk.start()
FOLDER = tempfile.TemporaryDirectory()
SETTINGS = f"""
ALLOWED_HOSTS = ["app.example.com"]
INSTALLED_APPS += ["airisk_oauth"]
MIDDLEWARE += ["airisk_oauth.middleware.AIRiskMiddleware"]
AIRISK_OAUTH = {deployments(AIRISK.url)}
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
    sweep = partial(in_site, [sys.executable, "manage.py", "refresh_airisk_tokens"])
    results = at_once([sweep, *(partial(people.connect, visitor) for visitor in visitors)])
    swept, *answers = [result for result, _seconds in results]
    assert [answer.status_code for answer in answers] == [302] * 16, [people.why(answer) for answer in answers]
    assert swept.returncode == 0, swept.stderr
    for visitor in visitors:
        people.assert_called(visitor)


keep(mission, sixteen_people_connect_beside_a_sweep)

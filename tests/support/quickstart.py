"""A site made with ``startproject`` and the README."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

from django.conf import settings

from tests.support import pages

snippet = partial(pages.snippet, "README.md")
#: The Python of the environment that the package is installed in.
PYTHON = os.environ.get("AIRISK_OAUTH_SITE_PYTHON", sys.executable)


class Site:
    """A site made by ``startproject`` and changed as the README says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        deployment = settings.AIRISK_OAUTH["default"]
        self.environment = {
            **{key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"},
            "AIRISK_BASE_URL": deployment["BASE_URL"],
            "AIRISK_CLIENT_ID": deployment["CLIENT_ID"],
            "AIRISK_CLIENT_SECRET": deployment["CLIENT_SECRET"],
            "AIRISK_REDIRECT_URI": deployment["REDIRECT_URI"],
        }
        self.run(PYTHON, "-m", "django", "startproject", "mysite", ".")
        self.append("settings.py", snippet("INSTALLED_APPS +="))
        self.append("urls.py", snippet("urlpatterns +="))
        self.append("views.py", snippet("@airisk_required"))
        self.append("urls.py", "from . import views\nurlpatterns += [path('mine/', views.conversations)]\n")

    def append(self, name: str, text: str) -> None:
        with (self.folder / "mysite" / name).open("a", encoding="utf-8") as file:
            file.write(f"\n\n{text}")

    def run(self, *command: str) -> str:
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def manage(self, *arguments: str) -> str:
        return self.run(PYTHON, "manage.py", *arguments)

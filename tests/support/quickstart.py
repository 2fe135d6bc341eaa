"""A site made with ``startproject`` and the README."""

import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

from django.conf import settings

from tests.support import pages

snippet = partial(pages.snippet, "README.md")
#: The Python of the environment that the package is installed in.
PYTHON = os.environ.get("AIRISK_OAUTH_SITE_PYTHON", sys.executable)
ADDRESS = "127.0.0.1:8000"


class Site:
    """A site made by ``startproject`` and changed as the README says, in an environment with no variables of its own.

    :ivar address: host and port, in place of those that the README names.
    """

    def __init__(self, folder: Path, address: str = ADDRESS) -> None:
        self.folder, self.address = folder, address
        self.environment = {name: os.environ[name] for name in ("HOME", "PATH", "PYTHONPATH") if name in os.environ}
        [line] = re.findall("^django-admin .+", snippet("startproject"), re.MULTILINE)
        self.run(PYTHON, "-m", *line.replace("django-admin", "django").split())
        self.append("views.py", snippet("def chat_page"))
        self.append("settings.py", snippet("INSTALLED_APPS +="))
        self.append("urls.py", snippet("views.chat_page"))
        self.append("templates/chat.html", snippet("csrf_token"))

    def use_airisk(self) -> None:
        """Replace the sandbox by the AIRisk of the test, and add the view that makes any other call."""
        self.replace("settings.py", "".join(snippet("INSTALLED_APPS +=").splitlines(keepends=True)[-2:]), "")
        self.replace("settings.py", ', "airisk_oauth.sandbox"', "")
        self.append("settings.py", snippet("read_env"))
        self.replace("urls.py", '    path("sandbox/", include("airisk_oauth.sandbox.urls")),\n', "")
        deployment = settings.AIRISK_OAUTH["default"]
        names = re.findall(r"^AIRISK_(\w+)=", snippet("AIRISK_CLIENT_ID="), re.MULTILINE)
        (self.folder / ".env").write_text("".join(f"AIRISK_{name}={deployment[name]}\n" for name in names))
        self.append("views.py", snippet("def conversations"))
        self.append("urls.py", snippet("views.conversations"))

    def append(self, name: str, text: str) -> None:
        file = self.folder / "mysite" / name
        file.parent.mkdir(exist_ok=True)
        before = f"{file.read_text(encoding='utf-8')}\n\n" if file.exists() else ""
        file.write_text(before + text.replace(ADDRESS, self.address), encoding="utf-8")

    def replace(self, name: str, old: str, new: str) -> None:
        file = self.folder / "mysite" / name
        text = file.read_text(encoding="utf-8")
        assert old in text
        file.write_text(text.replace(old, new), encoding="utf-8")

    def run(self, *command: str, **variables: str) -> str:
        environment = {**self.environment, **variables}
        done = subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def manage(self, *arguments: str, **variables: str) -> str:
        return self.run(PYTHON, "manage.py", *arguments, **variables)

"""Sites made with other frameworks, by the snippets of ``docs/frameworks.md``, each in a process of its own."""

import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from tests.sites import running
from tests.support import airisk, pages

AIRISK = airisk.start()
FOLDER = tempfile.TemporaryDirectory()
snippet = partial(pages.snippet, "docs/frameworks.md")


def configure(*apps: str, snippet: str = "", **special: Any) -> None:
    """Set Django up with these apps beside those that most sites have, and make the tables.

    :param snippet: lines for the settings.
    """
    named = vars(pages.module("mysite.settings", snippet))
    special |= {name: value for name, value in named.items() if name.isupper()}
    running.configure(
        AIRISK.url,
        INSTALLED_APPS=[*running.APPS, *apps],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": Path(FOLDER.name, "site.sqlite3")}},
        **special,
    )
    from django.core.management import call_command

    call_command("migrate", verbosity=0)

"""Make the files of this folder: what version 1.0.0 stored, and what it then sends to a database that was upgraded.

From the root of the repository, where OLD is an empty folder::

    git archive f35745f airisk_oauth | tar -x -C OLD
    former() { PYTHONPATH=OLD:. python -P -m tests.support.upgrade "$@"; }
    former fill > tests/support/upgrade/stored_by_1_0_0.yaml
    export DATABASE_URL=sqlite:////tmp/upgraded.sqlite3
    python -m tests.support.upgrade load && former use > tests/support/upgrade/sent_by_1_0_0_to_sqlite.yaml

and the last two lines for PostgreSQL as well, inside of ``python -m tests.with_postgresql``.
"""

import os
import sys

import django


def main(command: str) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()
    from . import rows, site

    with site.running():
        if command == "fill":
            site.fill()
        elif command == "load":
            site.run("migrate")
            rows.load(rows.USED_AFTER)
            rows.migrate()
        elif command == "use":
            site.use()


if __name__ == "__main__":
    main(sys.argv[1])

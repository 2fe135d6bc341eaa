"""Make the files of this folder: what version 1.0.0 stored, and what it sends to a database that was upgraded.

``fill`` and ``use`` run version 1.0.0, which is commit f35745f; ``load``, between them, runs the present version, and
brings what ``fill`` stored into a database that it upgrades. From the root of the repository::

    mkdir former && git archive f35745f airisk_oauth | tar -x -C former
    former() { PYTHONPATH=former:. python -P -m tests.support.upgrade "$@"; }
    former fill > tests/support/upgrade/stored_by_1_0_0.yaml
    export DATABASE_URL=sqlite:///upgraded.sqlite3
    python -m tests.support.upgrade load
    former use > tests/support/upgrade/sent_by_1_0_0_to_sqlite.yaml

For PostgreSQL and MariaDB, do the last two steps in a shell that ``python -m tests.with_postgresql sh`` or
``python -m tests.with_mariadb sh`` starts.
"""

import os
import sys

import django


def main(command: str) -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    django.setup()
    from . import rows, site, story

    with site.running():
        if command == "fill":
            story.fill()
        elif command == "load":
            site.run("migrate")
            rows.load(rows.USED_AFTER)
            rows.migrate()
        elif command == "use":
            story.use()


if __name__ == "__main__":
    main(sys.argv[1])

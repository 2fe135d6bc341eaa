"""A worker process of a site: calls AIRisk as a user, in several threads at the same time.

Usage: python -m tests.site_worker USERNAME THREADS. It prints a line when it is ready, makes its calls once for each
line that it reads, and prints the status of each call, or the name of its error.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor

import django

django.setup()

from django.contrib.auth.models import User  # noqa: E402 - after the set-up
from django.db import connections  # noqa: E402

from airisk_oauth import AIRiskSession  # noqa: E402
from airisk_oauth.exceptions import AIRiskError  # noqa: E402


def call(user: User) -> int | str:
    try:
        with AIRiskSession.for_user(user) as airisk:
            return airisk.get("/api/GetConversations").status_code
    except AIRiskError as error:
        return type(error).__name__
    finally:
        connections.close_all()


def main(username: str, threads: int) -> None:
    user = User.objects.get(username=username)
    print(json.dumps("ready"), flush=True)
    with ThreadPoolExecutor(threads) as pool:
        for _line in sys.stdin:
            print(json.dumps(list(pool.map(call, [user] * threads))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

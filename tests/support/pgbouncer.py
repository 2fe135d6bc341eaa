"""A real PgBouncer (Debian's package ``pgbouncer``) between a site and its PostgreSQL."""

import atexit
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

PGBOUNCER = Path("/usr/sbin/pgbouncer")
_CONFIGURATION = """
[databases]
* = host={server} user={user}
[pgbouncer]
unix_socket_dir = {folder}
listen_addr =
logfile = {folder}/log
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
query_wait_timeout = 10
"""


def start(server: str, user: str, *, connections: int) -> str:
    """Run a PgBouncer in transaction mode until this process ends, and return the folder of its socket.

    :param server: the folder of PostgreSQL's socket.
    :param connections: the largest number of connections to PostgreSQL.
    """
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer-"))
    atexit.register(shutil.rmtree, folder)
    configuration = folder / "pgbouncer.ini"
    configuration.write_text(_CONFIGURATION.format(server=server, user=user, folder=folder, connections=connections))
    # Like PostgreSQL, it refuses to run as root.
    somebody = next(Path(server).glob(".s.PGSQL.*[0-9]")).owner() if os.geteuid() == 0 else None
    if somebody is not None:
        shutil.chown(folder, somebody)
    process = subprocess.Popen([PGBOUNCER, "--quiet", configuration], user=somebody)
    atexit.register(process.wait)
    atexit.register(process.kill)
    give_up = time.monotonic() + 10
    while not list(folder.glob(".s.PGSQL.*[0-9]")):
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError("PgBouncer did not start.")
        time.sleep(0.02)
    return str(folder)

"""PgBouncer in transaction mode, between the tests and their server: no session is anybody's, and prepared statements are unknown.

`pytest --pgbouncer` gives tests databases through it. Databases are made and dropped beside it.
"""

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bin.postgres import Server, prefix_of
from bin.postgres_programs import find_programs

PORT = 6432
UP_S = 20.0


def program() -> str | None:
    """PgBouncer's; Debian keeps it where only root looks."""
    return shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))


@contextmanager
def pooled(server: str, *, sessions: int = 40) -> Iterator[str]:
    """The server's connection string through a pooler of its own, which has so many sessions for each database.

    Needs `program()`, and a server that is reached without a password.
    """
    binary = program()
    assert binary is not None
    to = conninfo_to_dict(server)
    folder = Path(tempfile.mkdtemp(prefix="pgb-", dir="/tmp"))
    home = Path(str(to["host"])) if str(to.get("host", "")).startswith("/") else folder
    as_server = prefix_of(Server(home, find_programs(), home, {}))
    if os.geteuid() == 0:
        os.chown(folder, home.stat().st_uid, -1)
    user = str(to.get("user") or "postgres")
    (folder / "users").write_text(f'"{user}" ""\n')
    (folder / "pgbouncer.ini").write_text(f"""
[databases]
* = host={to.get("host", "127.0.0.1")} port={to.get("port", 5432)} user={user}
[pgbouncer]
listen_addr =
listen_port = {PORT}
unix_socket_dir = {folder}
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {sessions}
max_client_conn = 2000
max_db_connections = 60
logfile = {folder}/log
""")
    for file in folder.iterdir():
        file.chmod(0o644)
    ends_with_us = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
    process = subprocess.Popen(
        [*as_server, *ends_with_us, binary, "-q", str(folder / "pgbouncer.ini")],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    try:
        dsn = make_conninfo(server, host=str(folder), port=PORT)
        _wait(dsn, folder / "log")
        yield dsn
    finally:
        process.terminate()
        process.wait(UP_S)
        shutil.rmtree(folder, ignore_errors=True)


def _wait(dsn: str, log: Path) -> None:
    deadline = time.monotonic() + UP_S
    while True:
        try:
            psycopg.connect(dsn, autocommit=True, prepare_threshold=None).close()
            return
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                said = log.read_text(errors="replace") if log.exists() else "nothing"
                raise AssertionError(f"PgBouncer does not answer: {error}; it said {said}") from None
        time.sleep(0.02)

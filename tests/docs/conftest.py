"""One service for all pages, started as a reader starts it, on a machine with nothing: `bin/start`."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote
from uuid import uuid4

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bin.database import connect
from tests.docs.session import clean_environment, make_checkout

NEEDED = ("bash", "curl", "jq")


@dataclass(frozen=True, slots=True)
class Service:
    """The running service: its folder, and the host and port of its two doors."""

    folder: Path
    door: str
    admin: str


@dataclass(frozen=True, slots=True)
class Deployment:
    """A database of one's own: its URL as its owner, as the role that the service has there, and that role's name."""

    owner: str
    service: str
    role: str


@pytest.fixture(scope="session")
def needed_tools() -> None:
    """Skips where a page cannot be typed in."""
    for tool in NEEDED:
        if shutil.which(tool) is None:
            pytest.skip(f"the shell blocks of the pages need {tool}, which is not installed")


@pytest.fixture(scope="session")
def terminal(needed_tools: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to type commands in."""
    folder = tmp_path_factory.mktemp("checkout")
    make_checkout(folder)
    return folder


@pytest.fixture(scope="session")
def service(terminal: Path) -> Iterator[Service]:
    log = terminal / "service.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [terminal / "bin/start"],
            cwd=terminal,
            env=clean_environment(terminal, PORT="0", ADMIN_PORT="0", WF_SLEEP_MS="500"),  # nobody needs to watch the drill
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        found = [word.rstrip(",;").removeprefix("http://") for word in told.split() if word.startswith("http://")]
        assert len(found) == 2, f"bin/start said {told!r}; its log ends with: {log.read_text()[-2000:]}"
        yield Service(terminal, *found)
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
            process.communicate()


def url(dsn: str) -> str:
    """A DSN of any form as a URL."""
    parts = conninfo_to_dict(dsn)
    name = str(parts.pop("dbname"))
    return f"postgresql:///{name}?" + "&".join(f"{key}={quote(str(value), safe='')}" for key, value in parts.items())


@pytest.fixture
def deployment(server: str, empty_database: str) -> Iterator[Deployment]:
    """A database on a server, as an operator gets it, with a role that does not exist yet."""
    role = f"app_{uuid4().hex[:12]}"
    with_role = make_conninfo(empty_database, options=f"-c role={role}")
    try:
        yield Deployment(url(empty_database), url(with_role), role)
    finally:
        name = sql.Identifier(role)
        with connect(empty_database, autocommit=True) as conn:
            if conn.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone():
                conn.execute(sql.SQL("drop owned by {}").format(name))
                conn.execute(sql.SQL("drop role {}").format(name))

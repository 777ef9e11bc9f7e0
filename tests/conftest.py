"""What tests share: a real PostgreSQL, and a fresh database for each test that asks for one.

TEST_DATABASE_URL names a server on which we may create databases (its own databases are left alone). Without it an embedded server
runs for the session, with the settings that only tests may have. The schema is applied once, to a template that the databases are
cloned from. `async def` tests and fixtures run by anyio's plugin on one asyncio loop.
"""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from bin.database import PARTS, connect, migrate
from bin.postgres import borrow
from bin.postgres_watcher import is_running
from tests import pooler
from tests.databases import Databases

TESTS = Path(__file__).resolve().parent
NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


through_pooler: str | None = None  # the way to the server's databases, if it is another than the direct one
beside_pooler: str | None = None


def direct(dsn: str) -> str:
    """The way to a test's database that leaves the pooler out, for what only a session of one's own can do."""
    return dsn if beside_pooler is None else make_conninfo(beside_pooler, dbname=conninfo_to_dict(dsn).get("dbname"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--pgbouncer", action="store_true", help="databases of tests are reached through PgBouncer in transaction mode"
    )


@pytest.fixture(scope="session")
def anyio_backend() -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[str]:
    """DSN of a database from which others can be created and dropped."""
    with running_server() as dsn:
        if not request.config.getoption("--pgbouncer"):
            yield dsn
            _databases(dsn).drop_spare()
            return
        if pooler.program() is None:
            pytest.exit("--pgbouncer: there is no pgbouncer here; Debian's package has it", 4)
        global through_pooler, beside_pooler
        beside_pooler = dsn
        with pooler.pooled(dsn) as through_pooler:
            yield dsn


@contextmanager
def running_server() -> Iterator[str]:
    if url := os.environ.get("TEST_DATABASE_URL"):
        yield url
        return
    folder = Path(tempfile.mkdtemp(prefix="holdfast-"))
    bindir = os.environ.get("PG_BINDIR")
    lease = borrow(folder, bindir=Path(bindir) if bindir else None, settings=NOT_DURABLE)
    yield lease.dsn
    lease.close()
    deadline = time.monotonic() + 30
    while is_running(lease.home) and time.monotonic() < deadline:
        time.sleep(0.01)
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def template(server: str) -> Iterator[str]:
    """Name of a database with the whole schema. Nobody may connect to it, or it can't be cloned."""
    with _template(server, PARTS) as name:
        yield name


@pytest.fixture(scope="session")
def engine_template(server: str) -> Iterator[str]:
    with _template(server, ["engine"]) as name:
        yield name


@pytest.fixture
def database(server: str, template: str) -> Iterator[str]:
    """DSN of a fresh database with the whole schema."""
    with new_database(server, template) as dsn:
        yield dsn


@pytest.fixture(scope="module")
def shared_database(server: str, template: str) -> Iterator[str]:
    """Like `database`, one for all tests of a module."""
    with new_database(server, template) as dsn:
        yield dsn


@pytest.fixture
def engine_database(server: str, engine_template: str) -> Iterator[str]:
    """DSN of a fresh database with only the engine's part of the schema."""
    with new_database(server, engine_template) as dsn:
        yield dsn


@pytest.fixture
def empty_database(server: str) -> Iterator[str]:
    with new_database(server, "template1") as dsn:
        yield dsn


@contextmanager
def new_database(server: str, template: str, *, direct: bool = False) -> Iterator[str]:
    """direct: a clone that nobody used before, and not through a pooler, whatever the option says."""
    ours = _databases(server)
    make = ours.cloned if direct or through_pooler or template == "template1" else ours.like
    with make(template) as name:
        yield make_conninfo(server if direct else through_pooler or server, dbname=name)


@cache
def _databases(server: str) -> Databases:
    return Databases(server)


@contextmanager
def _template(server: str, parts: Sequence[str]) -> Iterator[str]:
    with new_database(server, "template1", direct=True) as dsn:
        with connect(dsn, autocommit=True) as conn:
            migrate(conn, parts=parts)
            name = conn.info.dbname
        yield name


#: Files that take longest, longest first. Where several processes share the suite, these are begun first, so that none of them is alone
#: at the end.
LONG = (
    "docs/test_walkthroughs.py",
    "docs/test_pages_run.py",
    "crash/test_crash_points.py",
    "engine/test_replay_property.py",
    "crash/test_drill_commands.py",
    "platform/test_soak.py",
    "crash/test_promotion_kills.py",
    "crash/test_patch_points.py",
    "live/test_live_kills.py",
    "opencode/test_real_server.py",
    "opencode/test_commands.py",
    "platform/test_failoverdemo.py",
    "platform/test_commands.py",
    "sandbox/test_live_runs.py",
    "crash/test_database_restart.py",
    "api/test_fuzz.py",
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests without a database first: the fastest news is the best. But see LONG."""
    items.sort(key=lambda item: "server" in getattr(item, "fixturenames", ()))
    if hasattr(config, "workerinput"):
        places = {TESTS / name: n for n, name in enumerate(LONG)}
        items.sort(key=lambda item: places.get(item.path, len(LONG)))

"""Opens the database, makes it when it is missing, and brings its schema to this code's version.

A new database gets `schema.sql` as it stands. One that an earlier version made gets the numbered files of `bin/upgrades/`
(`002_title.sql` leads to version 2), each in a transaction of its own that waits for no lock longer than a second, and is tried again;
indexes that are built `concurrently` come before it. Each file records its version, and the oldest version whose code may go on working
(`works_with`). One migrator at a time: who comes second finds nothing to do. Scripts are executed as bytes: they are whole files of
ours, never assembled.
"""

import random
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import Connection, errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from bin.sql_files import read_parts, statements
from engine import connection_string

SCHEMA_VERSION = 2
SCHEMA_FILE = Path(__file__).resolve().parent.parent / "schema.sql"
UPGRADES = Path(__file__).with_name("upgrades")
PARTS = ("engine", "app")

#: How often an upgrade is tried whose locks somebody holds, and how long it lets the others through in between.
TRIES = 60
PAUSE_S = 1.0
TURN_S = 0.1

TAKE_TURN = "select pg_try_advisory_xact_lock(hashtextextended('holdfast.schema', 0))"
STAY_IDLE = "set local idle_in_transaction_session_timeout = 0"
#: Whoever wants the table waits behind us: so not for long. A second is also what it takes to find a deadlock, which we give way to.
WAIT_SHORTLY = "set local lock_timeout = 900; set local statement_timeout = 0"
HAS_SCHEMA = "select to_regclass('engine.schema_version') is not null"
READ_VERSION = "select max(version) from engine.schema_version"
READ_WORKS_WITH = "select works_with from engine.schema_version order by version desc limit 1"
DATABASE_EXISTS = "select 1 from pg_database where datname = %s"

BUILT_AHEAD = re.compile(r"(create (unique )?|drop )index concurrently ", re.IGNORECASE)
HALF_BUILT = """
select n.nspname, c.relname
  from pg_index i join pg_class c on c.oid = i.indexrelid join pg_namespace n on n.oid = c.relnamespace
 where not i.indisvalid and n.nspname in ('dbos', 'engine', 'app')
 order by 1, 2
"""


class DatabaseUnusable(Exception):
    """One sentence that names the database, without its password, and says what to do."""


@dataclass(frozen=True)
class Migration:
    found: int  # 0: nothing was there
    version: int

    def __str__(self) -> str:
        if self.found == self.version:
            return f"schema is at version {self.version} already, nothing to do"
        if self.found > self.version:
            return f"schema is at version {self.found}, which works with this code of version {self.version}, nothing to do"
        return f"schema is at version {self.version} now (it was {f'at {self.found}' if self.found else 'missing'})"


@dataclass(frozen=True)
class Upgrade:
    """What leads to a version: the statements that run before its transaction, each alone, and those of the transaction."""

    number: int
    file: Path
    ahead: Sequence[str]
    together: Sequence[str]


def connect(dsn: str, *, autocommit: bool = False) -> Connection:
    try:
        return psycopg.connect(connection_string(dsn), autocommit=autocommit, prepare_threshold=None)
    except psycopg.Error as error:
        raise DatabaseUnusable(
            f"cannot reach the database at {where(dsn)}: {_reason(error)}; set DATABASE_URL, or DB_HOST and its companions, "
            "or none of them for an embedded one"
        ) from None


def where(dsn: str) -> str:
    """host:port/name of a DSN, fit to be printed."""
    parts = conninfo_to_dict(dsn)
    host = parts.get("host") or parts.get("hostaddr") or "the local socket"
    return f"{host}:{parts.get('port') or 5432}/{parts.get('dbname') or parts.get('user') or ''}"


def create_if_missing(dsn: str, *, maintenance_database: str = "postgres") -> bool:
    """Makes the database itself when the server has none of that name. False when it was there."""
    try:
        connect(dsn).close()
        return False
    except DatabaseUnusable as unusable:
        name = conninfo_to_dict(dsn).get("dbname")
        try:
            with connect(make_conninfo(dsn, dbname=maintenance_database), autocommit=True) as conn:
                if name is None or conn.execute(DATABASE_EXISTS, (name,)).fetchone():
                    raise unusable
                conn.execute(sql.SQL("create database {}").format(sql.Identifier(str(name))))
        except (errors.DuplicateDatabase, errors.UniqueViolation):
            return False
        except errors.InsufficientPrivilege:
            raise DatabaseUnusable(f"there is no database {where(dsn)} and its user may not create it: create it first") from None
        except DatabaseUnusable:
            raise unusable from None
    return True


def migrate(
    conn: Connection,
    *,
    parts: Sequence[str] = PARTS,
    schema_file: Path = SCHEMA_FILE,
    upgrades: Path = UPGRADES,
    version: int = SCHEMA_VERSION,
    tell: Callable[[str], None] = lambda _: None,
) -> Migration:
    """Brings the schema to `version`. Doing it again changes nothing. conn: in autocommit. tell: hears what takes its time."""
    try:
        found = version_of(conn)
        if found < version:
            with _our_turn(conn):
                found = version_of(conn)
                if found == 0:
                    with conn.transaction():
                        conn.execute(read_parts(schema_file, parts).encode())
                        _require_recorded(conn, version, schema_file)
                for upgrade in planned(found, version, parts=parts, folder=upgrades) if found else []:
                    _carry_out(conn, upgrade, tell)
        refuse_too_new(conn, found, version)
    except errors.InsufficientPrivilege as error:
        raise DatabaseUnusable(
            f"the user of {where(conn.info.dsn)} may not make the schema ({_reason(error)}): grant it CREATE on the database, "
            "or run bin/migrate as the owner"
        ) from error
    except psycopg.Error as error:
        raise DatabaseUnusable(
            f"cannot bring the schema of {where(conn.info.dsn)} to version {version}: {_reason(error)}"
        ) from error
    return Migration(found, version)


def planned(
    found: int, version: int = SCHEMA_VERSION, *, parts: Sequence[str] = PARTS, folder: Path = UPGRADES
) -> Iterator[Upgrade]:
    """The upgrades from one version to another. Raises DatabaseUnusable where a file is missing."""
    for number in range(found + 1, version + 1):
        scripts = sorted(folder.glob(f"{number:03d}_*.sql"))
        if len(scripts) != 1:
            raise DatabaseUnusable(
                f"{folder} holds {len(scripts)} files {number:03d}_*.sql, and needs exactly one to reach version {number}"
            )
        script = list(statements(read_parts(scripts[0], parts)))
        ahead = [statement for statement in script if BUILT_AHEAD.match(statement)]
        yield Upgrade(number, scripts[0], ahead, [statement for statement in script if statement not in ahead])


def version_of(conn: Connection) -> int:
    """The recorded schema version; 0 when there is none."""
    if not _value(conn, HAS_SCHEMA):
        return 0
    version = _value(conn, READ_VERSION)
    return version if isinstance(version, int) else 0


def require_schema(conn: Connection, version: int = SCHEMA_VERSION) -> None:
    """For processes that use the schema and must not change it. Raises DatabaseUnusable when it is too old or too new for this code."""
    found = version_of(conn)
    if found < version:
        has = f"schema version {found}" if found else "no schema"
        raise DatabaseUnusable(
            f"the database {where(conn.info.dsn)} has {has}, and this code needs version {version}: run bin/migrate"
        )
    refuse_too_new(conn, found, version)


def refuse_too_new(conn: Connection, found: int, version: int) -> None:
    """Raises DatabaseUnusable when the schema that was found no longer works with code of that version."""
    if found <= version:
        return
    works_with = _value(conn, READ_WORKS_WITH)
    if isinstance(works_with, int) and works_with > version:
        raise DatabaseUnusable(
            f"the database {where(conn.info.dsn)} has schema version {found}, which works with code of version {works_with} and newer, "
            f"and this code is of version {version}: run newer code"
        )


@contextmanager
def _our_turn(conn: Connection) -> Iterator[None]:
    """Nobody else migrates meanwhile. The lock is held by an idle transaction on a connection of its own, and waited for in no
    transaction: an index that is built concurrently waits for every statement that is under way, also one that waits for a lock.
    """
    with connect(make_conninfo(conn.info.dsn, password=conn.info.password or None)) as guard:
        guard.execute(STAY_IDLE)
        while not _value(guard, TAKE_TURN):
            guard.rollback()
            time.sleep(TURN_S)
            guard.execute(STAY_IDLE)
        yield


def _carry_out(conn: Connection, upgrade: Upgrade, tell: Callable[[str], None]) -> None:
    if upgrade.ahead:
        for schema, index in conn.execute(HALF_BUILT).fetchall():  # what an interrupted build leaves does nothing but cost
            conn.execute(sql.SQL("drop index concurrently if exists {}").format(sql.Identifier(schema, index)))
    for statement in upgrade.ahead:
        tell(statement)
        conn.execute(statement.encode())
    for left in range(TRIES - 1, -1, -1):
        try:
            with conn.transaction():
                conn.execute(WAIT_SHORTLY)
                for statement in upgrade.together:
                    conn.execute(statement.encode())
                _require_recorded(conn, upgrade.number, upgrade.file)
            return
        except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
            if not left:
                raise DatabaseUnusable(
                    f"cannot upgrade {where(conn.info.dsn)} to version {upgrade.number}: in {TRIES} tries its locks were not to be had; "
                    "end long transactions (pg_stat_activity shows them), then run bin/migrate again"
                ) from error
            tell(f"version {upgrade.number} waits for a lock that somebody holds: {_reason(error)}")
            time.sleep(PAUSE_S * random.uniform(0.5, 1.5))


def _require_recorded(conn: Connection, version: int, file: Path) -> None:
    recorded = version_of(conn)
    if recorded != version:
        raise DatabaseUnusable(f"{file} records version {recorded} and not {version}")


def _value(conn: Connection, query: LiteralString) -> object:
    row: TupleRow | None = conn.execute(query).fetchone()
    return row[0] if row else None


def _reason(error: psycopg.Error) -> str:
    """The server's own sentence, or the client's first line."""
    return error.diag.message_primary or str(error).strip().split("\n")[0]

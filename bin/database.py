"""Opens the database, makes it when it is missing, and brings its schema to this code's version.

A new database gets `schema.sql` as it stands. One that an earlier version made gets the numbered files of `bin/upgrades/`
(`002_title.sql` leads to version 2), each in a transaction of its own. Whoever comes second waits on an advisory lock and then finds
nothing to do. Scripts are executed as bytes: they are whole files of ours, never assembled.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import LiteralString

import psycopg
from psycopg import Connection, errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow

from engine import connection_string

SCHEMA_VERSION = 1
SCHEMA_FILE = Path(__file__).resolve().parent.parent / "schema.sql"
UPGRADES = Path(__file__).with_name("upgrades")
PARTS = ("engine", "app")

ONE_MIGRATION_AT_A_TIME = "select pg_advisory_xact_lock(hashtextextended('holdfast.schema', 0))"
HAS_SCHEMA = "select to_regclass('engine.schema_version') is not null"
READ_VERSION = "select max(version) from engine.schema_version"
RECORD_VERSION = "insert into engine.schema_version (version) values (%s)"
DATABASE_EXISTS = "select 1 from pg_database where datname = %s"


class DatabaseUnusable(Exception):
    """One sentence that names the database, without its password, and says what to do."""


@dataclass(frozen=True)
class Migration:
    found: int  # 0: nothing was there
    version: int

    def __str__(self) -> str:
        if self.found == self.version:
            return f"schema is at version {self.version} already, nothing to do"
        return f"schema is at version {self.version} now (it was {f'at {self.found}' if self.found else 'missing'})"


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
) -> Migration:
    """Brings the schema to `version`. Doing it again changes nothing."""
    try:
        with conn.transaction():
            conn.execute(ONE_MIGRATION_AT_A_TIME)
            found = version_of(conn)
            if found == 0:
                conn.execute(read_schema(schema_file, parts))
                conn.execute(RECORD_VERSION, (version,))
        if found > version:
            raise DatabaseUnusable(
                f"the database {where(conn.info.dsn)} has schema version {found}, and this code knows only {version}: run newer code"
            )
        if found:
            for number in range(found + 1, version + 1):
                _upgrade(conn, number, upgrades)
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


def version_of(conn: Connection) -> int:
    """The recorded schema version; 0 when there is none."""
    if not _value(conn, HAS_SCHEMA):
        return 0
    version = _value(conn, READ_VERSION)
    return version if isinstance(version, int) else 0


def require_schema(conn: Connection) -> None:
    """For processes that use the schema and must not change it."""
    found = version_of(conn)
    if found < SCHEMA_VERSION:
        raise DatabaseUnusable(f"the database {where(conn.info.dsn)} has no schema version {SCHEMA_VERSION}: run bin/migrate")
    if found > SCHEMA_VERSION:
        raise DatabaseUnusable(
            f"the database {where(conn.info.dsn)} has schema version {found}, newer than this code: run newer code"
        )


def read_schema(file: Path, parts: Sequence[str]) -> bytes:
    """The parts of the file that were asked for. A part starts at its line `-- part: NAME` and ends where the next starts."""
    chosen: list[bytes] = []
    taken = False
    for line in file.read_bytes().splitlines(keepends=True):
        if line.startswith(b"-- part: "):
            taken = line.removeprefix(b"-- part: ").strip().decode() in parts
        if taken:
            chosen.append(line)
    return b"".join(chosen)


def _upgrade(conn: Connection, number: int, folder: Path) -> None:
    scripts = sorted(folder.glob(f"{number:03d}_*.sql"))
    if len(scripts) != 1:
        raise DatabaseUnusable(
            f"{folder} holds {len(scripts)} files {number:03d}_*.sql, and needs exactly one to reach version {number}"
        )
    with conn.transaction():
        conn.execute(ONE_MIGRATION_AT_A_TIME)
        if version_of(conn) < number:
            conn.execute(scripts[0].read_bytes())
            conn.execute(RECORD_VERSION, (number,))


def _value(conn: Connection, query: LiteralString) -> object:
    row: TupleRow | None = conn.execute(query).fetchone()
    return row[0] if row else None


def _reason(error: psycopg.Error) -> str:
    """The server's own sentence, or the client's first line."""
    return error.diag.message_primary or str(error).strip().split("\n")[0]

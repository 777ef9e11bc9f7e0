"""The PostgreSQL server under test, and what it counts: commits and WAL of one stretch of work in one database."""

import time
from dataclasses import dataclass
from typing import LiteralString
from urllib.parse import quote, urlencode

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from benchmarks.processes import cpu_s

SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "30min",
    "max_connections": "200",
}
MUST_BE_ON = ("fsync", "synchronous_commit", "full_page_writes")
COUNTERS = (
    "select xact_commit, pg_current_wal_insert_lsn() - '0/0'::pg_lsn from pg_stat_database where datname = current_database()"
)
CLOCK_MS = "select (extract(epoch from clock_timestamp()) * 1000)::bigint"
BACKENDS = "select pid from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
OTHERS = "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


class NotDurable(Exception):
    """The server would lose a commit in a crash, so figures from it mean nothing."""


class NeverHappened(Exception):
    """What a benchmark waited for did not come about."""


@dataclass(frozen=True)
class Counters:
    commits: int
    wal_bytes: int


class Database:
    """One database of the server under test, with a connection for setting up and counting."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self.connection = psycopg.connect(dsn, autocommit=True, application_name="bench")
        self._own_commits = 0

    def close(self) -> None:
        self.connection.close()

    def number(self, query: LiteralString, *parameters: object) -> int:
        """The one number a query gives; its commit is not counted as the workload's."""
        self._own_commits += 1
        row = self.connection.execute(query, parameters).fetchone()
        assert row is not None
        return int(row[0] or 0)

    def wait_for(self, query: LiteralString, count: int, timeout_s: float, every_s: float = 0.1) -> None:
        """Return once the query counts `count`; raises NeverHappened."""
        deadline = time.monotonic() + timeout_s
        while (seen := self.number(query)) != count:
            if time.monotonic() > deadline:
                raise NeverHappened(f"{seen} instead of {count} after {timeout_s:g} s: {' '.join(query.split())}")
            time.sleep(every_s)

    def server_cpu_s(self) -> float | None:
        """Processor seconds of the others' backends so far; None when the server is on another machine."""
        self._own_commits += 1
        pids = [int(row[0]) for row in self.connection.execute(BACKENDS)]
        used = [cpu_s(pid, "postgres") for pid in pids]
        return None if None in used else sum(filter(None, used))

    def counters(self, settled: bool) -> Counters:
        """Totals so far, without what this connection did. Backends report their commits when they end: `settled` waits for that."""
        deadline = time.monotonic() + 15
        while settled and self.number(OTHERS) and time.monotonic() < deadline:
            time.sleep(0.05)
        row = self.connection.execute("select pg_stat_force_next_flush()").fetchone()
        row = self.connection.execute(COUNTERS).fetchone()
        assert row is not None
        counted = Counters(int(row[0]) - self._own_commits, int(row[1]))
        self._own_commits += 2
        return counted


class Server:
    """Gives fresh databases on one server; refuses a server that is not durable."""

    def __init__(self, dsn: str) -> None:
        self.dsn = dsn
        self._admin = psycopg.connect(dsn, autocommit=True)
        for setting in MUST_BE_ON:
            if self._one("select current_setting(%s)", setting) != "on":
                raise NotDurable(f"{setting} is off on this server: turn it on, the benchmark measures durable commits only")
        self.version = self._one("select split_part(current_setting('server_version'), ' ', 1)")
        self.shared_buffers = self._one("select current_setting('shared_buffers')")

    def _one(self, query: LiteralString, *parameters: object) -> str:
        row = self._admin.execute(query, parameters).fetchone()
        assert row is not None
        return str(row[0])

    def fresh(self, name: str, schema: bytes = b"") -> Database:
        """An empty database of this name, with the schema in it and all earlier dirty pages written."""
        self._admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        self._admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
        database = Database(address(self.dsn, name))
        if schema:
            database.connection.execute(schema)
        self._admin.execute("checkpoint")
        return database

    def close(self) -> None:
        self._admin.close()


def address(dsn: str, database: str) -> str:
    """The URL of another database on the server of `dsn`, which may have either of libpq's forms."""
    parts = {key: str(value) for key, value in conninfo_to_dict(dsn).items() if key != "dbname" and value is not None}
    secret = f":{quote(parts.pop('password'), safe='')}" if "password" in parts else ""
    user = f"{quote(parts.pop('user'), safe='')}{secret}@" if "user" in parts else ""
    return f"postgresql://{user}/{quote(database, safe='')}?{urlencode(parts)}"

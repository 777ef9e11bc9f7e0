"""Databases for tests: cloned from a template once, then emptied and used again, which takes a tenth of the time.

A database is used again only under another name, so that what a test left running cannot find it, and only if its catalogs and the rows
that its template came with are as they were. Everything else of it is thrown away: rows, sequences, statistics, dead tuples.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString
from uuid import uuid4

import psycopg
from psycopg import Connection, sql
from psycopg.conninfo import make_conninfo

from bin.database import connect

# For a small template, cloning by file takes less than half the time of the default.
CREATE: LiteralString = "create database {} template {} strategy file_copy"
DROP: LiteralString = "drop database {} with (force)"
RENAME: LiteralString = "alter database {} rename to {}"
CUT_OFF: LiteralString = "select pg_terminate_backend(pid) from pg_stat_activity where datname = %s"
GONE_S = 5.0
MOST_USES = 50  # each leaves a few hundred dead rows in the catalogs

# What tests may have changed beside rows. A row of a catalog that was written again has another xmin; pg_class is written by truncate too.
CATALOGS: LiteralString = """
select md5(concat(
    (select string_agg(concat(t.oid, t.xmin), ',' order by t.oid) from pg_proc t where t.oid >= 16384),
    (select string_agg(concat(t.oid, t.xmin), ',' order by t.oid) from pg_trigger t),
    (select string_agg(concat(t.oid, t.xmin), ',' order by t.oid) from pg_constraint t where t.oid >= 16384),
    (select string_agg(concat(t.oid, t.xmin), ',' order by t.oid) from pg_namespace t),
    (select string_agg(concat(t.oid, t.xmin), ',' order by t.oid) from pg_rewrite t where t.oid >= 16384),
    (select string_agg(concat(t.oid, t.xmin), ',' order by t.oid) from pg_default_acl t),
    (select string_agg(concat(t.oid, t.xmin), ',' order by t.oid) from pg_extension t),
    (select string_agg(concat(t.oid, t.xmin), ',' order by t.oid) from pg_event_trigger t),
    (select string_agg(concat(t.attrelid, t.attnum, t.xmin), ',' order by t.attrelid, t.attnum) from pg_attribute t
      where t.attrelid >= 16384),
    (select string_agg(concat(t.indexrelid, t.xmin), ',' order by t.indexrelid) from pg_index t where t.indexrelid >= 16384),
    (select string_agg(concat(t.oid, t.relname, t.relowner, t.relacl, t.reloptions, t.relpersistence), ',' order by t.oid) from pg_class t
      where t.oid >= 16384),
    (select string_agg(t.setconfig::text, ',') from pg_db_role_setting t join pg_database d on d.oid = t.setdatabase
      where d.datname = current_database())))
"""
OUR_TABLES: LiteralString = """
select format('%I.%I', n.nspname, c.relname), pg_relation_size(c.oid) > 0 from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'r' and n.nspname !~ '^(pg_|information_schema$)' order by 1
"""
SEQUENCES: LiteralString = """
select setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false) from pg_sequences where last_value is not null
"""


class Databases:
    """Those of one server. All that is taken from here is given back by the end of the `with` around it."""

    def __init__(self, server: str) -> None:
        self._server = server
        self._admin: Connection | None = None
        self._spare: dict[str, list[str]] = {}
        self._left: dict[str, int] = {}  # how often a database may still be used
        self._as_new: dict[str, tuple[object, dict[str, object]]] = {}

    @contextmanager
    def cloned(self, template: str) -> Iterator[str]:
        """Name of a new database; it is dropped afterwards."""
        name = _name()
        self._tell(CREATE, name, template)
        try:
            yield name
        finally:
            self._tell(DROP, name)

    @contextmanager
    def like(self, template: str) -> Iterator[str]:
        """Name of a database that is as the template."""
        name = self._take(template)
        try:
            yield name
        finally:
            self._give_back(template, name)

    def drop_spare(self) -> None:
        for name in (name for names in self._spare.values() for name in names):
            self._tell(DROP, name)
        self._spare.clear()
        if self._admin is not None:
            self._admin.close()
            self._admin = None

    def _take(self, template: str) -> str:
        name = _name()
        if spare := self._spare.get(template):
            old = spare.pop()
            self._left[name] = self._left.pop(old)
            self._rename(old, name)
        else:
            self._tell(CREATE, name, template)
            self._left[name] = MOST_USES
            if template not in self._as_new:
                with self._connect(name) as conn:
                    self._as_new[template] = _as_is(conn)
        return name

    def _give_back(self, template: str, name: str) -> None:
        spare = _name()
        left = self._left.pop(name) - 1
        try:
            self._rename(name, spare)
        except psycopg.errors.ObjectInUse:  # somebody came back at once
            spare = name
        else:
            with self._connect(spare) as conn:
                if left and _emptied(conn, *self._as_new[template]):
                    self._left[spare] = left
                    self._spare.setdefault(template, []).append(spare)
                    return
        self._tell(DROP, spare)

    def _rename(self, name: str, to: str) -> None:
        """Nobody may be connected. PostgreSQL itself looks again after 100 ms, which is long."""
        deadline = time.monotonic() + GONE_S
        while self._here().execute(CUT_OFF, (name,)).fetchone() and time.monotonic() < deadline:
            time.sleep(0.003)
        self._tell(RENAME, name, to)

    def _connect(self, name: str) -> Connection:
        return connect(make_conninfo(self._server, dbname=name), autocommit=True)

    def _tell(self, statement: LiteralString, *names: str) -> None:
        self._here().execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def _here(self) -> Connection:
        if self._admin is None or self._admin.closed:
            self._admin = connect(self._server, autocommit=True)
        return self._admin


def _name() -> str:
    return f"test_{uuid4().hex}"


def _as_is(conn: Connection) -> tuple[object, dict[str, object]]:
    """The catalogs, and the rows of the tables that have any."""
    return _value(conn, CATALOGS), {table: _rows(conn, table) for table, used in _tables(conn).items() if used}


def _emptied(conn: Connection, catalogs: object, rows: dict[str, object]) -> bool:
    """Makes a database as it was; False if that takes more than emptying tables."""
    if _value(conn, CATALOGS) != catalogs or any(_rows(conn, table) != was for table, was in rows.items()):
        return False
    used = [table for table, is_used in _tables(conn).items() if is_used and table not in rows]
    with conn.transaction():
        conn.execute("set local session_replication_role = replica")  # what may not be deleted has triggers that say so
        if used:
            conn.execute(sql.SQL("truncate {} cascade").format(sql.SQL(", ").join(map(_identifier, used))))
        conn.execute(SEQUENCES)
        conn.execute("delete from pg_statistic where starelid >= 16384")
    return True


def _tables(conn: Connection) -> dict[str, bool]:
    return dict(conn.execute(OUR_TABLES))


def _rows(conn: Connection, table: str) -> object:
    return _value(conn, sql.SQL("select string_agg(t::text, e'\\n' order by t::text) from {} t").format(_identifier(table)))


def _identifier(table: str) -> sql.SQL | sql.Composed:
    return sql.SQL(".").join(map(sql.Identifier, table.split(".")))


def _value(conn: Connection, query: LiteralString | sql.Composed) -> object:
    row = conn.execute(query).fetchone()
    return row[0] if row else None

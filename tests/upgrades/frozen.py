"""Databases as older versions made them: the schema of a version, and rows that its code left there.

`python -m tests.upgrades.freeze` writes both when a version is released; from then on they never change.
"""

import gzip
import re
from pathlib import Path
from typing import Any, LiteralString

import psycopg
from psycopg import sql

from bin.sql_files import read_parts
from tests.upgrades.catalog import TABLES

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
SCHEMA = "schema_{:03d}.sql.gz"
ROWS = "rows_{:03d}.copy.gz"
END = b"\\.\n"
NUMBERED = re.compile(rb"-- (?P<sequence>\S+) (?P<value>\d+)\n")

COLUMNS: LiteralString = """
select a.attname from pg_attribute a
 where a.attrelid = %s::regclass and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' order by a.attnum
"""
SEQUENCES: LiteralString = """
select format('%I.%I', s.schemaname, s.sequencename), s.last_value from pg_sequences s
 where s.schemaname in ('dbos', 'engine', 'app') and s.last_value is not null order by 1
"""
#: The first version's code recorded itself beside the file.
RECORD_THE_FIRST: LiteralString = (
    "insert into engine.schema_version (version) select 1 where not exists (select from engine.schema_version)"
)


def freeze_schema(checkout: Path, version: int) -> None:
    (HERE / SCHEMA.format(version)).write_bytes(packed((checkout / "schema.sql").read_bytes()))


def packed(content: bytes) -> bytes:
    """The same bytes for the same content."""
    return gzip.compress(content, 9, mtime=0)


def schema_of(version: int) -> bytes:
    return gzip.decompress((HERE / SCHEMA.format(version)).read_bytes())


def make(conn: psycopg.Connection[Any], version: int, folder: Path, *, parts: tuple[str, ...] = ("engine", "app")) -> None:
    """The schema of that version in an empty database. folder: for a file."""
    file = folder / f"schema_{version}.sql"
    file.write_bytes(schema_of(version))
    conn.execute(read_parts(file, parts).encode())
    if version == 1:
        conn.execute(RECORD_THE_FIRST)


def freeze_rows(conn: psycopg.Connection[Any], version: int) -> None:
    """All rows that are there, in order, and where the sequences are."""
    out = bytearray()
    for schema, name in conn.execute(TABLES).fetchall():
        table = sql.Identifier(schema, name)
        columns = sql.SQL(", ").join(sql.Identifier(row[0]) for row in conn.execute(COLUMNS, (table.as_string(conn),)).fetchall())
        chosen = sql.SQL('copy (select {} from {} t order by t::text collate "C") to stdout').format(columns, table)
        with conn.cursor().copy(chosen) as copied:
            rows = b"".join(bytes(block) for block in copied)
        if rows:
            out += sql.SQL("copy {} ({}) from stdin\n").format(table, columns).as_bytes(conn) + rows + END
    for sequence, value in conn.execute(SEQUENCES).fetchall():
        out += f"-- {sequence} {value}\n".encode()
    (HERE / ROWS.format(version)).write_bytes(packed(bytes(out)))


def fill(conn: psycopg.Connection[Any], version: int) -> None:
    """The rows that code of that version left. The workers that made them are gone: their leases ran out when the rows were frozen."""
    lines = iter(gzip.decompress((HERE / ROWS.format(version)).read_bytes()).splitlines(keepends=True))
    with conn.transaction():
        conn.execute("set local session_replication_role = replica")  # what happened has happened
        tables = [sql.Identifier(*row) for row in conn.execute(TABLES).fetchall()]
        conn.execute(sql.SQL("truncate {}").format(sql.SQL(", ").join(tables)))
        for line in lines:
            if numbered := NUMBERED.fullmatch(line):
                conn.execute("select setval(%s, %s)", (numbered["sequence"].decode(), int(numbered["value"])))
                continue
            with conn.cursor().copy(line) as copied:
                for row in iter(lambda: next(lines), END):
                    copied.write(row)

"""How many rows every table of a database has: for tests that nothing is written, or nothing left behind."""

import psycopg
from psycopg import sql


def row_counts(dsn: str) -> dict[str, int]:
    """By table, with its schema."""
    with psycopg.connect(dsn) as conn:
        tables = conn.execute(
            "select schemaname, tablename from pg_tables where schemaname in ('dbos', 'engine', 'app') order by 1, 2"
        ).fetchall()
        counts: dict[str, int] = {}
        for schema, table in tables:
            row = conn.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(schema, table))).fetchone()
            counts[f"{schema}.{table}"] = row[0] if row else 0
    return counts

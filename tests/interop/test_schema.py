"""DBOS's tools find a schema that they know, change nothing about it, and need no right beyond its tables."""

from collections.abc import Iterator
from typing import Any, LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from bin.database import connect
from tests.docs.conftest import url
from tests.engine.workshop import Workshop
from tests.interop.client import Dbos, ForeignProcess
from tests.interop.subjects import ALL

# Everything that makes up the schema, as the server would write it down.
SCHEMA: LiteralString = """
with ours as (select oid, nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema')
select 'schema', n.nspname, n.nspname, coalesce(s.nspacl::text, '') from ours n join pg_namespace s using (oid)
union all
select 'relation', n.nspname, c.relname,
       concat_ws(' ', c.relkind, c.reloptions::text, c.relacl::text, c.relowner::regrole,
                 pg_get_viewdef(case when c.relkind = 'v' then c.oid end))
  from pg_class c join ours n on n.oid = c.relnamespace where c.relkind <> 'i'
union all
select 'column', n.nspname, c.relname || '.' || a.attnum || '.' || a.attname,
       concat_ws(' ', format_type(a.atttypid, a.atttypmod), a.attnotnull, a.attidentity, a.attgenerated, pg_get_expr(d.adbin, d.adrelid))
  from pg_attribute a
  join pg_class c on c.oid = a.attrelid join ours n on n.oid = c.relnamespace
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
 where a.attnum > 0 and c.relkind <> 'i'
union all
select 'index', schemaname, indexname, indexdef from pg_indexes join ours on nspname = schemaname
union all
select 'constraint', n.nspname, c.conrelid::regclass || '.' || c.conname, pg_get_constraintdef(c.oid)
  from pg_constraint c join ours n on n.oid = c.connamespace
union all
select 'trigger', n.nspname, c.relname || '.' || t.tgname, concat(t.tgenabled, ' ', pg_get_triggerdef(t.oid))
  from pg_trigger t join pg_class c on c.oid = t.tgrelid join ours n on n.oid = c.relnamespace where not t.tgisinternal
union all
select 'function', n.nspname, p.oid::regprocedure::text, concat(p.proacl::text, ' ', pg_get_functiondef(p.oid))
  from pg_proc p join ours n on n.oid = p.pronamespace where p.prokind = 'f'
union all
select 'version', 'dbos', 'dbos_migrations', string_agg(version::text, ' ') from dbos.dbos_migrations
 order by 1, 2, 3, 4
"""
CHANGE: LiteralString = "create index unwanted on dbos.workflow_status (name)"


def schema(dsn: str) -> list[tuple[Any, ...]]:
    with connect(dsn) as conn:
        return conn.execute(SCHEMA).fetchall()


async def test_no_tool_of_dbos_changes_the_schema(shop: Workshop, shop_database: str, dbos: Dbos) -> None:
    before = schema(shop_database)
    assert len(before) > 300
    assert ("version", "dbos", "dbos_migrations", "125") in before
    for client in ({}, {"use_listen_notify": True}, {"application_name": "shop"}, {"lazy": True}):
        await dbos.call("check_connection", client=client)
    await dbos.command("migrate")
    await dbos.call("launch", dbos.url)
    assert schema(shop_database) == before
    with connect(shop_database, autocommit=True) as conn:
        conn.execute(CHANGE)
    assert schema(shop_database) != before, "a change would be seen"


@pytest.fixture
def limited(foreign: ForeignProcess, shop_database: str) -> Iterator[Dbos]:
    """A client whose role may use the tables of the schema dbos and nothing else."""
    name = f"client_{uuid4().hex[:12]}"
    role = sql.Identifier(name)
    with connect(shop_database, autocommit=True) as conn:
        conn.execute(sql.SQL("create role {}").format(role))
        conn.execute(sql.SQL("grant usage on schema dbos to {}").format(role))
        conn.execute(sql.SQL("grant select, insert, update, delete on all tables in schema dbos to {}").format(role))
        yield Dbos(foreign, url(make_conninfo(shop_database, options=f"-c role={name}")))
        conn.execute(sql.SQL("drop owned by {}").format(role))
        conn.execute(sql.SQL("drop role {}").format(role))


async def test_rights_on_the_tables_of_dbos_are_enough(shop: Workshop, limited: Dbos) -> None:
    await shop.worker(*ALL)
    await limited.enqueue("tour", 2, workflow_id="w")
    await limited.send("w", "yes", "answer")
    assert await limited.result("w") == {"sum": 5, "answer": "yes"}
    assert await limited.call("read_stream", "w", "log") == ["first", {"sum": 5}]
    await limited.call("fork_workflow", "w", 9, new_id="copy")
    await shop.parked("copy")
    await limited.call("cancel_workflow", "copy", cancel_children=True)
    await limited.call("resume_workflow", "copy")
    await limited.call("rewind_workflow", "w")
    assert sorted(await limited.listed(name="tour")) == ["copy", "w"]
    await limited.call("delete_workflows", ["w", "copy"], delete_children=True)
    assert await limited.listed() == []
    with connect(limited.url) as conn, pytest.raises(psycopg.errors.InsufficientPrivilege):
        conn.execute("select count(*) from engine.worker")

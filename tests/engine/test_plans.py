"""The statements that run all the time find their rows by the index made for them, also on tables that were never analyzed.

A planner that guesses on a fresh or fast-growing table can choose a join that is right and a thousand times slower. So the generic
plans, under the settings of a worker's connections, are run here over some 20,000 rows: which indexes they use, and how many rows they
read that they did not want.
"""

import json
import re
from collections.abc import Iterator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

from engine import claims, entries, journal, leases, wakeups
from tests.conftest import new_database

HERE = [f"run {n:05}" for n in range(0, 20_000, 200)]  # a hundred of the rows
FIELD = entries.FIELD

FILL: LiteralString = """
alter table dbos.workflow_status set (autovacuum_enabled = off);
alter table dbos.operation_outputs set (autovacuum_enabled = off);
alter table dbos.notifications set (autovacuum_enabled = off);
insert into engine.clock (now_ms) values (1000000);
insert into engine.worker (id, lease_until_ms, started_at_ms)
select 'worker ' || n, 2000000, 0 from generate_series(0, 9) n;
insert into dbos.workflow_status (workflow_uuid, name, queue_name, priority, created_at, claims, inputs, status, owner_xid, executor_id,
                                  waits, wake_at_ms, delay_until_epoch_ms, workflow_deadline_epoch_ms)
select 'run ' || lpad(n::text, 5, '0'), 'w', 'q' || n % 3, n % 2, n, 1, '{}',
       case when n % 10 < 4 then 'SUCCESS' when n % 10 < 6 then 'ENQUEUED' when n % 10 = 6 then 'DELAYED' else 'PENDING' end,
       case when n % 10 = 7 then 'token ' || n end,
       case when n % 10 = 7 then 'worker ' || n / 10 % 10 end,
       case when n % 10 > 7 then array['t:go'] end,
       case when n % 10 > 7 then case when n % 1000 < 10 then 1 else 3000000 end end,
       case when n % 10 = 6 then case when n % 1000 < 10 then 1 else 3000000 end end,
       case when n % 10 = 5 then case when n % 1000 < 10 then 1 else 3000000 end end
  from generate_series(0, 19999) n;
insert into dbos.operation_outputs (workflow_uuid, function_id, call_path, function_name, output, serialization)
select 'run ' || lpad((n / 3)::text, 5, '0'), n % 3 + 1, (n % 3 + 1)::text, 's', '1', 'portable_json' from generate_series(0, 59999) n;
insert into dbos.notifications (message_uuid, destination_uuid, topic, message, serialization)
select n::text, 'run ' || lpad(n::text, 5, '0'), 'go', '1', 'portable_json' from generate_series(0, 19999) n;
delete from engine.wake;
"""
TOKENS: LiteralString = """
update dbos.workflow_status set status = 'PENDING', owner_xid = 'token', executor_id = 'worker 0', waits = null
 where workflow_uuid = any (%s)
"""


@pytest.fixture(scope="module")
def filled(server: str, engine_template: str) -> Iterator[psycopg.Connection[Any]]:
    with new_database(server, engine_template, direct=True) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        conn.execute(FILL)
        conn.execute(TOKENS, (HERE,))
        conn.execute(entries.PIN_PLANS, entries.FOR_THE_SESSION)
        assert conn.execute("select count(*) from pg_stats where schemaname = 'dbos'").fetchone() == (0,)
        yield conn


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def explain(conn: psycopg.Connection[Any], statement: str, given: Any) -> list[dict[str, Any]]:
    """The nodes of a statement's generic plan, after running it; its changes are undone."""
    values: list[Any] = []

    def number(match: re.Match[str]) -> str:
        values.append(given[match[1]] if match[1] else given[len(values)])
        return f"${len(values)}"

    numbered = re.sub(r"%(?:\((\w+)\))?s", number, statement)
    conn.execute("deallocate all")
    conn.execute(b"prepare p as " + numbered.encode())
    literals = sql.SQL("({})").format(sql.SQL(", ").join(map(sql.Literal, values))) if values else sql.SQL("")
    with conn.transaction(force_rollback=True):
        row = conn.execute(sql.SQL("explain (analyze, format json) execute p {}").format(literals), prepare=False).fetchone()
    assert row is not None
    plan = row[0] if isinstance(row[0], list) else json.loads(row[0])
    return list(nodes(plan[0]["Plan"]))


def joined(values: list[str]) -> str:
    return FIELD.join(values)


TOKEN = ["token"] * len(HERE)
WAITING = [f"run {n:05}" for n in range(8, 20_000, 200)]
STATEMENTS: dict[str, tuple[str, Any, set[str]]] = {
    "fence": (entries.FENCE, (joined(HERE), joined(TOKEN), str(len(HERE))), {"workflow_status_pkey"}),
    "still ours": (journal.STILL_OURS, (joined(HERE), joined(TOKEN)), {"workflow_status_pkey"}),
    "recorded": (journal.RECORDED, (joined(HERE), entries.numbers([1] * len(HERE))), {"operation_outputs_pkey"}),
    "receive": (
        entries.RECEIVE,
        (joined(HERE), joined(["go"] * len(HERE)), joined(["9"] * len(HERE)), entries.numbers([9] * len(HERE))),
        {"notifications_mailbox", "notifications_pkey"},
    ),
    "park": (
        entries.PARK,
        (joined(HERE), joined([f"t:other{entries.ITEM}c:run 00005"] * len(HERE)), entries.numbers([None] * len(HERE)), ""),
        {"workflow_status_pkey", "notifications_mailbox", "workflow_events_pkey"},
    ),
    "finish": (
        entries.FINISH,
        ("", joined(HERE), joined(["SUCCESS"] * len(HERE)), joined(["1"] * len(HERE)), joined([entries.NULL] * len(HERE))),
        {"workflow_status_pkey"},
    ),
    "history": (claims.HISTORY, (joined(HERE),), {"operation_outputs_pkey"}),
    "lost": (claims.LOST, (joined(HERE), joined(TOKEN)), {"workflow_status_pkey"}),
    "release": (claims.RELEASE, ("worker 3",), {"workflow_status_owned", "workflow_status_pkey"}),
    "rescue": (
        leases.RESCUE,
        {"dead": ["worker 3", "worker 4"], "most_ms": 80_000},
        {"workflow_status_owned", "workflow_status_pkey"},
    ),
    "bury": (leases.BURY, (["worker 3"],), {"workflow_status_owned", "worker_pkey"}),
    "lock runs": (wakeups.LOCK_RUNS, (HERE,), {"workflow_status_pkey"}),
    "wake": (wakeups.WAKE, (joined(WAITING), joined(["t:go"] * len(WAITING))), {"workflow_status_pkey"}),
    "timers": (wakeups.TIMERS, (), {"workflow_status_timers", "workflow_status_pkey"}),
    "delayed": (wakeups.DELAYED, (), {"workflow_status_delayed", "workflow_status_pkey"}),
    "overdue": (wakeups.OVERDUE, (), {"workflow_status_deadlines", "workflow_status_pkey"}),
    "next due": (wakeups.NEXT_DUE, (), {"workflow_status_timers", "workflow_status_delayed", "workflow_status_deadlines"}),
}


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_uses_the_indexes_made_for_it(filled: psycopg.Connection[Any], name: str) -> None:
    statement, given, indexes = STATEMENTS[name]
    found = explain(filled, statement, given)
    scanned = {n["Relation Name"] for n in found if n["Node Type"] == "Seq Scan" and n.get("Schema") != "pg_catalog"}
    used = {n["Index Name"] for n in found if "Index Name" in n}
    assert scanned <= {"clock"}
    assert used <= indexes
    assert used


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_reads_hardly_more_than_it_needs(filled: psycopg.Connection[Any], name: str) -> None:
    statement, given, _ = STATEMENTS[name]
    unwanted = 0
    for node in explain(filled, statement, given):
        for what in ("Rows Removed by Filter", "Rows Removed by Join Filter", "Rows Removed by Index Recheck"):
            unwanted += node.get(what, 0) * node.get("Actual Loops", 1)
    assert unwanted <= 10 * len(HERE)


def test_the_check_notices_a_missing_index(filled: psycopg.Connection[Any]) -> None:
    with filled.transaction(force_rollback=True):
        filled.execute("drop index dbos.workflow_status_timers")
        found = explain(filled, wakeups.TIMERS, ())
    assert "Seq Scan" in {n["Node Type"] for n in found}
    assert sum(n.get("Rows Removed by Filter", 0) for n in found) > 500

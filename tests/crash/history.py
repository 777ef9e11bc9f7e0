"""What a run and its children left behind, in a form in which two runs of the same program are equal.

Compared are the journal by call path, statuses, results, children, events and their history, streams, mailboxes, and every table of the
program's own. What is a new value each time (a uuid, a moment) is replaced by a word.
"""

import re
from collections import Counter
from collections.abc import Collection
from itertools import zip_longest
from typing import Any, LiteralString

import psycopg
from psycopg import sql

Rows = list[tuple[Any, ...]]
History = dict[str, Rows]

JOURNAL: LiteralString = """
select workflow_uuid, call_path, function_name, output, error, child_workflow_id, serialization
  from dbos.operation_outputs order by workflow_uuid, call_path collate "C"
"""
STATUS: LiteralString = """
select workflow_uuid, name, status, output, error, queue_name, queue_partition_key, priority, parent_workflow_id, owner_xid, waits,
       wake_at_ms, deduplication_id
  from dbos.workflow_status order by workflow_uuid
"""
EVENTS: LiteralString = "select workflow_uuid, key, value from dbos.workflow_events order by workflow_uuid, key"
EVENT_HISTORY: LiteralString = """
select workflow_uuid, key, value from dbos.workflow_events_history order by workflow_uuid, key, function_id
"""
STREAMS: LiteralString = """
select workflow_uuid, key, "offset", value from dbos.streams order by workflow_uuid, key, "offset"
"""
MAILBOXES: LiteralString = """
select destination_uuid, topic, message, consumed from dbos.notifications order by destination_uuid, topic, seq
"""
CONSUMERS: LiteralString = """
select n.destination_uuid, n.topic, o.call_path
  from dbos.notifications n
  left join dbos.operation_outputs o on o.workflow_uuid = n.destination_uuid and o.function_id = n.consumed_by_function_id
 order by n.destination_uuid, n.topic, n.seq
"""
MIRROR: tuple[tuple[str, LiteralString], ...] = (
    ("journal", JOURNAL),
    ("status", STATUS),
    ("events", EVENTS),
    ("event history", EVENT_HISTORY),
    ("streams", STREAMS),
    ("mailboxes", MAILBOXES),
    ("consumers", CONSUMERS),
)
TABLES: LiteralString = "select tablename from pg_tables where schemaname = %s order by tablename"
ROWS = "select to_jsonb(t)::text from {} t"
GAPS: LiteralString = """
select workflow_uuid, array_agg(function_id order by function_id), array_agg(call_path order by function_id)
  from dbos.operation_outputs
 group by workflow_uuid
having min(function_id) <> 1 or max(function_id) <> count(*) or count(distinct call_path) <> count(*)
"""
LEFTOVERS: LiteralString = """
select 'wake-up', workflow_uuid, token from engine.wake
union all select 'waiter', workflow_uuid, token from engine.wait
union all select 'owned', workflow_uuid, status from dbos.workflow_status where owner_xid is not null
"""
MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d(:?\d\d)?)?|\b1\d{12}\b|\b1\d{9}\.\d{3}\b")
MEASURED = re.compile(r'(?<="duration_ms": )\d+')
SPAN = re.compile(r'(?<="span_id": ")[0-9a-f]{16}')  # names the execution of a step, so a second one has another
UUID = re.compile(r"\b[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\b")


def history(conn: psycopg.Connection[Any], schema: str, *, without: Collection[str] = ()) -> History:
    """The mirror's tables and those of a schema, comparable."""
    found = {what: [_plain(row) for row in conn.execute(query).fetchall()] for what, query in MIRROR}
    for (table,) in conn.execute(TABLES, (schema,)).fetchall():
        if table not in without:
            rows = conn.execute(sql.SQL(ROWS).format(sql.Identifier(schema, table))).fetchall()
            found[table] = sorted(_plain(row) for row in rows)
    return found


def _plain(row: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(_timeless(value) if isinstance(value, str) else value for value in row)


def _timeless(text: str) -> str:
    return SPAN.sub("<span>", MEASURED.sub("<time>", UUID.sub("<uuid>", MOMENT.sub("<moment>", text))))


def difference(expected: History, found: History) -> str:
    """What only one of them has; empty when they are equal."""
    lines: list[str] = []
    for what, rows in expected.items():
        lost, added = Counter(rows) - Counter(found[what]), Counter(found[what]) - Counter(rows)
        for before, after in zip_longest(lost.elements(), added.elements()):
            lines.append(f"  {what}: {_apart(str(before), str(after))}")
        if not lost and not added and rows != found[what]:
            lines.append(f"  {what} in another order: {rows} and then {found[what]}"[:1000])
    return "\n".join(lines)


def _apart(before: str, after: str) -> str:
    """Both texts from a little before the first character that differs."""
    start = max(next((i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b), 0) - 60, 0)
    return f"{before[:60]} … expected {before[start : start + 160]} … found {after[start : start + 160]}"

"""What a run and its children left behind, in a form in which two runs of the same program are equal.

Compared are the journal by call path, ids, statuses, results, events and their history, streams, mailboxes, and the rows of riders. What
is a new value each time (a uuid, a moment) is replaced by a word.
"""

import re
from typing import Any, LiteralString

import psycopg

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
SUBJECT: tuple[tuple[str, LiteralString], ...] = (
    ("ridden", "select workflow_id, path, what from ridden order by 1, 2, 3"),
    ("booked", "select workflow_id, amount from booked order by 1, 2"),
)
PRODUCT: tuple[tuple[str, LiteralString], ...] = (
    ("runs", "select * from app.runs order by id"),
    ("steps", "select * from app.run_steps order by run_id, step_id, attempt"),
    ("artifacts", "select * from app.artifacts order by run_id, step_id, task_key, attempt, idx"),
    ("gates", "select * from app.human_gates order by run_id, gate_key"),
    ("approvals", "select * from app.plan_approvals order by run_id"),
    ("patches", "select * from app.patch_history order by run_id, step_id, patch_index"),
    ("interactions", "select * from app.human_interactions order by workflow_id, gate_key"),
)
GENERATED: LiteralString = """
select function_name, output from dbos.operation_outputs where function_name in ('DBOS.uuid', 'DBOS.sleep', 'DBOS.now')
"""
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


def history(conn: psycopg.Connection[Any], own: tuple[tuple[str, LiteralString], ...]) -> History:
    """Everything in the database, comparable."""
    words = [
        (output.strip('"'), "<uuid>") for name, output in conn.execute(GENERATED).fetchall() if name == "DBOS.uuid"
    ]
    return {
        what: [tuple(_plain(value, words) for value in row) for row in conn.execute(query).fetchall()]
        for what, query in (*MIRROR, *own)
    }


def _plain(value: Any, words: list[tuple[str, str]]) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    text = str(value)
    for generated, word in words:
        text = text.replace(generated, word)
    return MOMENT.sub("<moment>", text)


def difference(expected: History, found: History) -> str:
    """The rows that only one of them has; empty when they are equal."""
    lines: list[str] = []
    for what, rows in expected.items():
        lines += [f"  lost    {what}: {row}" for row in rows if row not in found[what]]
        lines += [f"  unheard {what}: {row}" for row in found[what] if row not in rows]
        if not lines and rows != found[what]:
            lines.append(f"  {what} have another order or number: {rows} and then {found[what]}")
    return "\n".join(lines)

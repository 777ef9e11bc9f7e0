"""The inbox: every question that somebody should answer now, the most urgent first.

It lists open gates of runs that wait, from their prompt on; a gate leaves it with its answer, its timeout, or its run's end.
"""

from dataclasses import dataclass
from typing import Annotated, Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from api.http import Door, json_response, numbers_in_query, query_of
from steps.contracts.base import Wire, parse
from steps.contracts.gate import InboxRow
from steps.identity import escalation_id, human_topic

#: Less time than this left is a warning.
WARNING_MS = 60_000


class HitlInboxQuery(Wire):
    limit: Annotated[int, Field(ge=1, le=200)] = 100


#: The deadlines come from an index of open gates, and the run of each is looked up, so what it costs depends on the limit.
INBOX: LiteralString = """
    select r.workflow_id, g.gate_key, g.topic, r.subject,
           floor(extract(epoch from g.deadline_at) * 1000)::bigint as deadline_ms,
           floor(extract(epoch from g.created_at) * 1000)::bigint as created_at_ms,
           engine.now_ms() as now_ms,
           exists (select from dbos.workflow_status e where e.workflow_uuid = 'esc:' || r.workflow_id || ':' || g.gate_key)
               as escalated,
           coalesce((select s.status from dbos.workflow_status s where s.workflow_uuid = r.workflow_id)
                    not in ('ENQUEUED', 'DELAYED', 'PENDING'), true) as abandoned
      from app.human_gates g
     cross join lateral (
           select w.workflow_id, i.goal as subject
             from app.runs w
             join app.intents i on i.id = w.intent_id
             join dbos.workflow_events p on p.workflow_uuid = w.workflow_id and p.key = 'ui:' || g.gate_key
            where w.id = g.run_id and w.status = 'waiting_input'
            limit 1) r
     where g.resolved_at is null and g.dropped_at is null
     order by g.deadline_at, g.created_at, r.workflow_id, g.gate_key
     limit %s
"""


@dataclass(frozen=True, slots=True)
class OpenGate:
    """An open gate. subject: what its run is for. escalated: its escalation exists. abandoned: no workflow is alive behind its run."""

    workflow_id: str
    gate_key: str
    topic: str
    subject: str
    deadline_ms: int | None
    created_at_ms: int
    now_ms: int
    escalated: bool
    abandoned: bool


async def list_inbox(door: Door, request: Request) -> Response:
    query = parse(HitlInboxQuery, numbers_in_query(query_of(request)))
    async with door.reading() as conn:
        gates = await open_gates(conn, query.limit)
    return json_response([inbox_row(gate).document() for gate in gates])


async def open_gates(conn: AsyncConnection[Any], limit: int) -> list[OpenGate]:
    """The gates that wait for an answer, by deadline, then age; those without a deadline last."""
    async with conn.cursor(row_factory=class_row(OpenGate)) as cursor:
        await cursor.execute(INBOX, (limit,))
        return await cursor.fetchall()


def inbox_row(gate: OpenGate) -> InboxRow:
    return InboxRow.model_validate(
        {
            "workflowID": gate.workflow_id,
            "gateKey": gate.gate_key,
            "topic": gate.topic,
            "deadline": gate.deadline_ms,
            "slaStatus": sla_status(gate),
            "escalationWorkflowID": escalation_id(gate.workflow_id, gate.gate_key) if gate.escalated else None,
            "mismatchRisk": gate.abandoned or gate.topic != human_topic(gate.gate_key),
            "createdAt": gate.created_at_ms,
            "subject": gate.subject,
        }
    )


def sla_status(gate: OpenGate) -> str:
    if gate.deadline_ms is None:
        return "NORMAL"
    remaining_ms = gate.deadline_ms - gate.now_ms
    if remaining_ms <= 0:
        return "CRITICAL"
    return "WARNING" if remaining_ms <= WARNING_MS else "NORMAL"

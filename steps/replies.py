"""Answers to gates, recorded once.

The ledger, app.human_interactions, decides: a dedupe key that it holds was answered before, and the same
answer again is agreed to however far the run has moved on, while another one is refused. A new key is an
answer only while its run waits. The ledger row and the message to the run are one commit, so an answer that
failed half-way left nothing behind and may be tried again.
"""

from dataclasses import dataclass
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from engine import Engine, NoSuchWorkflow
from steps.contracts.base import JsonObject
from steps.contracts.gate import ExternalEvent, GateReply
from steps.errors import Conflict, NotFound
from steps.forks import tell
from steps.identity import human_topic, payload_hash, send_key

#: A run that the engine ended no longer waits, whatever its own row still says.
#: Nothing is locked: a worker's commits must never wait for a client of ours.
GATE: LiteralString = """
    select r.id as run_id, r.workflow_id, r.status as run_status, g.topic,
           coalesce(s.status in ('SUCCESS', 'ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'), false)
               as ended,
           g.resolved_at is not null as settled
      from app.runs r
      left join app.human_gates g on g.run_id = r.id and g.gate_key = %(gate)s
      left join dbos.workflow_status s on s.workflow_uuid = r.workflow_id
     where r.workflow_id = %(wid)s or r.id = %(wid)s
     order by r.workflow_id = %(wid)s desc
     limit 1
"""
RECORDED: LiteralString = """
    select i.topic, i.payload_hash
      from app.human_interactions i
     where i.workflow_id = %s and i.gate_key = %s and i.dedupe_key = %s
"""
RECORD: LiteralString = """
    insert into app.human_interactions
           (workflow_id, run_id, gate_key, topic, dedupe_key, payload_hash, payload, origin)
    values (%(workflow_id)s, %(run_id)s, %(gate_key)s, %(topic)s, %(dedupe_key)s, %(payload_hash)s,
            %(payload)s, %(origin)s)
        on conflict (workflow_id, gate_key, topic, dedupe_key) do nothing
"""


@dataclass(frozen=True, slots=True)
class Answer:
    """What somebody says to a gate. `wid` is the workflow or run id."""

    wid: str
    gate_key: str
    topic: str
    payload: JsonObject
    dedupe_key: str
    origin: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of the ledger."""

    workflow_id: str
    run_id: str
    gate_key: str
    topic: str
    payload: JsonObject
    dedupe_key: str
    origin: str

    @property
    def row(self) -> JsonObject:
        return {
            "workflow_id": self.workflow_id,
            "run_id": self.run_id,
            "gate_key": self.gate_key,
            "topic": self.topic,
            "payload": Jsonb(self.payload),
            "payload_hash": payload_hash(self.payload),
            "dedupe_key": self.dedupe_key,
            "origin": self.origin,
        }


@dataclass(frozen=True, slots=True)
class _Gate:
    run_id: str
    workflow_id: str
    run_status: str
    topic: str | None
    ended: bool
    settled: bool


async def reply_to_gate(engine: Engine, wid: str, gate_key: str, reply: GateReply) -> bool:
    """Answer a gate as a person does; true when this answer was recorded before. As record_answer."""
    answer = Answer(wid, gate_key, human_topic(gate_key), reply.payload, reply.dedupeKey, reply.origin)
    return await record_answer(engine, answer)


async def accept_event(engine: Engine, event: ExternalEvent) -> bool:
    """Answer a gate from outside; true when this answer was recorded before. As record_answer."""
    if event.topic.startswith("human:") and event.topic != human_topic(event.gateKey):
        raise Conflict(f"topic/gate mismatch for {event.gateKey}")
    answer = Answer(event.workflowId, event.gateKey, event.topic, event.payload, event.dedupeKey, event.origin)
    return await record_answer(engine, answer)


async def record_answer(engine: Engine, answer: Answer) -> bool:
    """Ledger row and message, in one commit; true when this answer was recorded before.

    Raises NotFound or Conflict, and then nothing is written.
    """
    async with engine.transaction() as conn:
        gate = await _find_gate(conn, answer)
        if await _was_recorded(conn, gate, answer):
            return True
        _require_waiting(gate, answer)
        entry = Entry(
            gate.workflow_id, gate.run_id, answer.gate_key, answer.topic, answer.payload, answer.dedupe_key, answer.origin
        )
        if not await record(conn, entry):
            # Another transaction took the key meanwhile, and has committed: its row is visible now.
            return await _was_recorded(conn, gate, answer)
        try:
            key = send_key(answer.topic, answer.dedupe_key)
            await tell(engine, conn, gate.workflow_id, answer.payload, topic=answer.topic, key=key)
        except NoSuchWorkflow as error:
            raise NotFound(f"workflow not found: {gate.workflow_id}") from error
    return False


async def _find_gate(conn: AsyncConnection[Any], answer: Answer) -> _Gate:
    async with conn.cursor(row_factory=class_row(_Gate)) as cursor:
        await cursor.execute(GATE, {"wid": answer.wid, "gate": answer.gate_key})
        gate = await cursor.fetchone()
    if gate is None:
        raise NotFound(f"workflow not found: {answer.wid}")
    if gate.topic is None:
        raise NotFound(f"workflow not found: {answer.wid}/gates/{answer.gate_key}")
    return gate


async def _was_recorded(conn: AsyncConnection[Any], gate: _Gate, answer: Answer) -> bool:
    """Whether the ledger holds exactly this answer. Raises Conflict when it holds another one for its key."""
    cursor = await conn.execute(RECORDED, (gate.workflow_id, answer.gate_key, answer.dedupe_key))
    recorded = await cursor.fetchall()
    if not recorded:
        return False
    if (answer.topic, payload_hash(answer.payload)) not in recorded:
        raise Conflict(f"dedupeKey conflict: different payload/topic for {answer.gate_key}")
    return True


def _require_waiting(gate: _Gate, answer: Answer) -> None:
    if gate.run_status != "waiting_input":
        raise Conflict(f"run not waiting for input: {gate.run_status}")
    if gate.ended:
        raise Conflict("run not waiting for input: it has ended")
    if gate.topic != answer.topic:
        raise Conflict(f"gate topic mismatch for {answer.gate_key}")
    if gate.settled:
        raise Conflict(f"gate {answer.gate_key} is settled and takes no more answers")


async def record(conn: AsyncConnection[Any], entry: Entry) -> bool:
    """Write a row of the ledger; False when it holds one of this dedupe key."""
    return (await conn.execute(RECORD, entry.row)).rowcount == 1

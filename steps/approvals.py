"""Answers that name a run and no gate, as older clients give them: the approval of a plan, and an event for whatever the run asks.

Which gate is meant follows from the run. The ledger row and the message are one commit, with the approval itself where there is one.

A plan may be approved before its gate opens. The run looks for the approval when it opens the gate, but that look and ours may cross;
so we also say at once what the run would say to itself, under the same key, and whoever is first has said it.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import LiteralString

from psycopg.rows import class_row

from engine import Connection, Engine
from steps.contracts.base import JsonObject
from steps.contracts.gate import Origin, PlanApprovalRequest, RunEvent
from steps.contracts.views import TERMINAL
from steps.errors import Conflict, NotFound
from steps.forks import tell
from steps.gates import APPROVE_PLAN, APPROVED_BEFORE, APPROVED_BEFORE_ORIGIN, ASK_USER, PARALLEL, Question
from steps.identity import gate_key, human_topic, legacy_dedupe_key, payload_hash, pre_approval_dedupe_key, send_key
from steps.replies import Entry, record

#: Nothing is locked: a worker's commits must never wait for a client of ours.
RUN: LiteralString = """
    select r.id as run_id, r.workflow_id, r.status, r.next_action, r.retry_count + 1 as attempt
      from app.runs r
     where r.workflow_id = %(id)s or r.id = %(id)s
     order by r.workflow_id = %(id)s desc
     limit 1
"""
#: Latest first, all of one moment: a gate that opens while we look is either not there yet, or open.
GATES: LiteralString = """
    select g.gate_key, g.topic, g.resolved_at is not null as resolved,
           exists (select
                     from app.human_interactions i
                    where i.workflow_id = %s and i.gate_key = g.gate_key) as answered
      from app.human_gates g
     where g.run_id = %s
     order by g.created_at desc, g.gate_key desc
"""
#: A new row holds the run's key until the commit, which a retry waits for: either the retry's gate sees the approval, or we see the
#: retry. An old row holds back the next approval, which then sees the answer to this one.
APPROVE: LiteralString = """
    insert into app.plan_approvals as a (run_id, approved_by, notes)
    select r.id, %(by)s, %(notes)s
      from app.runs r
     where r.workflow_id = %(id)s or r.id = %(id)s
     order by r.workflow_id = %(id)s desc
     limit 1
        on conflict (run_id) do update set approved_at = now(), approved_by = excluded.approved_by, notes = excluded.notes
    returning a.run_id, a.approved_at
"""


@dataclass(frozen=True, slots=True)
class Approval:
    run_id: str
    approved_at: datetime


@dataclass(frozen=True, slots=True)
class _Run:
    run_id: str
    workflow_id: str
    status: str
    next_action: str | None
    attempt: int

    def key_of(self, question: Question) -> str:
        """The gate of this question in the run's present attempt, whether it was opened or not."""
        return gate_key(self.run_id, question.step_id, question.purpose, self.attempt)

    def entry(self, key: str, topic: str, message: JsonObject, dedupe_key: str, origin: Origin) -> Entry:
        return Entry(self.workflow_id, self.run_id, key, topic, message, dedupe_key, origin)


@dataclass(frozen=True, slots=True)
class _Gate:
    """A gate. answered: the ledger has an answer to it, which the run may not have taken yet."""

    gate_key: str
    topic: str
    resolved: bool
    answered: bool


@dataclass(frozen=True, slots=True)
class _Answer:
    """What is to be recorded, and the key under which it is sent."""

    entry: Entry
    message_key: str


async def approve_plan(engine: Engine, id: str, request: PlanApprovalRequest) -> Approval:
    """Approve the plan of a run, by its run or workflow id, now or ahead. Raises NotFound.

    A run that is over keeps the approval for its next try.
    """
    async with engine.transaction() as conn:
        given = {"id": id, "by": request.approvedBy, "notes": request.notes}
        async with conn.cursor(row_factory=class_row(Approval)) as cursor:
            approval = await (await cursor.execute(APPROVE, given)).fetchone()
        if approval is None:
            raise NotFound("run not found")
        run = await _find(conn, approval.run_id)
        if run.status not in TERMINAL and (yes := _yes(run, await _gates(conn, run), request)):
            await _deliver(engine, conn, yes)
    return approval


def _yes(run: _Run, gates: list[_Gate], request: PlanApprovalRequest) -> _Answer | None:
    """The approval as an answer to a gate that is open, or to the one to come; None when there is nothing left to say."""
    for gate in gates:
        if not (gate.resolved or gate.answered or gate.gate_key == run.key_of(ASK_USER)):
            yes: JsonObject = {"approved": True, "approvedBy": request.approvedBy}
            notes = {} if request.notes is None else {"notes": request.notes}
            return _answer(run, gate.gate_key, gate.topic, yes | notes, "legacy-approve")
    if {gate.gate_key for gate in gates} & {run.key_of(question) for question in (APPROVE_PLAN, *PARALLEL)}:
        return None
    to_come = run.key_of(APPROVE_PLAN)
    key = pre_approval_dedupe_key(run.workflow_id, to_come)
    return _Answer(run.entry(to_come, human_topic(to_come), APPROVED_BEFORE, key, APPROVED_BEFORE_ORIGIN), key)


async def send_event(engine: Engine, id: str, event: RunEvent, *, ahead: bool) -> bool:
    """Answer what a waiting run asks. False, with nothing written, while it waits but its question is not open yet.

    ahead: answer the question that is about to open. Raises NotFound, and Conflict for a run that does not wait.
    """
    async with engine.transaction() as conn:
        run = await _find(conn, id)
        require_waiting(run.status)
        gates = await _gates(conn, run)
        gate = next((gate for gate in gates if not gate.resolved), None)
        if gate is None and not ahead:
            return False
        key, topic = (gate.gate_key, gate.topic) if gate else _gate_ahead(run, gates)
        message = {"approved": True} | event.payload if event.type == "approve-plan" else event.payload
        await _deliver(engine, conn, _answer(run, key, topic, message, "legacy-event"))
    return True


def _gate_ahead(run: _Run, gates: list[_Gate]) -> tuple[str, str]:
    """Key and topic of the gate that a waiting run is about to open. Raises Conflict when that one was opened and is done with."""
    key = run.key_of(APPROVE_PLAN if run.next_action == "APPROVE_PLAN" else ASK_USER)
    if key in {gate.gate_key for gate in gates}:
        raise Conflict("the run's question is answered and takes no event", run_status=run.status)
    return key, human_topic(key)


def require_waiting(status: str) -> None:
    """Raises Conflict for a run in another status than waiting_input."""
    if status != "waiting_input":
        raise Conflict(f"cannot send event to run in status {status}", run_status=status)


async def _find(conn: Connection, id: str) -> _Run:
    async with conn.cursor(row_factory=class_row(_Run)) as cursor:
        run = await (await cursor.execute(RUN, {"id": id})).fetchone()
    if run is None:
        raise NotFound("run not found")
    return run


async def _gates(conn: Connection, run: _Run) -> list[_Gate]:
    async with conn.cursor(row_factory=class_row(_Gate)) as cursor:
        return await (await cursor.execute(GATES, (run.workflow_id, run.run_id))).fetchall()


def _answer(run: _Run, key: str, topic: str, message: JsonObject, origin: Origin) -> _Answer:
    """An answer whose key follows from what it says: the same again is no second one."""
    dedupe_key = legacy_dedupe_key(origin, run.workflow_id, run.run_id, key, topic, payload_hash(message))
    return _Answer(run.entry(key, topic, message, dedupe_key, origin), send_key(topic, dedupe_key))


async def _deliver(engine: Engine, conn: Connection, answer: _Answer) -> None:
    """Ledger row and message, unless the ledger has this answer."""
    entry = answer.entry
    if await record(conn, entry):
        await tell(engine, conn, entry.workflow_id, entry.payload, topic=entry.topic, key=answer.message_key)

"""Questions to people that survive anything: asked once, answered once, and decided when nobody answers.

A gate is a row in app.human_gates, a prompt event that readers show, a topic that the reply comes in on, and the result, audit
and decision events that say how it went. Each of these is one journaled call of the run, so a crash between any two of them
resumes at the next: no second prompt, no lost reply. While it waits, the run is a row.

The gate's key names the run, the step, the purpose and the run's attempt; a retry therefore asks again, under a new key. A plan
that was approved by one person stays approved (app.plan_approvals), whether before its gate opened or in an earlier attempt; one
that needs two is asked about again.
"""

from dataclasses import dataclass
from typing import Any, LiteralString, cast

from engine import TerminalError, gather, now, recv, ride, send, set_event, step, workflow_info
from steps import identity
from steps.apply import apply_ledger
from steps.contracts.base import JsonObject
from steps.contracts.gate import OWN_ORIGIN, Origin
from steps.decisions import Decision, decision_of, rationale_of
from steps.escalation import escalate
from steps.ports import ports
from steps.progress import enter
from steps.records import GATE_RESOLVED, HUMAN_GATE, HUMAN_INTERACTION, PLAN_APPROVAL, ride_status
from steps.run_record import Run
from steps.times import epoch_ms

ABI = 1

APPROVAL_FORM: JsonObject = {
    "v": 1,
    "title": "Approve?",
    "fields": [
        {"k": "choice", "t": "enum", "vs": ["yes", "no"]},
        {"k": "rationale", "t": "str", "opt": True},
    ],
}
ANSWER_FORM: JsonObject = {"v": 1, "title": "Input needed", "fields": [{"k": "answer", "t": "str"}]}


@dataclass(frozen=True, slots=True)
class Question:
    """What to ask, and where in the run. `approves`: the reply is a decision. hints: what to show with the question."""

    step_id: str
    purpose: str
    form: JsonObject
    approves: bool
    hints: JsonObject | None = None

    @property
    def next_action(self) -> str | None:
        return "APPROVE_PLAN" if self.approves else None


ASK_USER = Question("CompileST", "ask-user", ANSWER_FORM, approves=False)
APPROVE_PLAN = Question("ApplyPatchST", "approve-plan", APPROVAL_FORM, approves=True)
PARALLEL = (
    Question("ApplyPatchST", "parallel-1", APPROVAL_FORM, approves=True),
    Question("ApplyPatchST", "parallel-2", APPROVAL_FORM, approves=True),
)


@dataclass(frozen=True, slots=True)
class Gate:
    """An open gate."""

    key: str
    topic: str
    ttl_s: int
    created_at_ms: int
    approved_before: bool

    @property
    def deadline_at_ms(self) -> int:
        return self.created_at_ms + self.ttl_s * 1000


async def ask_user(run: Run) -> str | None:
    """Ask for input; the answer, if the reply holds one. Fails the run when nobody answers in time."""
    await enter("waiting_input")
    reply, _ = await ask(run, ASK_USER)
    if reply is None:
        raise TerminalError("Ask-user gate timed out", name="GateTimedOut")
    await enter("running")
    answer = reply.get("answer")
    return answer if isinstance(answer, str) else None


async def approve_plan(run: Run) -> None:
    """Wait until the plan is approved, at one gate or at two side by side. Fails the run unless every answer is a yes."""
    await enter("waiting_input", next_action=APPROVE_PLAN.next_action)
    questions = PARALLEL if run.asks.parallel_approvals else (APPROVE_PLAN,)
    for _, decision in await gather(*(ask(run, question) for question in questions)):
        if not decision.yes:
            raise TerminalError(
                f"Plan approval failed: no (rationale: {decision.rationale or 'none'})",
                name="PlanNotApproved",
            )
    await enter("running")


async def ask(run: Run, question: Question) -> tuple[JsonObject | None, Decision]:
    """Open a gate and wait at it. The reply, None when time ran out, and what it means."""
    gate = await open_gate(run, question)
    await set_event(identity.prompt_event(gate.key), prompt(gate, question))
    if run.purpose == "fixture":
        answer = APPROVED_BY_FIXTURE if question.approves else ANSWERED_BY_FIXTURE
        await answer_oneself(run, gate, answer, OWN_ORIGIN, identity.fixture_dedupe_key(run.workflow_id, gate.key))
    elif gate.approved_before:
        key = identity.pre_approval_dedupe_key(run.workflow_id, gate.key)
        await answer_oneself(run, gate, APPROVED_BEFORE, APPROVED_BEFORE_ORIGIN, key)
    message: Any = await recv(gate.topic, timeout_s=gate.ttl_s)
    at_ms = epoch_ms(await now())
    resolved = {"workflow_id": workflow_info().id, "run_id": run.run_id, "gate_key": gate.key, "at_ms": at_ms}
    ride(GATE_RESOLVED, resolved)
    if message is None:
        return None, await nobody_answered(run, question, gate, at_ms)
    reply = cast(JsonObject, message if isinstance(message, dict) else {"value": message})
    return reply, await answered(run, question, gate, reply, at_ms)


async def answer_oneself(run: Run, gate: Gate, answer: JsonObject, origin: Origin, key: str) -> None:
    """Pass a gate that needs nobody by an answer like any other: recorded, then sent."""
    interaction = {
        "workflow_id": workflow_info().id,
        "run_id": run.run_id,
        "gate_key": gate.key,
        "topic": gate.topic,
        "dedupe_key": key,
        "payload_hash": identity.payload_hash(answer),
        "payload": answer,
        "origin": origin,
    }
    ride(HUMAN_INTERACTION, interaction)
    await send(workflow_info().id, answer, gate.topic, key=key)


async def answered(run: Run, question: Question, gate: Gate, reply: JsonObject, at_ms: int) -> Decision:
    decision = decision_of(reply)
    actor = reply.get("actor")
    result = {"state": "RECEIVED", "payload": reply, "payloadHash": identity.payload_hash(reply)}
    await set_event(identity.result_event(gate.key), {"schemaVersion": ABI, **result, "at": at_ms})
    actor = actor if isinstance(actor, str) else None
    await set_event(identity.audit_event(gate.key), audit("RECEIVED", actor, rationale_of(reply), at_ms))
    if question.approves:
        await decide_gate(run, question, gate, decision, at_ms, by=actor)
    return decision


async def nobody_answered(run: Run, question: Question, gate: Gate, at_ms: int) -> Decision:
    decision = Decision(yes=False, rationale="timeout")
    result = {"schemaVersion": ABI, "state": "TIMED_OUT", "payload": None, "payloadHash": None, "at": at_ms}
    await set_event(identity.result_event(gate.key), result)
    await set_event(identity.audit_event(gate.key), audit("TIMED_OUT", None, "TTL expired", at_ms))
    await escalate(run, gate.key, at_ms)
    if question.approves:
        await decide_gate(run, question, gate, decision, at_ms, by=None)
    return decision


async def decide_gate(run: Run, question: Question, gate: Gate, decision: Decision, at_ms: int, *, by: str | None) -> None:
    if decision.yes and question is APPROVE_PLAN and run.purpose != "fixture":  # there, nobody approved anything
        approval = {"approved_by": by or "gate-reply", "notes": decision.rationale}
        ride(PLAN_APPROVAL, {"workflow_id": workflow_info().id, "run_id": run.run_id, **approval})
    payload = None if decision.rationale is None else {"rationale": decision.rationale}
    value = {"schemaVersion": ABI, "decision": decision.word, "payload": payload, "at": at_ms}
    await set_event(identity.decision_event(gate.key), value)


@dataclass(frozen=True, slots=True)
class _Opening:
    attempt: int
    created_at_ms: int
    approved_before: bool
    rolled_back: bool


OPENING: LiteralString = """
    select r.retry_count + 1 as attempt, engine.now_ms() as created_at_ms,
           exists (select from app.plan_approvals a where a.run_id = r.id) as approved_before,
           exists (select from app.patch_history p where p.run_id = r.id and p.rolled_back_at is not null) as rolled_back
      from app.runs r
     where r.id = %s
"""


@step(name="openGate")
async def open_gate(run: Run, question: Question) -> Gate:
    """Give the gate its row, its key and its deadline."""
    opening = await ports().read(_Opening, OPENING, run.run_id)
    assert opening is not None
    if question.approves and opening.rolled_back:
        await apply_ledger(run, workflow_info().id)
    key = identity.gate_key(run.run_id, question.step_id, question.purpose, opening.attempt)
    gate = Gate(
        key=key,
        topic=identity.human_topic(key),
        ttl_s=run.asks.gate_timeout_s or ports().limits.plan_approval_timeout_s,
        created_at_ms=opening.created_at_ms,
        approved_before=question == APPROVE_PLAN and opening.approved_before,
    )
    ride(
        HUMAN_GATE,
        {
            "workflow_id": workflow_info().id,
            "run_id": run.run_id,
            "gate_key": gate.key,
            "topic": gate.topic,
            "created_at_ms": gate.created_at_ms,
            "deadline_at_ms": gate.deadline_at_ms,
        },
    )
    # Said again, since a run that was cancelled and resumed just before its gate replays what it said first without writing it.
    ride_status("waiting_input", question.next_action)
    return gate


#: What a run says to itself when its plan was approved before it asked.
APPROVED_BEFORE: JsonObject = {
    "choice": "yes",
    "rationale": "legacy-approved",
    "actor": "legacy-plan-approvals",
}
APPROVED_BEFORE_ORIGIN: Origin = "legacy-approve"
#: What the run of a fixture says to itself, at a gate for the plan and at one for input.
APPROVED_BY_FIXTURE: JsonObject = {"choice": "yes", "rationale": "fixture", "actor": "engine"}
ANSWERED_BY_FIXTURE: JsonObject = {"answer": "fixture"}


def prompt(gate: Gate, question: Question) -> JsonObject:
    return {
        "schemaVersion": ABI,
        "formSchema": question.form,
        "ttlS": gate.ttl_s,
        "createdAt": gate.created_at_ms,
        "deadlineAt": gate.deadline_at_ms,
        "uiHints": question.hints,
        "defaults": None,
    }


def audit(event: str, actor: str | None, reason: str | None, at_ms: int) -> JsonObject:
    return {"schemaVersion": ABI, "event": event, "actor": actor, "reason": reason, "at": at_ms}

"""Why a run is not at work: the first thing that anybody wants to know of it.

One statement gathers what the engine's rows say of a workflow and of the workers that could take it; `reason_of` reads it. Another
reason is one more column and one more branch.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, LiteralString

from psycopg import AsyncConnection
from psycopg.rows import class_row

from engine import FINAL
from steps.contracts.base import JsonObject
from steps.contracts.views import Reason, ReasonCode
from steps.documents import without_none

#: The messages that a workflow waits for are looked up too: one that is answered waits for nobody but a worker.
SITUATION: LiteralString = """
    select s.status, s.queue_name as queue, s.application_version as version, s.updated_at as since_ms,
           s.delay_until_epoch_ms as delayed_until_ms, s.wake_at_ms, coalesce(s.waits, '{}') as waits, s.waits is not null as parked,
           s.executor_id, coalesce(owner.dead or owner.lease_until_ms <= clock.now_ms, true) as is_orphan,
           exists (select from dbos.notifications n
                    where n.destination_uuid = s.workflow_uuid and not n.consumed and 't:' || n.topic = any (s.waits)) as answered,
           array (select distinct w.version from engine.worker w
                   where not w.dead and w.lease_until_ms > clock.now_ms order by 1) as living
      from dbos.workflow_status s
     cross join (select engine.now_ms() as now_ms offset 0) clock
      left join engine.worker owner on owner.id = s.executor_id
     where s.workflow_uuid = %s
"""


@dataclass(frozen=True, slots=True)
class Situation:
    """What the engine knows of a workflow. waits: tokens of what it is parked for; living: the versions of the workers alive."""

    status: str | None
    queue: str | None
    version: str | None
    since_ms: int
    delayed_until_ms: int | None = None
    wake_at_ms: int | None = None
    waits: Sequence[str] = ()
    parked: bool = False
    executor_id: str | None = None
    is_orphan: bool = True
    answered: bool = False
    living: Sequence[str | None] = field(default=())

    @property
    def has_worker(self) -> bool:
        """Whether somebody alive would take it. A workflow of no version is everybody's."""
        return bool(self.living) if self.version is None else self.version in self.living


async def why_not_running(conn: AsyncConnection[Any], workflow_id: str) -> Reason | None:
    """Why the workflow is not at work now; None while a living worker has it, and after its end."""
    async with conn.cursor(row_factory=class_row(Situation)) as cursor:
        found = await (await cursor.execute(SITUATION, (workflow_id,))).fetchone()
    if found is None:
        return reason("no-workflow", f"the engine has no workflow {workflow_id}; whoever started the run must start it again")
    return reason_of(found)


def reason_of(it: Situation) -> Reason | None:
    if it.status in FINAL:
        return None
    if it.status == "DELAYED":
        return reason("delayed", "does not start before its time", until=it.delayed_until_ms, since=it.since_ms)
    if it.parked and not it.answered:
        return _waiting(it)
    if it.status == "PENDING" and not it.parked:
        return _owned(it)
    return _queued(it, "was answered and goes on" if it.answered else "is queued")


def _owned(it: Situation) -> Reason | None:
    if it.executor_id is not None and not it.is_orphan:
        return None
    if not it.has_worker:
        return _no_worker(it)
    return reason("worker-lost", "its worker has stopped renewing its lease; another one takes over", since=it.since_ms)


def _queued(it: Situation, what: str) -> Reason:
    if not it.has_worker:
        return _no_worker(it)
    return reason("queued", f"{what} in {it.queue or 'no queue'}, as soon as a worker has room", since=it.since_ms)


def _no_worker(it: Situation) -> Reason:
    if not it.living:
        return reason("no-worker", "no worker is alive; start one", since=it.since_ms)
    living = ", ".join(version or "none" for version in it.living)
    sentence = f"no live worker has application version {it.version}; those alive have {living}"
    return reason("no-worker", sentence, since=it.since_ms)


def _waiting(it: Situation) -> Reason:
    """A parked workflow. A person comes first, since a person can do something about it."""
    times: JsonObject = {"since": it.since_ms, "until": it.wake_at_ms}
    gates = [token.removeprefix("t:human:") for token in it.waits if token.startswith("t:human:")]
    if gates:
        where = f"gate {gates[0]}" if len(gates) == 1 else f"{len(gates)} gates"
        return reason("person", f"waits for a person at {where}", gateKey=gates[0], **times)
    children = [token.removeprefix("c:") for token in it.waits if token.startswith("c:")]
    if children:
        if not it.has_worker:
            return _no_worker(it)
        what = f"workflow {children[0]}" if len(children) == 1 else f"{len(children)} workflows"
        return reason("child", f"waits for the end of {what}", workflowID=children[0], since=it.since_ms)
    topics = [token.removeprefix("t:") for token in it.waits if token.startswith("t:")]
    if topics:
        return reason("message", f"waits for a message of topic {topics[0]}", **times)
    if it.waits:
        return reason("event", "waits for an event of another workflow", since=it.since_ms)
    return reason("timer", "sleeps until its time", **times)


def reason(code: ReasonCode, sentence: str, **more: object) -> Reason:
    return Reason.model_validate({"code": code, "sentence": sentence} | without_none(more))

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

#: The messages that a workflow waits for are looked up too: one that is answered waits for nobody but a worker. What is said of its queue
#: is what a claim would find: see engine.claim.
SITUATION: LiteralString = """
    select s.status, s.queue_name as queue, s.queue_partition_key as partition, s.application_version as version,
           s.updated_at as since_ms, s.delay_until_epoch_ms as delayed_until_ms, s.wake_at_ms, coalesce(s.waits, '{}') as waits,
           s.waits is not null or s.wake_at_ms is not null as parked, s.started_at_epoch_ms is not null as begun,
           s.executor_id, owner.lease_until_ms as leased_until_ms,
           coalesce(owner.dead or owner.lease_until_ms <= clock.now_ms, true) as is_orphan,
           exists (select from dbos.notifications n
                    where n.destination_uuid = s.workflow_uuid and not n.consumed and 't:' || n.topic = any (s.waits)) as answered,
           array (select distinct w.version from engine.worker w
                   where not w.dead and w.lease_until_ms > clock.now_ms order by 1) as living,
           array (select distinct w.version from engine.worker w
                   where not w.dead and w.lease_until_ms > clock.now_ms and not w.paused order by 1) as taking,
           coalesce(q.paused, false) as queue_paused, coalesce(p.state = 'p', false) as partition_paused,
           d.concurrency as queue_cap, coalesce(p.concurrency, d.partition_concurrency) as partition_cap,
           (select count(*) from dbos.workflow_status h
             where d.concurrency is not null
               and h.held and h.owner_xid is not null and h.queue_name = s.queue_name) as queue_held,
           (select count(*) from dbos.workflow_status h
             where coalesce(p.concurrency, d.partition_concurrency) is not null
               and h.held and h.owner_xid is not null and h.queue_name = s.queue_name
               and coalesce(h.queue_partition_key, '') = coalesce(s.queue_partition_key, '')) as partition_held,
           case when d.rate_limit_max is not null and q.opens_at_ms > clock.now_ms then q.opens_at_ms end as queue_opens_ms,
           case when p.state = 't' and p.due_at_ms > clock.now_ms then p.due_at_ms end as partition_opens_ms
      from dbos.workflow_status s
     cross join (select engine.now_ms() as now_ms offset 0) clock
      left join engine.worker owner on owner.id = s.executor_id
      left join engine.queue q on q.name = s.queue_name
      left join dbos.queues d on d.name = s.queue_name
      left join engine.queue_partition p on p.queue = s.queue_name and p.key = coalesce(s.queue_partition_key, '')
     where s.workflow_uuid = %s
"""


@dataclass(frozen=True, slots=True)
class Situation:
    """What the engine knows of a workflow. waits: tokens of what it is parked for; begun: it goes on, past any rate; living: the versions
    of the workers alive, taking: of those among them that are not paused; _held: how many count against the cap.
    """

    status: str | None
    queue: str | None
    version: str | None
    since_ms: int
    partition: str | None = None
    delayed_until_ms: int | None = None
    wake_at_ms: int | None = None
    waits: Sequence[str] = ()
    parked: bool = False
    begun: bool = False
    executor_id: str | None = None
    leased_until_ms: int | None = None
    is_orphan: bool = True
    answered: bool = False
    living: Sequence[str | None] = field(default=())
    taking: Sequence[str | None] = field(default=())
    queue_paused: bool = False
    partition_paused: bool = False
    queue_cap: int | None = None
    partition_cap: int | None = None
    queue_held: int = 0
    partition_held: int = 0
    queue_opens_ms: int | None = None
    partition_opens_ms: int | None = None

    @property
    def has_worker(self) -> bool:
        """Whether somebody alive would take it."""
        return self._is_among(self.living)

    @property
    def has_only_paused_workers(self) -> bool:
        return self.has_worker and not self._is_among(self.taking)

    def _is_among(self, versions: Sequence[str | None]) -> bool:
        """A workflow of no version is everybody's."""
        return bool(versions) if self.version is None else self.version in versions

    @property
    def share(self) -> str:
        """What it counts to in its queue, in words."""
        return f"partition {self.partition} of {self.queue}" if self.partition else f"what has no partition in {self.queue}"


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
    sentence = "its worker has stopped renewing its lease; another one takes over"
    return reason("worker-lost", sentence, since=it.since_ms, until=it.leased_until_ms, workerID=it.executor_id)


def _queued(it: Situation, what: str) -> Reason:
    if not it.has_worker:
        return _no_worker(it)
    return _paused(it) or _capped(it) or _rated(it) or _takeable(it, what)


def _paused(it: Situation) -> Reason | None:
    what = it.queue if it.queue_paused else it.share if it.partition_paused else None
    if what is not None:
        return reason("paused", f"{what} is paused; resume it", since=it.since_ms)
    if it.has_only_paused_workers:
        return reason("paused", "every live worker of its application version is paused; resume one", since=it.since_ms)
    return None


def _capped(it: Situation) -> Reason | None:
    for what, held, cap in ((it.queue, it.queue_held, it.queue_cap), (it.share, it.partition_held, it.partition_cap)):
        if cap is not None and held >= cap:
            sentence = f"{held} of at most {cap} of {what} are at work; it goes on when one of them ends or waits"
            return reason("cap", sentence, since=it.since_ms)
    return None


def _rated(it: Situation) -> Reason | None:
    if it.begun:
        return None
    for what, opens_ms in ((it.queue, it.queue_opens_ms), (it.share, it.partition_opens_ms)):
        if opens_ms is not None:
            return reason("rate-limit", f"{what} has started as many as its rate allows", since=it.since_ms, until=opens_ms)
    return None


def _takeable(it: Situation, what: str) -> Reason:
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

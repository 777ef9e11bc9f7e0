"""Queues as people see them, their limits and pauses, and the chores that keep their books.

A queue needs no declaration; one is for limits. They are kept in `dbos.queues`, what one partition has of its own in
`engine.queue_partition`, and they hold from the next claim on, for all workers. How a claim uses them is told at `engine.claim` in
schema.sql. Lock order: a queue's row, then partitions' rows, then status rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import LiteralString

from psycopg.rows import class_row

from engine.entries import FIELD, Connection
from engine.hints import Acquire
from engine.names import checked_name


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `starts` workflows start in any `period_s` seconds. One that was parked goes on without starting again."""

    starts: int
    period_s: float

    def __post_init__(self) -> None:
        if self.starts < 1 or self.period_s <= 0:
            raise ValueError(f"a rate needs at least one start and a period above 0 s, not {self.starts} in {self.period_s} s")


@dataclass(frozen=True, slots=True)
class QueueState:
    """A queue with its limits, each None where there is none. opens_at_ms: its rate is used up until then."""

    name: str
    paused: bool
    concurrency: int | None
    partition_concurrency: int | None
    rate_limit_max: int | None
    rate_limit_period_s: float | None
    partition_rate_limit_max: int | None
    partition_rate_limit_period_s: float | None
    opens_at_ms: int | None


@dataclass(frozen=True, slots=True)
class PartitionState:
    """A partition of a queue: why it is, or is not, served (see engine.queue_partition), and what it has of its own."""

    queue: str
    key: str
    state: str
    due_at_ms: int | None
    weight: float
    concurrency: int | None
    rate_limit_max: int | None
    rate_limit_period_s: float | None


KNOW: LiteralString = r"""
insert into engine.queue (name) select n from unnest(string_to_array(%s, E'\x1f')) n order by n on conflict do nothing
"""


async def know(conn: Connection, names: Sequence[str]) -> None:
    """Give each queue its row, where it has none."""
    await conn.execute(KNOW, (FIELD.join(names),))


DECLARE: LiteralString = """
insert into dbos.queues as q (name, concurrency, partition_concurrency, rate_limit_max, rate_limit_period_sec, partition_rate_limit_max,
                              partition_rate_limit_period_sec, partition_queue, priority_enabled)
values (%(name)s, %(concurrency)s, %(partition_concurrency)s, %(rate_max)s, %(rate_s)s, %(partition_rate_max)s, %(partition_rate_s)s,
        %(partition_concurrency)s::int is not null or %(partition_rate_max)s::int is not null, true)
on conflict (name) do update
   set concurrency = excluded.concurrency, partition_concurrency = excluded.partition_concurrency,
       rate_limit_max = excluded.rate_limit_max, rate_limit_period_sec = excluded.rate_limit_period_sec,
       partition_rate_limit_max = excluded.partition_rate_limit_max,
       partition_rate_limit_period_sec = excluded.partition_rate_limit_period_sec, partition_queue = excluded.partition_queue,
       updated_at = (select engine.now_ms())
 where (q.concurrency, q.partition_concurrency, q.rate_limit_max, q.rate_limit_period_sec, q.partition_rate_limit_max,
        q.partition_rate_limit_period_sec)
       is distinct from (excluded.concurrency, excluded.partition_concurrency, excluded.rate_limit_max, excluded.rate_limit_period_sec,
                         excluded.partition_rate_limit_max, excluded.partition_rate_limit_period_sec)
returning 1
"""
CHANGE_LIMITS: LiteralString = "select engine.change_limits()"
# Those at work when a cap comes must count too.
COUNT_THEM: LiteralString = """
with theirs as materialized (
    select s.workflow_uuid from dbos.workflow_status s
     where s.status = 'PENDING' and s.owner_xid is not null and s.queue_name = %s and not s.held
     order by s.workflow_uuid for no key update)
update dbos.workflow_status s set held = true from theirs t where s.workflow_uuid = t.workflow_uuid
"""
# Whatever gated a partition before may not any more.
NUDGE_GATED: LiteralString = """
insert into engine.nudge (queue, key) select p.queue, p.key from engine.queue_partition p where p.queue = %s and p.state in ('g', 't')
"""
TUNE: LiteralString = """
insert into engine.queue_partition as p (queue, key, state, due_at_ms, weight, concurrency, rate_limit_max, rate_limit_period_sec)
values (%(queue)s, %(key)s, 'e', (select engine.now_ms()), coalesce(%(weight)s, 1), %(concurrency)s, %(rate_max)s, %(rate_s)s)
on conflict (queue, key) do update
   set weight = coalesce(%(weight)s, p.weight), concurrency = excluded.concurrency, rate_limit_max = excluded.rate_limit_max,
       rate_limit_period_sec = excluded.rate_limit_period_sec,
       due_at_ms = case when p.state in ('g', 't') then (select engine.now_ms()) else p.due_at_ms end
"""
WEIGH: LiteralString = """
insert into engine.queue_partition as p (queue, key, state, due_at_ms, weight) values (%s, %s, 'e', (select engine.now_ms()), %s)
on conflict (queue, key) do update set weight = excluded.weight
"""
PAUSE_QUEUE: LiteralString = """
insert into engine.queue as q (name, paused) values (%s, %s) on conflict (name) do update set paused = excluded.paused
"""
PAUSE_PARTITION: LiteralString = """
insert into engine.queue_partition as p (queue, key, state) values (%s, %s, 'p')
on conflict (queue, key) do update set state = 'p', due_at_ms = null, check_xid = null
"""
# Runnable or not, the next visit finds out.
RESUME_PARTITION: LiteralString = """
update engine.queue_partition p set state = 'r', misses = 0, vtime = greatest(p.vtime, engine.entry_vtime(p.queue))
 where p.queue = %s and p.key = %s and p.state = 'p'
"""
PAUSE_WORKER: LiteralString = "update engine.worker set paused = %s where id = %s and not dead returning 1"
QUEUES: LiteralString = """
select coalesce(e.name, d.name) as name, coalesce(e.paused, false) as paused, d.concurrency, d.partition_concurrency, d.rate_limit_max,
       d.rate_limit_period_sec as rate_limit_period_s, d.partition_rate_limit_max,
       d.partition_rate_limit_period_sec as partition_rate_limit_period_s,
       case when e.opens_at_ms > (select engine.now_ms()) then e.opens_at_ms end as opens_at_ms
  from engine.queue e full join dbos.queues d on d.name = e.name
 order by 1
"""
PARTITIONS: LiteralString = """
select p.queue, p.key, p.state, p.due_at_ms, p.weight, p.concurrency, p.rate_limit_max, p.rate_limit_period_sec as rate_limit_period_s
  from engine.queue_partition p where p.queue = %(queue)s and (%(after)s::text is null or p.key > %(after)s) order by p.key limit %(limit)s
"""


class Queues:
    """An engine's queues: `engine.queues`. What is changed here holds from the next claim on, for all workers."""

    def __init__(self, acquire: Acquire, tell: Callable[[], None]) -> None:
        self._acquire = acquire
        self._tell = tell  # that there may be work

    async def declare(
        self,
        name: str,
        *,
        concurrency: int | None = None,
        rate: Rate | None = None,
        partition_concurrency: int | None = None,
        partition_rate: Rate | None = None,
    ) -> None:
        """Set all the limits of a queue, over all workers together; None lifts one.

        concurrency, rate: of the whole queue; partition_…: of each of its partitions that has none of its own. A parked workflow counts
        nowhere. Raises ValueError for a limit below 1.
        """
        given = {
            "name": checked_name(name, "queue name"),
            "concurrency": _positive(concurrency, "concurrency"),
            "partition_concurrency": _positive(partition_concurrency, "partition_concurrency"),
            "rate_max": None if rate is None else rate.starts,
            "rate_s": None if rate is None else rate.period_s,
            "partition_rate_max": None if partition_rate is None else partition_rate.starts,
            "partition_rate_s": None if partition_rate is None else partition_rate.period_s,
        }
        async with self._acquire() as conn, conn.transaction():
            await conn.execute(CHANGE_LIMITS)
            await know(conn, [name])
            if await (await conn.execute(DECLARE, given)).fetchone() is None:
                return
            if concurrency is not None or partition_concurrency is not None:
                await conn.execute(COUNT_THEM, (name,))
            await conn.execute(NUDGE_GATED, (name,))
        self._tell()

    async def weigh(self, name: str, key: str, weight: float) -> None:
        """Set a partition's share of the queue against the others' (0.001 to 1000; 1 unless set). Raises ValueError."""
        given = (checked_name(name, "queue name"), checked_name(key, "partition key"), _fit(weight))
        async with self._acquire() as conn:
            await know(conn, [name])
            await conn.execute(WEIGH, given)

    async def tune(
        self, name: str, key: str, *, weight: float | None = None, concurrency: int | None = None, rate: Rate | None = None
    ) -> None:
        """Give one partition limits of its own, both of them: None is as the queue says. It need not have work yet.

        weight: as in `weigh`; None leaves it. Raises ValueError.
        """
        given = {
            "queue": checked_name(name, "queue name"),
            "key": checked_name(key, "partition key"),
            "weight": None if weight is None else _fit(weight),
            "concurrency": _positive(concurrency, "concurrency"),
            "rate_max": None if rate is None else rate.starts,
            "rate_s": None if rate is None else rate.period_s,
        }
        async with self._acquire() as conn, conn.transaction():
            await conn.execute(CHANGE_LIMITS)
            await know(conn, [name])
            await conn.execute(TUNE, given)
            if concurrency is not None:
                await conn.execute(COUNT_THEM, (name,))
        self._tell()

    async def pause(self, name: str, key: str | None = None) -> None:
        """Let no worker take anything from the queue, or from one of its partitions. What is at work goes on until it ends or parks."""
        async with self._acquire() as conn:
            if key is None:
                await conn.execute(PAUSE_QUEUE, (checked_name(name, "queue name"), True))
            else:
                await conn.execute(PAUSE_PARTITION, (checked_name(name, "queue name"), checked_name(key, "partition key")))

    async def resume(self, name: str, key: str | None = None) -> None:
        """Take back a pause."""
        async with self._acquire() as conn:
            if key is None:
                await conn.execute(PAUSE_QUEUE, (checked_name(name, "queue name"), False))
            else:
                await conn.execute(RESUME_PARTITION, (checked_name(name, "queue name"), checked_name(key, "partition key")))
        self._tell()

    async def pause_worker(self, worker_id: str, *, paused: bool = True) -> bool:
        """Let a worker take nothing more, or (paused=False) again; False when no such worker is alive."""
        async with self._acquire() as conn:
            found = await (await conn.execute(PAUSE_WORKER, (paused, worker_id))).fetchone()
        self._tell()
        return found is not None

    async def states(self) -> list[QueueState]:
        """Every queue that was declared, served or paused, by name."""
        async with self._acquire() as conn, conn.cursor(row_factory=class_row(QueueState)) as cursor:
            return await (await cursor.execute(QUEUES)).fetchall()

    async def partitions(self, name: str, *, after: str | None = None, limit: int = 1000) -> list[PartitionState]:
        """The queue's partitions that have work or something of their own, by key, those after a key first."""
        async with self._acquire() as conn, conn.cursor(row_factory=class_row(PartitionState)) as cursor:
            return await (await cursor.execute(PARTITIONS, {"queue": name, "after": after, "limit": limit})).fetchall()


def _positive(value: int | None, what: str) -> int | None:
    if value is not None and value < 1:
        raise ValueError(f"{what} must be at least 1, or None for no limit, not {value}")
    return value


def _fit(weight: float) -> float:
    if not 0.001 <= weight <= 1000:
        raise ValueError(f"a weight is between 0.001 and 1000, not {weight}")
    return weight


# -- chores ---------------------------------------------------------------------------------------------------------------

LOOK_AGAIN: LiteralString = "select engine.look_again()"
# Where newcomers start: while partitions are runnable, at the one furthest behind; afterwards, where the last one ended.
RAISE_FLOORS: LiteralString = """
update engine.queue q set floor = n.vtime
  from (select x.name, coalesce(
                   (select r.vtime from engine.queue_partition r where r.queue = x.name and r.state = 'r' order by r.vtime, r.tie limit 1),
                   (select max(e.vtime) from engine.queue_partition e where e.queue = x.name)) as vtime from engine.queue x) n
 where q.name = n.name and n.vtime > q.floor
"""
# Not those that are still in debt, have something of their own, or have started something that their rate must remember.
FORGET_EMPTY: LiteralString = """
delete from engine.queue_partition p
 where p.ctid = any (array(
    select x.ctid
      from engine.queue_partition x
      join engine.queue q on q.name = x.queue and x.vtime <= q.floor
      left join dbos.queues d on d.name = x.queue
     where x.state = 'e' and x.due_at_ms is null and x.weight = 1 and x.concurrency is null and x.rate_limit_max is null
       and (x.starts is null or d.partition_rate_limit_max is null
            or (select engine.now_ms()) / ceil(d.partition_rate_limit_period_sec * 1000 / 32)::bigint - x.starts_upto > 33)
     limit 1000 for update of x skip locked))
"""
NEXT_LOOK: LiteralString = """
select least((select min(p.due_at_ms) from engine.queue_partition p where p.due_at_ms is not null),
             (select min(q.opens_at_ms) from engine.queue q where q.opens_at_ms > clock.now_ms)) - clock.now_ms
  from (select engine.now_ms() as now_ms offset 0) clock
"""


async def look_again(conn: Connection) -> int:
    """Make partitions runnable that got work, or whose time has come; how many were looked at. One bounded pass."""
    row = await (await conn.execute(LOOK_AGAIN)).fetchone()
    return 0 if row is None else row[0]


async def tidy(conn: Connection) -> None:
    """Raise the queues' floors, and forget partitions that have long been empty. One bounded pass."""
    await conn.execute(RAISE_FLOORS)
    await conn.execute(FORGET_EMPTY)


async def next_look_s(conn: Connection) -> float | None:
    """Seconds until a partition is to be looked at or a rate allows a start again; None if there is none such."""
    row = await (await conn.execute(NEXT_LOOK)).fetchone()
    return None if row is None or row[0] is None else max(row[0], 0) / 1000


# Every distinct partition with queued work, by one descent of the index each.
STRANDED: LiteralString = """
with recursive keyed (queue, key) as (
    (select w.queue_name, coalesce(w.queue_partition_key, '') from dbos.workflow_status w
      where w.status = 'ENQUEUED' and w.queue_name is not null
      order by w.queue_name, coalesce(w.queue_partition_key, '') limit 1)
    union all
    select n.queue_name, n.key
      from keyed k cross join lateral (
        select w.queue_name, coalesce(w.queue_partition_key, '') as key from dbos.workflow_status w
         where w.status = 'ENQUEUED' and (w.queue_name, coalesce(w.queue_partition_key, '')) > (k.queue, k.key)
         order by w.queue_name, coalesce(w.queue_partition_key, '') limit 1) n)
insert into engine.nudge (queue, key)
select k.queue, k.key
  from keyed k
 where coalesce((select case when p.due_at_ms is null then p.state else 'r' end
                   from engine.queue_partition p where p.queue = k.queue and p.key = k.key), 'e') in ('e', 's')
   and not exists (select from engine.nudge n where n.queue = k.queue and n.key = k.key)
returning 1
"""
# More at work than the cap allows; and partitions that nobody would look at though there is a place under their cap.
CAPPED: LiteralString = """
with capped as materialized (
    select p.queue, p.key, p.state, p.due_at_ms, coalesce(p.concurrency, d.partition_concurrency) as cap,
           engine.held_by(p.queue, p.key) as held
      from engine.queue_partition p left join dbos.queues d on d.name = p.queue
     where p.state in ('r', 'g') and coalesce(p.concurrency, d.partition_concurrency) is not null),
leaked as (
    insert into engine.nudge (queue, key)
    select c.queue, c.key
      from capped c
     where c.held < c.cap and c.state = 'g' and c.due_at_ms is null
       and not exists (select from engine.nudge n where n.queue = c.queue and n.key = c.key)
    returning 1)
select (select count(*) from capped c where c.held > c.cap), (select count(*) from leaked)
"""


@dataclass(slots=True)
class Findings:
    """What reconciling found since this worker began; all of it should stay 0.

    stranded: partitions with work that nobody would have looked at; they were put right. exceeded: partitions with more at work than
    their cap. leaked: partitions kept waiting for a place that was free.
    """

    stranded: int = 0
    exceeded: int = 0
    leaked: int = 0


async def reconcile(conn: Connection, findings: Findings) -> None:
    """Check the books against the workflows themselves, and put right what a writer under REPEATABLE READ may have missed."""
    findings.stranded += len(await (await conn.execute(STRANDED)).fetchall())
    row = await (await conn.execute(CAPPED)).fetchone()
    assert row is not None
    findings.exceeded += row[0]
    findings.leaked += row[1]

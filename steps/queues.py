"""Queues for operators: what waits and is at work where, what holds it up, and what they change about that.

Queues are served fairly over their partitions by the engine (see engine.queues). What is changed here holds from the next claim on.
"""

from collections.abc import Mapping
from typing import LiteralString

from psycopg.rows import dict_row

from engine import Connection, Engine, QueueState, Rate
from steps.contracts.base import JsonObject
from steps.contracts.queues import PartitionStanding, PartitionView, QueueView, WorkerView
from steps.documents import without_none
from steps.errors import Conflict, NotFound
from steps.policy import QUEUES

#: The engine's letters, see engine.queue_partition.
STANDINGS: Mapping[str, PartitionStanding] = {
    "r": "ready",
    "e": "empty",
    "g": "capped",
    "t": "rate-limited",
    "s": "other-workers",
    "p": "paused",
}

MOST_QUEUED = 100_000
MOST_QUEUED_OF_ONE = 10_000
MOST_PARTITIONS = 1000
LEAST_WEIGHT, MOST_WEIGHT = 0.001, 1000.0

# Looking -------------------------------------------------------------------------------------------------------------

COUNTS: LiteralString = """
    with busy as (
        select s.queue_name, count(*) as at_work
          from dbos.workflow_status s where s.status = 'PENDING' and s.executor_id is not null
         group by s.queue_name)
    select n.name,
           (select count(*) from (select from dbos.workflow_status w
                                   where w.status = 'ENQUEUED' and w.queue_name = n.name limit %(queued)s) w) as queued,
           coalesce(b.at_work, 0) as at_work,
           (select coalesce(jsonb_object_agg(g.state, g.count), '{}')
              from (select p.state, count(*)
                      from (select x.state from engine.queue_partition x where x.queue = n.name limit %(queued)s) p
                     group by p.state) g) as partitions
      from unnest(%(names)s::text[]) as n (name)
      left join busy b on b.queue_name = n.name
     order by n.name
"""


async def list_queues(engine: Engine) -> list[QueueView]:
    """The product's queues, and every other one that is known, by name."""
    states = {state.name: state for state in await engine.queues.states()}
    async with engine.pool.connection() as conn:
        rows = await _rows(conn, COUNTS, {"names": sorted({*states, *QUEUES}), "queued": MOST_QUEUED})
    return [_queue(row, states.get(row["name"])) for row in rows]


def _queue(row: JsonObject, state: QueueState | None) -> QueueView:
    limits: JsonObject = {}
    if state is not None:
        limits = {
            "concurrency": state.concurrency,
            "rate": _rate(state.rate_limit_max, state.rate_limit_period_s),
            "opensAt": state.opens_at_ms,
            "partitionConcurrency": state.partition_concurrency,
            "partitionRate": _rate(state.partition_rate_limit_max, state.partition_rate_limit_period_s),
        }
    view: JsonObject = {
        "queueName": row["name"],
        "paused": state is not None and state.paused,
        "queued": row["queued"],
        "atWork": row["at_work"],
        "partitions": {standing: row["partitions"].get(letter, 0) for letter, standing in STANDINGS.items()},
    }
    return QueueView.model_validate(view | without_none(limits))


PARTITIONS: LiteralString = """
    select p.queue, p.key, p.state, p.due_at_ms, p.weight, p.concurrency, p.rate_limit_max, p.rate_limit_period_sec,
           (select count(*) from (select from dbos.workflow_status w
                                   where w.status = 'ENQUEUED' and w.queue_name = p.queue
                                     and coalesce(w.queue_partition_key, '') = p.key limit %(queued)s) w) as queued,
           coalesce(b.at_work, 0) as at_work
      from engine.queue_partition p
      left join (select coalesce(s.queue_partition_key, '') as key, count(*) as at_work
                   from dbos.workflow_status s
                  where s.status = 'PENDING' and s.executor_id is not null and s.queue_name = %(queue)s
                  group by 1) b on b.key = p.key
     where p.queue = %(queue)s and (%(only)s::text is null or p.key = %(only)s) and (%(after)s::text is null or p.key > %(after)s)
     order by p.key
     limit %(limit)s
"""


async def list_partitions(engine: Engine, queue: str, *, after: str | None = None, limit: int) -> list[PartitionView]:
    """The queue's partitions that have work or something of their own, by key, from behind `after` on. Raises NotFound."""
    await find_queue(engine, queue)
    return await _partitions(engine, queue, after=after, limit=limit)


async def _partitions(
    engine: Engine, queue: str, *, only: str | None = None, after: str | None = None, limit: int = 1
) -> list[PartitionView]:
    given = {"queue": queue, "only": only, "after": after, "limit": limit, "queued": MOST_QUEUED_OF_ONE}
    async with engine.pool.connection() as conn:
        return [_partition(row) for row in await _rows(conn, PARTITIONS, given)]


def _partition(row: JsonObject) -> PartitionView:
    own: JsonObject = {
        "until": row["due_at_ms"],
        "concurrency": row["concurrency"],
        "rate": _rate(row["rate_limit_max"], row["rate_limit_period_sec"]),
    }
    view: JsonObject = {
        "queueName": row["queue"],
        "partitionKey": row["key"] or None,
        "state": STANDINGS[row["state"]],
        "queued": row["queued"],
        "atWork": row["at_work"],
        "weight": row["weight"],
    }
    return PartitionView.model_validate(view | without_none(own))


WORKERS: LiteralString = """
    select w.id as "workerID", w.place, w.version, w.paused, w.started_at_ms as "startedAt", w.lease_until_ms as "leasedUntil",
           (select count(*) from dbos.workflow_status s where s.status = 'PENDING' and s.executor_id = w.id) as "atWork"
      from engine.worker w
     where not w.dead and w.lease_until_ms > (select engine.now_ms())
     order by w.started_at_ms, w.id
"""


async def list_workers(engine: Engine) -> list[WorkerView]:
    """The worker processes that are alive, the oldest first."""
    async with engine.pool.connection() as conn:
        return [WorkerView.model_validate(without_none(row)) for row in await _rows(conn, WORKERS, {})]


# Acting --------------------------------------------------------------------------------------------------------------


async def find_queue(engine: Engine, name: str) -> QueueView:
    """Raises NotFound: a queue needs no declaration, so a misspelt one would be accepted for ever."""
    for view in await list_queues(engine):
        if view.queueName == name:
            return view
    raise NotFound(f"queue not found: {name}")


async def find_partition(engine: Engine, queue: str, key: str) -> PartitionView:
    """Raises NotFound."""
    found = await _partitions(engine, queue, only=key)
    if not found:
        raise NotFound(f"partition not found: {key} of {queue}")
    return found[0]


async def pause(engine: Engine, queue: str, key: str | None = None) -> QueueView | PartitionView:
    """Let no worker take anything from the queue, or from one of its partitions, which need not have work yet. Raises NotFound."""
    await find_queue(engine, queue)
    await engine.queues.pause(queue, key)
    return await _now(engine, queue, key)


async def resume(engine: Engine, queue: str, key: str | None = None) -> QueueView | PartitionView:
    """Take back a pause. Raises NotFound, Conflict when there is none."""
    found = await _now(engine, queue, key)
    is_paused = found.paused if isinstance(found, QueueView) else found.state == "paused"
    if not is_paused:
        raise Conflict(f"{queue} is not paused" if key is None else f"partition {key} of {queue} is not paused")
    await engine.queues.resume(queue, key)
    return await _now(engine, queue, key)


async def weigh(engine: Engine, queue: str, key: str, weight: float) -> PartitionView:
    """Set a partition's share of the queue against the others', which have 1 each unless they were given another. Raises NotFound."""
    await find_queue(engine, queue)
    await engine.queues.weigh(queue, key, weight)
    return await find_partition(engine, queue, key)


async def limit(
    engine: Engine, queue: str, key: str, *, concurrency: int | None = None, rate: tuple[int, float] | None = None
) -> PartitionView:
    """Give a partition a cap, or a rate (starts, seconds), of its own. None leaves what it has; with 0 it is as the queue says again.

    Raises NotFound.
    """
    await find_queue(engine, queue)
    has = next(iter(await _partitions(engine, queue, only=key)), None)
    if has is not None:
        concurrency = has.concurrency if concurrency is None else concurrency
        rate = (has.rate.starts, has.rate.periodS) if rate is None and has.rate is not None else rate
    await engine.queues.tune(queue, key, concurrency=concurrency or None, rate=Rate(*rate) if rate and rate[0] else None)
    return await find_partition(engine, queue, key)


async def pause_worker(engine: Engine, worker_id: str, *, paused: bool) -> WorkerView:
    """Let a worker take nothing more, while what it has at work goes on; or take again (paused=False). Raises NotFound when no such
    worker is alive.
    """
    if await engine.queues.pause_worker(worker_id, paused=paused):
        for worker in await list_workers(engine):
            if worker.workerID == worker_id:
                return worker
    raise NotFound(f"no worker {worker_id} is alive")


async def _now(engine: Engine, queue: str, key: str | None) -> QueueView | PartitionView:
    found = await find_queue(engine, queue)
    return found if key is None else await find_partition(engine, queue, key)


def _rate(starts: int | None, period_s: float | None) -> JsonObject | None:
    return None if starts is None or period_s is None else {"starts": starts, "periodS": period_s}


async def _rows(conn: Connection, query: LiteralString, given: JsonObject) -> list[JsonObject]:
    """Unprepared: a plan that is made once for all would not know which filters are given."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        return await (await cursor.execute(query, given, prepare=False)).fetchall()

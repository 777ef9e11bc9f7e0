"""The ceiling: how fast this machine and server can be made to write the rows the engine writes, with nothing around it.

One process drives the workflows as bare asyncio tasks and commits all that is waiting in one round trip over one connection: step
rows, rider rows, finishes and the next claims, each as one array statement. There is no fence, lease, retry, timer, replay or
cancel, and no second worker may run beside it. It is the yardstick, not an engine.

`worker` runs until its standard input closes; `enqueue` inserts for eight callers, a commit each; `enqueue-shared` lets callers who
wait together share a commit, as the worker's records do; `backlog` inserts all in one commit.
"""

import argparse
import asyncio
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import LiteralString

import orjson
import psycopg
import uvloop
from psycopg import AsyncConnection

from benchmarks.server import CLOCK_MS

TUNED = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off"
IDLE_S = 0.002

STEPS: LiteralString = r"""
insert into dbos.operation_outputs (workflow_uuid, function_id, call_path, function_name, output, started_at_epoch_ms,
                                    completed_at_epoch_ms, serialization)
select r.id, r.number, r.number::text, r.name, r.output, r.began, clock.now_ms, 'portable_json'
  from (select engine.now_ms() as now_ms offset 0) clock,
       unnest(string_to_array(%s, E'\x1f'), %s::int[], string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f'), %s::bigint[])
           as r (id, number, name, output, began)
"""
RIDERS: LiteralString = r"""
insert into bench.rider (workflow_uuid, step, note)
select r.id, r.step, r.note
  from unnest(string_to_array(%s, E'\x1f'), %s::int[], string_to_array(%s, E'\x1f')) as r (id, step, note)
"""
FINISH: LiteralString = r"""
update dbos.workflow_status s
   set status = 'SUCCESS', output = r.output, owner_xid = null, completed_at = clock.now_ms, updated_at = clock.now_ms
  from (select engine.now_ms() as now_ms offset 0) clock,
       unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f')) as r (id, output)
 where s.workflow_uuid = r.id
"""
CLAIM: LiteralString = """
with picked as materialized (
    select w.workflow_uuid from dbos.workflow_status w
     where w.status = 'ENQUEUED' and w.queue_name = 'bench' and coalesce(w.queue_partition_key, '') = ''
     order by w.priority, w.created_at limit %s::int)
update dbos.workflow_status w
   set status = 'PENDING', owner_xid = %s, executor_id = %s, started_at_epoch_ms = clock.now_ms, updated_at = clock.now_ms,
       recovery_attempts = w.recovery_attempts + 1, claims = w.claims + 1
  from picked p, (select engine.now_ms() as now_ms offset 0) clock where w.workflow_uuid = p.workflow_uuid
returning w.workflow_uuid, w.inputs
"""
ENQUEUE: LiteralString = r"""
insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, inputs, priority, serialization)
select r.id, 'ENQUEUED', 'four_steps', 'bench', r.inputs, 0, 'portable_json'
  from unnest(string_to_array(%s, E'\x1f'), string_to_array(%s, E'\x1f')) as r (id, inputs)
"""
BACKLOG: LiteralString = """
insert into dbos.workflow_status (workflow_uuid, status, name, queue_name, inputs, priority, serialization)
select %s || '-' || n, 'ENQUEUED', 'four_steps', 'bench', '{"positionalArgs":[' || n || '],"namedArgs":{}}', 0, 'portable_json'
  from generate_series(0, %s::int - 1) n
"""


def joined(values: list[str]) -> str:
    return "\x1f".join(values)


def literal(values: list[int]) -> str:
    return "{" + ",".join(map(str, values)) + "}"


@dataclass(slots=True)
class Batch:
    """What waits for the next commit, column by column."""

    ids: list[str] = field(default_factory=list[str])
    numbers: list[int] = field(default_factory=list[int])
    names: list[str] = field(default_factory=list[str])
    outputs: list[str] = field(default_factory=list[str])
    began: list[int] = field(default_factory=list[int])
    finished: list[str] = field(default_factory=list[str])
    results: list[str] = field(default_factory=list[str])
    callers: list[asyncio.Future[None]] = field(default_factory=list[asyncio.Future[None]])


class Worker:
    def __init__(self, connection: AsyncConnection, concurrency: int, rider: bool) -> None:
        self._connection = connection
        self._free = concurrency
        self._rider = rider
        self._id = str(uuid.uuid4())
        self._batch = Batch()
        self._loop = asyncio.get_running_loop()
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Commit whatever waits, for ever; look for work at every commit, and every 2 ms when idle."""
        while True:
            batch, self._batch = self._batch, Batch()
            claimed = await self._commit(batch)
            for caller in batch.callers:
                caller.set_result(None)
            self._free += len(batch.finished) - len(claimed)
            for id, inputs in claimed:
                task = self._loop.create_task(self._workflow(id, inputs))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(0 if batch.callers or claimed else IDLE_S)

    async def _commit(self, batch: Batch) -> list[tuple[str, str]]:
        cursor = self._connection.cursor()
        async with self._connection.pipeline():
            if batch.ids:
                ids, numbers = joined(batch.ids), literal(batch.numbers)
                names, outputs, began = joined(batch.names), joined(batch.outputs), literal(batch.began)
                await self._connection.execute(STEPS, (ids, numbers, names, outputs, began), prepare=True)
                if self._rider:
                    await self._connection.execute(RIDERS, (ids, numbers, names), prepare=True)
            if batch.finished:
                await self._connection.execute(FINISH, (joined(batch.finished), joined(batch.results)), prepare=True)
            free = self._free + len(batch.finished)
            if free:
                await cursor.execute(CLAIM, (str(free), str(uuid.uuid4()), self._id), prepare=True)
        return await cursor.fetchall() if free else []

    async def _step(self, id: str, number: int, body: Callable[[int], Awaitable[int]], argument: int) -> int:
        batch, began = self._batch, int(time.time() * 1000)
        output = await body(argument)
        batch.ids.append(id)
        batch.numbers.append(number)
        batch.names.append(body.__name__)
        batch.outputs.append(orjson.dumps(output).decode())
        batch.began.append(began)
        caller = self._loop.create_future()
        batch.callers.append(caller)
        await caller
        return output

    async def _workflow(self, id: str, inputs: str) -> None:
        n: int = orjson.loads(inputs)["positionalArgs"][0]
        for number, body in enumerate((one, two, three, four), 1):
            n = await self._step(id, number, body, n)
        self._batch.finished.append(id)
        self._batch.results.append(orjson.dumps(n).decode())


async def one(n: int) -> int:
    return n + 1


async def two(n: int) -> int:
    return n + 1


async def three(n: int) -> int:
    return n + 1


async def four(n: int) -> int:
    return n + 1


async def work(dsn: str, concurrency: int, rider: bool) -> None:
    async with await AsyncConnection.connect(dsn, autocommit=True, options=TUNED) as connection:
        serving = asyncio.create_task(Worker(connection, concurrency, rider).run())
        print("ready", flush=True)
        stopped = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()


async def enqueue(dsn: str, prefix: str, count: int, flight: int, pause_s: float) -> None:
    """Insert with `flight` callers, each on a connection of its own: every row is a commit."""
    numbers = iter(range(count))

    async def submit(connection: AsyncConnection) -> None:
        for n in numbers:
            await connection.execute(ENQUEUE, (f"{prefix}-{n}", inputs_of(n)), prepare=True)
            if pause_s:
                await asyncio.sleep(pause_s)

    connections = [await AsyncConnection.connect(dsn, autocommit=True) for _ in range(flight)]
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    await asyncio.gather(*map(submit, connections))
    print("done", flush=True)
    for connection in connections:
        await connection.close()


async def enqueue_shared(dsn: str, prefix: str, count: int, flight: int) -> None:
    """Insert with `flight` callers that each wait for their row's commit; callers that wait together share one."""
    numbers = iter(range(count))
    waiting: list[tuple[str, str, asyncio.Future[None]]] = []
    arrived = asyncio.Event()

    async def submit() -> None:
        for n in numbers:
            done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            waiting.append((f"{prefix}-{n}", inputs_of(n), done))
            arrived.set()
            await done

    async def commit() -> None:
        while True:
            await arrived.wait()
            arrived.clear()
            batch = waiting[:]
            waiting.clear()
            given = (joined([row[0] for row in batch]), joined([row[1] for row in batch]))
            await connection.execute(ENQUEUE, given, prepare=True)
            for _, _, done in batch:
                done.set_result(None)

    connection = await AsyncConnection.connect(dsn, autocommit=True)
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.readline)
    committing = asyncio.create_task(commit())
    await asyncio.gather(*(submit() for _ in range(flight)))
    committing.cancel()
    print("done", flush=True)


def inputs_of(n: int) -> str:
    return orjson.dumps({"positionalArgs": [n], "namedArgs": {}}).decode()


def backlog(dsn: str, prefix: str, count: int) -> None:
    """Insert all in one commit and print the server's clock just before it."""
    with psycopg.connect(dsn) as connection:
        print("ready", flush=True)
        sys.stdin.readline()
        connection.execute(BACKLOG, (prefix, count))
        row = connection.execute(CLOCK_MS).fetchone()
        connection.commit()
        assert row is not None
        print(f"done {row[0]}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["worker", "enqueue", "enqueue-shared", "backlog"])
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--prefix", default="w")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--flight", type=int, default=8)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--pause-s", type=float, default=0.0)
    parser.add_argument("--rider", action="store_true")
    asked = parser.parse_args()
    if asked.role == "worker":
        uvloop.run(work(asked.dsn, asked.concurrency, asked.rider))
    elif asked.role == "enqueue":
        uvloop.run(enqueue(asked.dsn, asked.prefix, asked.count, asked.flight, asked.pause_s))
    elif asked.role == "enqueue-shared":
        uvloop.run(enqueue_shared(asked.dsn, asked.prefix, asked.count, asked.flight))
    else:
        backlog(asked.dsn, asked.prefix, asked.count)


if __name__ == "__main__":
    main()

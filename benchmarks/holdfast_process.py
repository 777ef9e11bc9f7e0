"""Holdfast's processes under measurement: a worker, and clients that enqueue or send.

`worker` runs until its standard input closes. `enqueue` submits one workflow a commit with eight in flight, `enqueue-shared`
with eight callers who share commits; `backlog` submits all in one commit; `latency` submits one after the other and waits for
each; `wake` sends to parked workflows, one after the other, and waits for each; `arrivals` submits for many tenants at random
moments. The clients print `ready`, wait for a line, and end with `done` and what they measured.
"""

import argparse
import asyncio
import os
import random
import sys
import time
from typing import Any, LiteralString

import orjson
import structlog
import uvloop
from psycopg import AsyncConnection

from benchmarks import holdfast, workloads
from benchmarks.server import CLOCK_MS
from bin.wiring import calm_garbage_collector
from engine import Engine, Workflow

REGISTERED: LiteralString = "select count(*) from engine.worker where place like %s and not dead"
BY_NAME: dict[str, Workflow[Any, Any]] = {w.name: w for w in workloads.ALL}


async def line() -> str:
    """The next line of standard input."""
    return await asyncio.to_thread(sys.stdin.readline)


async def work(dsn: str, concurrency: int, lease_s: float) -> None:
    calm_garbage_collector()  # as bin/worker does
    async with Engine.connect(dsn) as engine:
        worker = engine.worker(workloads.ALL, queues={workloads.QUEUE: concurrency}, slots=concurrency, lease_s=lease_s)
        serving = asyncio.create_task(worker.run())
        await registered(dsn, serving)
        print("ready", flush=True)
        stopped = asyncio.ensure_future(asyncio.to_thread(sys.stdin.read))
        await asyncio.wait((serving, stopped), return_when=asyncio.FIRST_COMPLETED)
        worker.stop()
        await serving


async def registered(dsn: str, serving: "asyncio.Task[None]") -> None:
    """Return once this process's worker has its lease, or failed."""
    async with await AsyncConnection.connect(dsn, autocommit=True) as connection:
        while not serving.done():
            row = await (await connection.execute(REGISTERED, (f"%:{os.getpid()}",))).fetchone()
            if row is not None and row[0]:
                return
            await asyncio.sleep(0.02)


async def enqueue(engine: Engine, name: str, prefix: str, count: int, flight: int) -> str:
    """Submit with `flight` callers, each in a transaction of its own, as callers do that write rows of theirs with the enqueue."""
    numbers = iter(range(count))

    async def submit() -> None:
        for n in numbers:
            async with engine.pool.connection() as conn:
                await engine.enqueue(BY_NAME[name], n, id=f"{prefix}-{n}", queue=workloads.QUEUE, conn=conn)
            engine.hint(wake=False)

    await asyncio.gather(*(submit() for _ in range(flight)))
    return ""


async def enqueue_shared(engine: Engine, name: str, prefix: str, count: int, flight: int) -> str:
    """Submit with `flight` callers that leave the commit to the engine, which lets them share it."""
    numbers = iter(range(count))

    async def submit() -> None:
        for n in numbers:
            await engine.enqueue(BY_NAME[name], n, id=f"{prefix}-{n}", queue=workloads.QUEUE)

    await asyncio.gather(*(submit() for _ in range(flight)))
    return ""


async def backlog(engine: Engine, name: str, prefix: str, count: int, ledger: str | None) -> str:
    """Submit all in one commit; the server's clock just before it."""
    calls = [(f"{prefix}-{n}", [n if ledger is None else ledger]) for n in range(count)]
    async with engine.transaction() as conn:
        await engine.enqueue_many(BY_NAME[name], calls, queue=workloads.QUEUE, conn=conn)
        row = await (await conn.execute(CLOCK_MS)).fetchone()
    assert row is not None
    return str(row[0])


async def latency(engine: Engine, name: str, prefix: str, count: int) -> str:
    """For each submission: the server's time when it began, and milliseconds until the client had its result."""
    async with engine.pool.connection() as conn:
        before = time.time()
        row = await (await conn.execute(CLOCK_MS)).fetchone()
        assert row is not None
        ahead_ms = row[0] - (before + time.time()) / 2 * 1000
    taken: list[tuple[float, float]] = []
    for n in range(count):
        submitted_ms, began = time.time() * 1000 + ahead_ms, time.perf_counter()
        handle = await engine.enqueue(BY_NAME[name], n, id=f"{prefix}-{n}", queue=workloads.QUEUE)
        await handle.result()
        taken.append((submitted_ms, (time.perf_counter() - began) * 1000))
        await asyncio.sleep(0.02)
    return orjson.dumps(taken).decode()


async def wake(engine: Engine, prefix: str, parked: int, count: int) -> str:
    """Milliseconds from the return of each send() to the woken workflow's result."""
    taken: list[float] = []
    for n in random.Random(7).sample(range(parked), count):
        await engine.send(f"{prefix}-{n}", n, topic=workloads.GATE)
        began = time.perf_counter()
        await engine.result(f"{prefix}-{n}", timeout_s=30)
        taken.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.02)
    return orjson.dumps(taken).decode()


async def arrivals(engine: Engine, asked: argparse.Namespace) -> str:
    """Enqueue `rate` runs a second for `seconds`, each for one of the tenants, at random moments (a Poisson process)."""
    chance = random.Random(asked.seed)
    begun, at_s, made = time.monotonic(), 0.0, 0
    async with asyncio.TaskGroup() as group:
        while (at_s := at_s + chance.expovariate(asked.rate)) < asked.seconds:
            await asyncio.sleep(max(0.0, begun + at_s - time.monotonic()))
            partition = f"{asked.key}{chance.randrange(asked.tenants)}"
            group.create_task(
                engine.enqueue(
                    workloads.timed,
                    asked.step_ms,
                    id=f"{asked.prefix}-{made}",
                    queue=workloads.QUEUE,
                    partition=partition,
                    priority=asked.priority,
                )
            )
            made += 1
    return str(made)


async def warm(engine: Engine, connections: int) -> None:
    """Open that many of the pool's connections, so that none is opened while the clock runs."""

    async def hold() -> None:
        async with engine.pool.connection() as conn:
            await conn.execute("select 1")
            await together.wait()

    together = asyncio.Barrier(connections)
    await asyncio.gather(*(hold() for _ in range(connections)))


async def client(asked: argparse.Namespace) -> None:
    calm_garbage_collector()  # as bin/api does
    async with Engine.connect(asked.dsn, pool_size=asked.flight + 2) as engine:
        await warm(engine, asked.flight)
        print("ready", flush=True)
        await line()
        if asked.role == "enqueue":
            said = await enqueue(engine, asked.name, asked.prefix, asked.count, asked.flight)
        elif asked.role == "enqueue-shared":
            said = await enqueue_shared(engine, asked.name, asked.prefix, asked.count, asked.flight)
        elif asked.role == "backlog":
            said = await backlog(engine, asked.name, asked.prefix, asked.count, asked.ledger)
        elif asked.role == "latency":
            said = await latency(engine, asked.name, asked.prefix, asked.count)
        elif asked.role == "arrivals":
            said = await arrivals(engine, asked)
        else:
            said = await wake(engine, asked.prefix, asked.parked, asked.count)
        print("done", said, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["worker", "enqueue", "enqueue-shared", "backlog", "latency", "wake", "arrivals"])
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--name", default="four_steps")
    parser.add_argument("--prefix", default="w")
    parser.add_argument("--count", type=int, default=0)
    parser.add_argument("--parked", type=int, default=0)
    parser.add_argument("--flight", type=int, default=8)
    parser.add_argument("--concurrency", type=int, default=256)
    parser.add_argument("--ledger")
    parser.add_argument("--lease-s", type=float, default=holdfast.LEASE_S)
    parser.add_argument("--rate", type=float, default=100.0)
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--tenants", type=int, default=1)
    parser.add_argument("--key", default="t")
    parser.add_argument("--priority", type=int, default=0)
    parser.add_argument("--step-ms", type=int, default=20)
    parser.add_argument("--seed", type=int, default=7)
    asked = parser.parse_args()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    uvloop.run(work(asked.dsn, asked.concurrency, asked.lease_s) if asked.role == "worker" else client(asked))


if __name__ == "__main__":
    main()

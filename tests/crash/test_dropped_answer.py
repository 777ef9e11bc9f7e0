"""Connections that are lost between COMMIT and its answer, at random, many times: nothing is lost, nothing is written twice."""

import asyncio
import random
from collections import Counter
from pathlib import Path
from typing import LiteralString

import psycopg

from engine import Engine
from tests.crash import subject
from tests.crash.fleet import Job, until, workers
from tests.crash.history import GAPS, LEFTOVERS
from tests.crash.proxy import Proxy

SEED = 44
ORDERS = [f"order-{number}" for number in range(12)]
ERRANDS = [f"errand-{number}" for number in range(40)]
STEPS = 6

WAITING: LiteralString = """
select workflow_uuid, substr(waits[1], 3) from dbos.workflow_status where owner_xid is null and waits && '{t:late,t:gate}'
"""
UNENDED: LiteralString = "select workflow_uuid, status, error from dbos.workflow_status where status <> 'SUCCESS'"
FAILED: LiteralString = "select workflow_uuid, error from dbos.workflow_status where status = 'ERROR'"
DOUBLED: LiteralString = """
select workflow_id, path from ridden group by workflow_id, path having count(*) > 1
union all select workflow_id, amount::text from booked group by workflow_id, amount having count(*) > 1
union all select destination_uuid, topic from dbos.notifications group by destination_uuid, topic having count(*) > 1
union all select destination_uuid, topic from dbos.notifications where not consumed
union all select workflow_uuid, key from dbos.workflow_events_history group by workflow_uuid, key, value having count(*) > 1
"""
RIDERS: LiteralString = "select count(*) from ridden"
BOOKED: LiteralString = "select count(*), sum(amount) from booked"
TORN_STREAMS: LiteralString = """
select workflow_uuid from dbos.streams group by workflow_uuid having array_agg("offset" order by "offset") <> array[0, 1, 2]
"""


async def answer(engine: Engine) -> None:
    while True:
        async with engine.pool.connection() as conn:
            found = await (await conn.execute(WAITING)).fetchall()
        for id, topic in found:
            await engine.send(id, "yes", topic, key="answer")
        await asyncio.sleep(0.05)


async def enqueue(engine: Engine) -> None:
    for id in ORDERS:
        async with engine.transaction() as conn:
            await engine.enqueue(subject.fulfil, "tea", id=id, conn=conn)
            await engine.send(id, "milk", "early", key="early", conn=conn)
    await engine.enqueue_many(subject.errand, [(id, (STEPS, 0.02, True)) for id in ERRANDS])


async def test_a_lost_answer_to_a_commit_neither_loses_nor_doubles(engine_database: str, tmp_path: Path) -> None:
    dice = random.Random(SEED)

    def plan(application: str) -> str | None:
        """The journal's connection carries its worker's id behind the name; the others lose an answer now and then."""
        draw = dice.random()
        if " " in application:
            return "after" if draw < 0.1 else "before" if draw < 0.14 else None  # so often that a new connection comes to commit
        return "after" if draw < 0.03 else None

    proxy = Proxy(engine_database, plan)
    with psycopg.connect(engine_database, autocommit=True) as conn:
        conn.execute(subject.TABLES)
        async with Engine.connect(engine_database) as engine, proxy.running() as through:
            await enqueue(engine)
            answering = asyncio.create_task(answer(engine))
            with workers(Job(through, tmp_path, lease_s=10.0, slots=16)) as begin:
                fleet = [begin(), begin()]
                await until(
                    lambda: not conn.execute(UNENDED).fetchall() or conn.execute(FAILED).fetchall(), "all runs to end", 60
                )
                assert conn.execute(FAILED).fetchall() == []
                await until(lambda: conn.execute(LEFTOVERS).fetchall() == [], "nothing to be left over")
                assert all(worker.exit_code is None for worker in fleet)
            answering.cancel()
        print(f"\ndropped: {dict(proxy.dropped)}")
        assert proxy.dropped.total() >= 20
        assert conn.execute(GAPS).fetchall() == []
        assert conn.execute(DOUBLED).fetchall() == []
        assert conn.execute(RIDERS).fetchall() == [(STEPS * len(ERRANDS) + 7 * len(ORDERS),)]
        assert conn.execute(BOOKED).fetchall() == [(2 * len(ORDERS), 15 * len(ORDERS))]
        assert conn.execute(TORN_STREAMS).fetchall() == []
    executions = Counter((tmp_path / "ledger").read_text().split())
    assert {key: count for key, count in executions.items() if count > 1} == {}, "nobody died, so no step ran twice"

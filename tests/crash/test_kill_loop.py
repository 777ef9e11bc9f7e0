"""Workers that are killed again and again, at random, while two hundred runs with a gate each go through them."""

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

RUNS = 200
STEPS = 6
ROUNDS = 10
GAP_S = 0.7
SEED = 20

OPEN_GATES: LiteralString = """
select workflow_uuid from dbos.workflow_status where status = 'PENDING' and owner_xid is null and waits = '{t:gate}' limit %s
"""
STATUSES: LiteralString = "select status, count(*)::int from dbos.workflow_status group by status"
JOURNALS: LiteralString = """
select names, count(*)::int
  from (select array_agg(function_name order by function_id) as names from dbos.operation_outputs group by workflow_uuid) j
 group by names
"""
RIDERS: LiteralString = """
select rows, count(*)::int from (select count(*)::int as rows from ridden group by workflow_id, path) r group by rows
"""
MESSAGES: LiteralString = """
select n.consumed, o.function_name, count(*)::int
  from dbos.notifications n
  left join dbos.operation_outputs o on o.workflow_uuid = n.destination_uuid and o.function_id = n.consumed_by_function_id
 group by 1, 2
"""


async def answer_gates(engine: Engine) -> None:
    """A few at a time, so that gates open and close all through the killing."""
    while True:
        async with engine.pool.connection() as conn:
            found = await (await conn.execute(OPEN_GATES, (20,))).fetchall()
        for (id,) in found:
            await engine.send(id, "yes", "gate", key="answer")
        await asyncio.sleep(0.1)


async def test_two_hundred_runs_survive_ten_kills(engine_database: str, tmp_path: Path) -> None:
    dice = random.Random(SEED)
    with psycopg.connect(engine_database, autocommit=True) as conn:
        conn.execute(subject.TABLES)
        async with Engine.connect(engine_database) as engine:
            await engine.enqueue_many(subject.errand, [(f"run-{number}", (STEPS, 0.1, True)) for number in range(RUNS)])
            with workers(Job(engine_database, tmp_path, slots=16)) as begin:
                answering = asyncio.create_task(answer_gates(engine))
                fleet = [begin(), begin()]
                for _ in range(ROUNDS):
                    await asyncio.sleep(GAP_S * dice.uniform(0.5, 1.5))
                    victim = dice.randrange(len(fleet))
                    fleet[victim].kill()
                    fleet[victim] = begin()
                await until(lambda: conn.execute(STATUSES).fetchall() == [("SUCCESS", RUNS)], "all runs to succeed", 60)
                await until(lambda: conn.execute(LEFTOVERS).fetchall() == [], "nothing to be left over")
                answering.cancel()
                assert all(worker.exit_code is None for worker in fleet)
        assert conn.execute(GAPS).fetchall() == []
        names = ["note"] * (STEPS // 2) + ["DBOS.recv"] + ["note"] * (STEPS - STEPS // 2)
        assert conn.execute(JOURNALS).fetchall() == [(names, RUNS)]
        assert conn.execute(RIDERS).fetchall() == [(1, RUNS * STEPS)]
        assert conn.execute(MESSAGES).fetchall() == [(True, "DBOS.recv", RUNS)]
    executions = Counter((tmp_path / "ledger").read_text().split())
    assert len(executions) == RUNS * STEPS
    assert executions.total() > RUNS * STEPS, "no kill hit a step under way: the drill proved nothing"

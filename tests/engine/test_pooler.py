"""Behind a pooler in transaction mode: the engine finds it out, does everything all the same, and leaves nothing in sessions of others.

`pytest --pgbouncer tests/engine` runs all other tests of the engine through one, too.
"""

import asyncio
import subprocess
import sys
from collections.abc import Iterator

import psycopg
import pytest

from bin.settings import ROOT
from engine import Connection, Engine, gather, recv, send, set_event, sleep, step, transaction, workflow
from tests import conftest, pooler
from tests.conftest import new_database

pytestmark = pytest.mark.skipif(pooler.program() is None, reason="there is no pgbouncer here")

FILES = ("tests/engine/test_steps.py", "tests/engine/test_lost_connections.py", "tests/engine/test_transactions.py")


@pytest.fixture(scope="module")
def pooled(server: str, engine_template: str) -> Iterator[str]:
    with new_database(server, engine_template, direct=True) as dsn, pooler.pooled(dsn, sessions=3) as through:
        yield through


@step
async def double(n: int) -> int:
    return 2 * n


@transaction
async def count(conn: Connection) -> int:
    row = await (await conn.execute("select count(*)::int from dbos.operation_outputs")).fetchone()
    assert row is not None
    return int(row[0])


@workflow
async def listen() -> str:
    return str(await recv("word", timeout_s=600))


@workflow
async def everything(to: str) -> list[int]:
    doubled = await gather(*(double(n) for n in range(20)))
    await count()
    await set_event("half way", True)
    await sleep(0.05)
    await send(to, "hello", "word")
    return list(doubled)


async def test_everything_works_on_three_sessions_for_all(pooled: str) -> None:
    async with Engine.connect(pooled) as engine:
        assert not engine.own_sessions
        worker = engine.worker([everything, listen], poll_s=0.1)
        working = asyncio.create_task(worker.run())
        ids = [f"w{n}" for n in range(30)]
        await asyncio.gather(*(engine.enqueue(listen, id=f"to {id}") for id in ids))
        await asyncio.gather(*(engine.enqueue(everything, f"to {id}", id=id) for id in ids))
        for id in ids:
            assert await engine.result(id, timeout_s=60) == [2 * n for n in range(20)]
            assert await engine.result(f"to {id}", timeout_s=60) == "hello"
        worker.drain()
        await working
        assert worker.ended["lost"] == 0


async def test_sessions_are_left_as_they_were(pooled: str) -> None:
    """What one client sets or prepares in a session, others would find there."""
    async with Engine.connect(pooled) as engine:
        worker = engine.worker([everything, listen], poll_s=0.05)
        working = asyncio.create_task(worker.run())
        await engine.enqueue(listen, id="ear")
        await engine.enqueue(everything, "ear", id="tidy")
        await engine.result("ear", timeout_s=30)
        worker.drain()
        await working

    def look() -> tuple[object, ...]:
        with psycopg.connect(pooled, autocommit=True, prepare_threshold=None) as conn:
            row = conn.execute("""
                select current_setting('enable_seqscan'), current_setting('plan_cache_mode'), current_setting('jit'),
                       (select count(*) from pg_prepared_statements), (select count(*) from pg_listening_channels()),
                       pg_sleep(0.1) is null
            """).fetchone()
        assert row is not None
        return row

    found = await asyncio.gather(*(asyncio.to_thread(look) for _ in range(3)))  # each in another of the three sessions
    assert {row[:5] for row in found} == {("on", "auto", "on", 0, 0)}


async def test_a_direct_connection_is_told_from_a_pooled_one(engine_database: str, pooled: str) -> None:
    async with Engine.connect(engine_database) as direct, Engine.connect(pooled, prepare=True) as asked_for:
        assert asked_for.own_sessions  # the caller knows better
        assert direct.own_sessions or conftest.through_pooler is not None


def test_other_tests_of_the_engine_pass_through_it() -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "pytest", "-q", "-x", "--pgbouncer", *FILES], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-4000:]

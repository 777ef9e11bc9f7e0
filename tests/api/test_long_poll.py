"""Waiting for a gate: woken by the event itself, without asking the database in between, and never after the client has gone."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
import uvicorn
from psycopg.conninfo import make_conninfo
from starlette.applications import Starlette

from api.app import create_app
from api.config import Config
from api.http import Door
from api.views import GATES
from api.waiting import FINGERPRINTS, UNLISTEN, EventWaits
from engine import Engine
from steps.opencode import ReplayOpenCode
from steps.sandbox import MockSandbox
from tests.api.samples import GATE, WID, YES, Rows
from tests.steps.product import Product

POLL = f"/api/runs/{WID}/gates/{GATE}?timeoutS=30"
RESULT = {"schemaVersion": 1, "state": "RECEIVED", "payload": {"choice": "yes"}}
DECISION = {"schemaVersion": 1, "decision": "yes", "at": 2_000}
SOON_S = 10.0


async def settle(rows: Rows, *, notify: bool) -> None:
    await rows.event(f"ui:{GATE}:result", RESULT)
    await rows.event(f"decision:{GATE}", DECISION)
    if notify:
        await rows.fetch("select pg_notify('dbos_workflow_events_channel', %s)", f"{WID}::decision:{GATE}")


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(SOON_S):
        while not condition():
            await asyncio.sleep(0.005)


def door_of(app: Starlette) -> Door:
    return app.state.door


@asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[str]:
    """The app behind a real server on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="critical"))
    task = asyncio.create_task(server.serve())
    await until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        await task


@pytest.mark.parametrize("notify", [True, False], ids=["by notification", "by re-check"])
async def test_a_poll_returns_as_soon_as_the_gate_is_settled(
    client: httpx.AsyncClient, app: Starlette, rows: Rows, notify: bool
) -> None:
    await rows.waiting_gate()
    polls = [asyncio.create_task(client.get(POLL)) for _ in range(20)]
    await until(lambda: door_of(app).waits.watcher_count == 20)
    await settle(rows, notify=notify)
    async with asyncio.timeout(SOON_S):
        answers = await asyncio.gather(*polls)
    assert {answer.json()["state"] for answer in answers} == {"RESOLVED"}
    assert door_of(app).waits.watcher_count == 0


async def test_a_poll_waits_for_a_gate_that_is_not_open_yet(client: httpx.AsyncClient, app: Starlette, rows: Rows) -> None:
    await rows.run("waiting_input")
    poll = asyncio.create_task(client.get(POLL))
    await until(lambda: door_of(app).waits.watcher_count == 1)
    await rows.gate()
    await settle(rows, notify=True)
    async with asyncio.timeout(SOON_S):
        assert (await poll).json()["state"] == "RESOLVED"


async def test_a_question_is_settled_by_its_answer(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.run("waiting_input")
    await rows.gate("ask-user-0123456789abcdef")
    await rows.event("ui:ask-user-0123456789abcdef:result", RESULT)
    async with asyncio.timeout(SOON_S):
        answer = await client.get(f"/api/runs/{WID}/gates/ask-user-0123456789abcdef?timeoutS=30")
    assert answer.json()["state"] == "RECEIVED"


async def test_a_poll_without_news_returns_the_gate_at_its_deadline(client: httpx.AsyncClient, rows: Rows) -> None:
    await rows.waiting_gate()
    started = asyncio.get_running_loop().time()
    answer = await client.get(f"/api/runs/{WID}/gates/{GATE}?timeoutS=1")
    assert answer.json()["state"] == "PENDING"
    assert 0.9 < asyncio.get_running_loop().time() - started < SOON_S


async def test_waiting_clients_cost_the_database_one_connection(
    app: Starlette, client: httpx.AsyncClient, rows: Rows, database: str
) -> None:
    await rows.waiting_gate()
    async with await psycopg.AsyncConnection.connect(database, autocommit=True) as observer:

        async def connections() -> int:
            cursor = await observer.execute(
                "select count(*) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"
            )
            row = await cursor.fetchone()
            assert row is not None
            return row[0]

        await client.get(f"/api/runs/{WID}/gates/{GATE}?timeoutS=0")
        before = await connections()
        polls = [asyncio.create_task(client.get(POLL)) for _ in range(200)]
        await until(lambda: door_of(app).waits.watcher_count == 200)
        pool_size = door_of(app).engine.pool.max_size
        assert await connections() <= before + pool_size + 1
        door_of(app).waits.close()
        async with asyncio.timeout(SOON_S):
            assert {answer.status_code for answer in await asyncio.gather(*polls)} == {200}


async def many_waiting_gates(rows: Rows, count: int) -> list[str]:
    """The paths of as many open gates, each of a run of its own."""
    wids = [f"wid-{number}" for number in range(count)]
    for wid in wids:
        await rows.run("waiting_input", workflow_id=wid)
        await rows.gate(workflow_id=wid)
    return [f"/api/runs/{wid}/gates/{GATE}?timeoutS=30" for wid in wids]


async def read_to_the_end(statements: Counter[Any]) -> None:
    """Until whoever the first look woke has read, and nobody reads any more."""
    reads = -1
    while reads != statements[GATES]:
        reads, looks = statements[GATES], statements[FINGERPRINTS]
        await until(lambda looks=looks: statements[FINGERPRINTS] > looks + 3)


async def test_while_they_wait_two_hundred_clients_cost_one_statement_a_look(
    app: Starlette, client: httpx.AsyncClient, rows: Rows, statements: Counter[Any]
) -> None:
    paths = await many_waiting_gates(rows, 100)
    waits = door_of(app).waits
    waits._recheck_s = 0.05
    statements.clear()
    polls = [asyncio.create_task(client.get(path)) for path in paths * 2]
    await until(lambda: waits.watcher_count == 200)
    await until(lambda: all(watched.fingerprint is not None for watched in waits._watched.values()))
    await read_to_the_end(statements)
    assert statements.total() - statements[FINGERPRINTS] < 200 * 5

    statements.clear()
    await until(lambda: statements[FINGERPRINTS] == 5)
    assert statements == {FINGERPRINTS: 5}

    statements.clear()
    await rows.fetch(
        """insert into dbos.workflow_events (workflow_uuid, key, value, serialization)
           select s.workflow_uuid, e.key, e.value, 'portable_json'
             from dbos.workflow_status s, unnest(%s::text[], %s::text[]) as e (key, value)""",
        [f"ui:{GATE}:result", f"decision:{GATE}"],
        ['{"schemaVersion": 1, "state": "RECEIVED"}', '{"schemaVersion": 1, "decision": "yes", "at": 1}'],
    )
    async with asyncio.timeout(SOON_S):
        answers = await asyncio.gather(*polls)
    assert {answer.json()["state"] for answer in answers} == {"RESOLVED"}
    assert statements[GATES] == 200


async def test_an_answer_wakes_two_hundred_clients_at_once(
    app: Starlette, client: httpx.AsyncClient, rows: Rows, engine: Engine, tmp_path: Path
) -> None:
    door_of(app).waits._recheck_s = 60.0  # only the news itself can wake them
    product = Product(engine, tmp_path, ReplayOpenCode(), MockSandbox())
    await product.start_worker()
    try:
        wid = await product.start()
        gate = await product.prompt(wid)
        polls = [asyncio.create_task(client.get(f"/api/runs/{wid}/gates/{gate}?timeoutS=30")) for _ in range(200)]
        await until(lambda: door_of(app).waits.watcher_count == 200)
        assert (await client.post(f"/api/runs/{wid}/gates/{gate}/reply", json=YES)).status_code == 200
        async with asyncio.timeout(SOON_S):
            answers = await asyncio.gather(*polls)
        assert {answer.json()["state"] for answer in answers} == {"RESOLVED"}
    finally:
        await product.stop_worker()


async def test_a_client_that_hangs_up_is_forgotten(app: Starlette, rows: Rows) -> None:
    await rows.waiting_gate()
    async with served(app) as base:
        async with httpx.AsyncClient(base_url=base) as client:
            poll = asyncio.create_task(client.get(POLL, timeout=60))
            await until(lambda: door_of(app).waits.watcher_count == 1)
            poll.cancel()
            await until(lambda: door_of(app).waits.watcher_count == 0)


async def test_a_server_that_stops_answers_its_polls_at_once(engine: Engine, database: str, rows: Rows) -> None:
    await rows.waiting_gate()
    draining = asyncio.Event()
    app = create_app(engine, Config(database_url=database), draining=draining)
    async with served(app) as base, httpx.AsyncClient(base_url=base) as client:
        poll = asyncio.create_task(client.get(POLL, timeout=60))
        await until(lambda: door_of(app).waits.watcher_count == 1)
        draining.set()
        async with asyncio.timeout(SOON_S):
            assert (await poll).json()["state"] == "PENDING"
            assert (await client.get(POLL)).json()["state"] == "PENDING"


async def test_polls_survive_the_loss_of_the_listening_connection(engine: Engine, database: str, rows: Rows) -> None:
    await rows.waiting_gate()
    app = create_app(engine, Config(database_url=database))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://front-door") as client,
    ):
        poll = asyncio.create_task(client.get(POLL))
        await until(lambda: door_of(app).waits.watcher_count == 1)
        killed = 0
        async with asyncio.timeout(SOON_S):
            while not killed:
                killed = len(
                    await rows.fetch(
                        """select pg_terminate_backend(pid) from pg_stat_activity
                            where datname = current_database() and query = 'listen dbos_workflow_events_channel'
                               or datname = current_database() and query like '%%hashtext%%' and pid <> pg_backend_pid()"""
                    )
                )
        await settle(rows, notify=True)
        async with asyncio.timeout(SOON_S):
            assert (await poll).json()["state"] == "RESOLVED"


async def test_nothing_listens_while_nobody_waits(database: str, rows: Rows) -> None:
    waits = EventWaits(make_conninfo(database, application_name="waits"), recheck_s=0.01)
    last_words = "select query from pg_stat_activity where datname = current_database() and application_name = 'waits'"
    async with waits.running():
        assert await rows.fetch(last_words) == []
        async with waits.watch(WID) as changed:
            await changed.wait()
        async with asyncio.timeout(SOON_S):
            while await rows.fetch(last_words) != [(UNLISTEN,)]:
                await asyncio.sleep(0.01)

"""The front door over a fresh database, spoken to through ASGI: no port, no server."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from starlette.applications import Starlette

from api.app import create_app
from api.config import Config
from bin.database import connect
from engine import Engine
from steps.opencode import ReplayOpenCode
from steps.recipes import import_bundle
from steps.sandbox import MockSandbox
from steps.worker import QUEUES, Limits, Ports, configure, workflows
from tests.api.samples import BUNDLE, Rows

# What is append-only refuses to be emptied, but for a replica.
WIPE = """
    set session_replication_role = replica;
    delete from app.api_tokens;
    truncate app.intents, app.marks, app.workflow_runs, app.recipes, app.recipe_versions, app.recipe_fixtures, app.promotions,
             app.improvements, app.queue_actions, app.patch_history, dbos.workflow_status, dbos.operation_outputs, dbos.queues, engine.wake,
             engine.wait, engine.worker, engine.queue, engine.queue_partition, engine.nudge, engine.clock cascade;
    reset session_replication_role
"""


@pytest.fixture
def database(shared_database: str) -> str:
    """The module's database, emptied: cheaper than a fresh one for each of many small requests."""
    with connect(shared_database, autocommit=True) as conn:
        conn.execute(WIPE)
    return shared_database


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Engine]:
    async with Engine.connect(database) as engine:
        yield engine


@pytest.fixture
async def app(engine: Engine, database: str) -> AsyncIterator[Starlette]:
    app = create_app(engine, Config(database_url=database, app_version="test", crashdemo_sleep_ms=50))
    async with app.router.lifespan_context(app):
        yield app


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://front-door") as client:
        yield client


@pytest.fixture
async def rows(engine: Engine) -> Rows:
    """The database seen and changed directly, with the sample recipe in it."""
    async with engine.transaction() as conn:
        await import_bundle(conn, BUNDLE)
    return Rows(engine)


@pytest.fixture
async def _worker(engine: Engine, tmp_path: Path) -> AsyncIterator[None]:
    """The product's worker beside the front door."""
    configure(Ports(engine.pool, ReplayOpenCode(), MockSandbox(), tmp_path, Limits(plan_approval_timeout_s=600)))
    worker = engine.worker(workflows(), queues=QUEUES, version="test")
    working = asyncio.create_task(worker.run())
    yield
    worker.stop()
    await working


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> Counter[Any]:
    """Every statement of this process, worker and front door together, counted by its text."""
    counted: Counter[Any] = Counter()
    execute = psycopg.AsyncCursor.execute

    async def counting(cursor: Any, query: Any, *args: Any, **kwargs: Any) -> Any:
        counted[query] += 1
        return await execute(cursor, query, *args, **kwargs)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", counting)
    return counted

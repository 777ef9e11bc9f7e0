"""The product at work on a fresh database, for tests: one worker in this process, and what a test says to it and sees of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, LiteralString

from psycopg.rows import dict_row
from psycopg.types.json import Jsonb

from engine import Engine, Worker, WorkflowFailed
from steps import identity
from steps.opencode import OpenCode, ReplayOpenCode
from steps.sandbox import MockSandbox, Sandbox
from steps.worker import QUEUES, Limits, Ports, configure, workflows

WAIT_S = 20.0

INSERT_INTENT: LiteralString = "insert into app.intents (id, goal, payload) values (%s, %s, %s)"
INSERT_RUN: LiteralString = """
    insert into app.runs (id, intent_id, workflow_id, status, queue_partition_key, budget)
    values (%s, %s, %s, 'queued', 'tenant-1', %s)
"""


class Product:
    """A worker, and the runs that a test starts on it."""

    def __init__(
        self, engine: Engine, workspace: Path, opencode: OpenCode, sandbox: Sandbox, *, version: str | None = None
    ) -> None:
        self.engine = engine
        self.workspace = workspace
        self.ports = Ports(engine.pool, opencode, sandbox, workspace, Limits(plan_approval_timeout_s=600))
        self._version = version
        self._worker: Worker | None = None
        self._working: asyncio.Task[None] | None = None

    async def start_worker(self) -> None:
        configure(self.ports)
        self._worker = self.engine.worker(workflows(), queues=QUEUES, version=self._version, poll_s=0.05)
        self._working = asyncio.create_task(self._worker.run())

    async def stop_worker(self) -> None:
        if self._worker is not None and self._working is not None:
            self._worker.stop()
            await self._working
            self._worker = self._working = None

    async def start(
        self,
        goal: str = "alpha",
        constraints: dict[str, Any] | None = None,
        budget: dict[str, Any] | None = None,
    ) -> str:
        """Start a run; its workflow id."""
        intent = {"goal": goal, "inputs": {}, "constraints": constraints or {}}
        wid = identity.workflow_id(identity.intent_hash(intent))
        async with self.engine.transaction() as conn:
            await conn.execute(INSERT_INTENT, (wid, goal, Jsonb(intent)))
            await conn.execute(INSERT_RUN, (identity.run_id(wid), wid, wid, None if budget is None else Jsonb(budget)))
            await self.engine.enqueue(
                "RunIntent",
                wid,
                id=wid,
                class_name="IntentWorkflow",
                queue="intentQ",
                partition="tenant-1",
                priority=1,
                conn=conn,
            )
        return wid

    async def prompt(self, wid: str, purpose: str = "approve-plan", step_id: str = "ApplyPatchST", attempt: int = 1) -> str:
        """Wait for a gate's prompt; the gate's key."""
        key = identity.gate_key(identity.run_id(wid), step_id, purpose, attempt)
        prompt = await self.engine.get_event(wid, identity.prompt_event(key), timeout_s=WAIT_S)
        assert prompt is not None, f"gate {purpose} did not open"
        return key

    async def reply(self, wid: str, gate_key: str, **payload: Any) -> None:
        await self.engine.send(wid, payload, topic=identity.human_topic(gate_key))

    async def approve(self, wid: str) -> None:
        await self.reply(wid, await self.prompt(wid), choice="yes")

    async def result(self, wid: str) -> Any:
        return await self.engine.result(wid, timeout_s=WAIT_S)

    async def failure(self, wid: str) -> WorkflowFailed:
        try:
            done = await self.result(wid)
        except WorkflowFailed as failed:
            return failed
        raise AssertionError(f"the run succeeded: {done}")

    async def rows(self, query: LiteralString, *values: Any) -> list[dict[str, Any]]:
        async with self.engine.pool.connection() as conn, conn.cursor(row_factory=dict_row) as cursor:
            return await (await cursor.execute(query, values)).fetchall()

    async def run(self, wid: str) -> dict[str, Any]:
        (row,) = await self.rows("select * from app.runs where workflow_id = %s", wid)
        return row

    async def steps(self, wid: str) -> dict[str, dict[str, Any]]:
        """The latest row of each step."""
        found = await self.rows("select * from app.run_steps where run_id = %s order by attempt", identity.run_id(wid))
        return {row["step_id"]: row for row in found}

    async def artifacts(self, wid: str, step_id: str) -> list[dict[str, Any]]:
        return await self.rows(
            "select * from app.artifacts where run_id = %s and step_id = %s order by task_key, idx",
            identity.run_id(wid),
            step_id,
        )

    async def patches(self, wid: str) -> list[dict[str, Any]]:
        return await self.rows("select * from app.patch_history where run_id = %s order by patch_index", identity.run_id(wid))

    async def events(self, wid: str) -> dict[str, Any]:
        return await self.engine.events(wid)


@asynccontextmanager
async def product(
    dsn: str, workspace: Path, *, opencode: OpenCode | None = None, sandbox: Sandbox | None = None
) -> AsyncIterator[Product]:
    """A product with its worker running."""
    async with Engine.connect(dsn) as engine:
        one = Product(engine, workspace, opencode or ReplayOpenCode(), sandbox or MockSandbox())
        await one.start_worker()
        try:
            yield one
        finally:
            await one.stop_worker()


def replay(**parts: Any) -> dict[str, Any]:
    """Constraints that set what a replayed plan or build says."""
    return {"testHooks": {"replay": parts}}


def patch(path: str, content: str) -> dict[str, str]:
    return {"targetPath": path, "postimageContent": content, "diffText": f"+{content}"}

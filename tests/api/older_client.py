"""A client of the older routes, as older scripts are: posts, and looks again until a run is where it should be."""

import asyncio
from types import ModuleType
from typing import Any

import httpx
import pytest

from tests.api.samples import Rows

WAIT_S = 20.0

#: A start by name is held to one of these.
RECIPES = """
    insert into app.recipes (id, name, version, queue_name, max_concurrency, max_steps, max_sandbox_minutes)
    values ('compile', 'compile-default', 1, 'intentQ', 10, 32, 15), ('sandbox', 'sandbox-default', 1, 'intentQ', 20, 128, 60)
"""


class OlderClient:
    """One who starts runs by intents and never names a gate."""

    def __init__(self, http: httpx.AsyncClient, rows: Rows) -> None:
        self.http = http
        self.rows = rows

    async def intent(self, goal: str = "demo", constraints: dict[str, Any] | None = None) -> str:
        body = {"goal": goal, "inputs": {}, "constraints": constraints or {}}
        return (await self.http.post("/intents", json=body)).json()["intentId"]

    async def run(self, intent_id: str, **options: Any) -> httpx.Response:
        return await self.http.post(f"/intents/{intent_id}/run", json=options)

    async def start(self, goal: str = "demo", constraints: dict[str, Any] | None = None, **options: Any) -> str:
        """Start a run of a fresh intent; its run id."""
        response = await self.run(await self.intent(goal, constraints), **options)
        assert response.status_code == 202, response.text
        return response.json()["runId"]

    async def view(self, id: str) -> dict[str, Any]:
        return (await self.http.get(f"/runs/{id}")).json()

    async def until(self, id: str, status: str, *, retries: int = 0) -> dict[str, Any]:
        """The run, once it has this status in this try."""
        seen: dict[str, Any] = {}
        try:
            async with asyncio.timeout(WAIT_S):
                while (seen.get("status"), seen.get("retryCount")) != (status, retries):
                    await asyncio.sleep(0.01)
                    seen = await self.view(id)
        except TimeoutError:
            raise AssertionError(f"{id} is not {status} but {seen.get('status')} ({seen.get('error')})") from None
        return seen

    async def approve(self, id: str, by: str = "po") -> httpx.Response:
        return await self.http.post(f"/runs/{id}/approve-plan", json={"approvedBy": by})

    async def send(self, id: str, type: str = "input", **payload: Any) -> httpx.Response:
        return await self.http.post(f"/runs/{id}/events", json={"type": type, "payload": payload})

    async def retry(self, id: str) -> httpx.Response:
        return await self.http.post(f"/runs/{id}/retry")

    async def approved(self, id: str, *, retries: int = 0) -> None:
        """Wait for the plan's gate, and approve it."""
        await self.until(id, "waiting_input", retries=retries)
        response = await self.approve(id)
        assert response.status_code == 202, response.text

    async def gate_is_open(self, id: str, key: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while (await self.http.get(f"/api/runs/{id}/gates/{key}?timeoutS=0")).status_code != 200:
                await asyncio.sleep(0.01)

    async def steps(self, id: str) -> list[tuple[str, int]]:
        """Every row of a step that the run ever wrote: its name, and in which attempt."""
        found = await self.rows.fetch(
            "select step_id, attempt from app.run_steps where run_id = %s order by finished_at, attempt", id
        )
        return [(step, attempt) for step, attempt in found]


class Hold:
    """Stops whoever calls a function of a module, until it is told to go on."""

    def __init__(self, patch: pytest.MonkeyPatch, module: ModuleType, name: str) -> None:
        self.reached = asyncio.Event()
        self.released = asyncio.Event()
        self._called = getattr(module, name)
        patch.setattr(module, name, self._call)

    async def _call(self, *args: Any, **kwargs: Any) -> Any:
        self.reached.set()
        await self.released.wait()
        return await self._called(*args, **kwargs)

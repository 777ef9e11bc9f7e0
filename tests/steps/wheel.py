"""A recipe that breaks, and the flywheel turning on it, for tests."""

import asyncio
import copy
from typing import Any, LiteralString

from steps import identity, improvements, ingress, recipes
from steps.contracts.base import parse
from steps.contracts.improvement import ImprovementView, ImproveRequest
from steps.contracts.intent import RunStartRequest
from steps.contracts.recipe import RecipeBundle
from steps.policy import QueueRules
from tests.steps.product import WAIT_S, Product

BREAKS = {"testHooks": {"replay": {"build": {"test_command": "FAIL_ME"}}}}
FORM = {"name": "Ada"}
RECIPE: dict[str, Any] = {
    "id": "wheel",
    "v": "1.0.0",
    "name": "Greet",
    "tags": [],
    "formSchema": {"type": "object", "properties": {"name": {"type": "string", "default": "world"}}},
    "intentTmpl": {"goal": "Greet {{formData.name}}", "inputs": {"name": "{{formData.name}}"}, "constraints": BREAKS},
    "wfEntry": "Runner.runIntent",
    "queue": "intentQ",
    "limits": {"maxSteps": 10, "maxFanout": 2, "maxSbxMin": 5, "maxTokens": 1024},
    "eval": [{"id": "leaves-files", "kind": "file_exists", "glob": "**/*"}],
    "fixtures": [{"id": "plain", "formData": {}}],
    "prompts": {"compile": "Plan it.", "postmortem": "Say why it failed."},
}
ASKED = ImproveRequest(actor="ada", reason="it fails every time")


def recipe(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(RECIPE) | changes


class Wheel:
    """What tests say to the flywheel and see of it."""

    def __init__(self, product: Product) -> None:
        self.product = product
        self.engine = product.engine

    async def store(self, document: dict[str, Any]) -> None:
        bundle = parse(RecipeBundle, {"id": document["id"], "versions": [document]})
        async with self.engine.transaction() as conn:
            await recipes.import_bundle(conn, bundle)

    async def start(self, v: str = "1.0.0", form: dict[str, Any] = FORM, **options: Any) -> str:
        """A run of the recipe; its workflow id."""
        opts = {"queuePartitionKey": "tenant-1"} | options
        asked = parse(RunStartRequest, {"recipeRef": {"id": "wheel", "v": v}, "formData": form, "opts": opts})
        return (await ingress.start_run(self.engine, asked, QueueRules())).run.workflow_id

    async def fail(self, v: str = "1.0.0", form: dict[str, Any] = FORM) -> str:
        """A run that has failed; its workflow id."""
        wid = await self.start(v, form)
        await self.product.approve(wid)
        await self.product.failure(wid)
        return wid

    async def broken(self, **changes: Any) -> str:
        await self.store(recipe(**changes))
        return await self.fail()

    async def improve(self, wid: str, request: ImproveRequest = ASKED) -> ImprovementView:
        return await improvements.begin(self.engine, wid, request)

    async def gate(self, improvement_id: str) -> str:
        return await self.product.prompt(improvement_id, "improve-recipe")

    async def answer(self, improvement_id: str, choice: str) -> None:
        await self.product.reply(
            improvement_id, await self.gate(improvement_id), choice=choice, actor="ben", rationale="I looked"
        )

    async def ended(self, improvement_id: str) -> ImprovementView:
        """The improvement's row once it has ended."""
        deadline = asyncio.get_running_loop().time() + WAIT_S
        while (found := await self.row(improvement_id)) is None or found.status == "under_way":
            assert asyncio.get_running_loop().time() < deadline, f"{improvement_id} goes on: {found}"
            await asyncio.sleep(0.02)
        return found

    async def row(self, improvement_id: str) -> ImprovementView | None:
        async with self.engine.pool.connection() as conn:
            found = await improvements.list_improvements(conn, improvement_id)
        return found[0] if found else None

    async def recipes(self) -> list[dict[str, Any]]:
        """Everything that is stored of recipes."""
        stored: LiteralString = """
            select to_jsonb(one) as stored from app.recipe_versions one union all select to_jsonb(two) from app.recipe_fixtures two
            union all select to_jsonb(three) from app.recipes three order by stored
        """
        return await self.product.rows(stored)

    async def steps(self, improvement_id: str) -> list[str]:
        rows = await self.product.rows(
            "select step_id from app.run_steps where run_id = %s order by finished_at", identity.run_id(improvement_id)
        )
        return [row["step_id"] for row in rows]

"""Kill the worker at every write of a promotion and of its fixtures: one outcome, no run twice, no file left behind."""

import asyncio
from pathlib import Path

from engine import Engine
from steps.contracts.base import parse
from steps.contracts.intent import RecipeRef
from steps.contracts.recipe import RecipeBundle
from steps.identity import fixture_workflow_id, promotion_id
from steps.promotion import begin, set_candidate
from steps.recipes import import_bundle
from tests.crash.drill import AT_ONCE, Drill, Outcome, judge, perform, stages
from tests.steps.product import patch, replay
from tests.steps.samples import SPEC

REF = RecipeRef(id="spec09.demo", v="1.0.0")
RECIPE = SPEC | {
    "intentTmpl": {
        "goal": "{{formData.goal}}",
        "inputs": {},
        "constraints": replay(plan={"patchPlan": [patch("menu.txt", "tea")]}),
    },
    "eval": [{"id": "files", "kind": "file_exists", "glob": "**/*"}],
}
WID = promotion_id(REF.id, REF.v, 1)
FIXTURE = fixture_workflow_id(REF.id, REF.v, "fx1")


async def start(engine: Engine) -> None:
    async with engine.transaction() as conn:
        await import_bundle(conn, parse(RecipeBundle, {"id": "b", "versions": [RECIPE]}))
        await set_candidate(conn, REF, actor="ann", reason="ready")
    await begin(engine, REF, actor="ann", reason="good")


async def nobody(engine: Engine) -> None:
    """Fixtures need nobody."""


PROMOTED = Drill("product", WID, "app", start, nobody)


async def test_a_worker_may_die_at_every_write_of_a_promotion(server: str, template: str, tmp_path: Path) -> None:
    reference = await performed(server, template, tmp_path / "reference", None)
    assert reference.found["promotions"] != []
    passed = dict.fromkeys((tmp_path / "reference" / "trace").read_text().splitlines())
    points = [point for point in passed if point.split()[0] in ("before", "after") and point.split()[1] in (".", FIXTURE)]
    waiting = iter(enumerate(points))
    outcomes: list[Outcome] = []

    async def work() -> None:
        for number, point in waiting:
            outcomes.append(await performed(server, template, tmp_path / str(number), point))

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(work())
    judge(reference, outcomes)
    assert list(tmp_path.glob("*/workspace/*")) == []


async def performed(server: str, template: str, folder: Path, point: str | None) -> Outcome:
    """In a database of its own, since a stable version can't be taken away again."""
    with stages(server, template, count=1) as (stage,):
        return await perform(PROMOTED, stage.dsn, folder, point)

"""A recipe that fails gets better, through a gate and its fixtures, and the form that failed succeeds. Without a yes nothing changes."""

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from steps import identity, ops
from steps.contracts.base import JsonObject
from steps.contracts.improvement import ImproveRequest
from steps.contracts.ops import CancelWorkflowRequest, ForkWorkflowRequest, ResumeWorkflowRequest
from steps.contracts.plan import OCOutput
from steps.errors import Conflict, NotFound
from steps.opencode import AgentRequest, produced
from steps.replaying import replay_pack
from steps.repro import pack_bytes, repro_pack, snapshot
from steps.retry import retry_run
from tests.steps.product import WAIT_S, product
from tests.steps.wheel import BREAKS, FORM, RECIPE, Wheel, recipe


class ScriptedOpenCode:
    """Answers the question for a patch as the test says, everything else as a replay does."""

    def __init__(self) -> None:
        self.patch: JsonObject | None = None

    async def ask(self, request: AgentRequest) -> OCOutput:
        reply = produced(request)
        if request.step_id != "PatchGenST" or self.patch is None:
            return reply
        return reply.model_copy(update={"structured": self.patch})


@pytest.fixture
def agent() -> ScriptedOpenCode:
    return ScriptedOpenCode()


@pytest.fixture
async def wheel(database: str, tmp_path: Path, agent: ScriptedOpenCode) -> AsyncIterator[Wheel]:
    async with product(database, tmp_path, opencode=agent) as one:
        yield Wheel(one)


def mended_by(*operations: JsonObject, **changes: Any) -> JsonObject:
    """The recipe with a rehearsed mend."""
    replay = BREAKS["testHooks"]["replay"] | {"mend": list(operations)}
    template = RECIPE["intentTmpl"] | {"constraints": {"testHooks": {"replay": replay}}}
    return recipe(intentTmpl=template, **changes)


CANCEL = CancelWorkflowRequest(actor="op", reason="not now")
RESUME = ResumeWorkflowRequest(actor="op", reason="now")
COMMAND = "/intentTmpl/constraints/testHooks/replay/build/test_command"

# -- yes --------------------------------------------------------------------------------------------------------------------


async def test_a_yes_makes_a_version_under_which_the_form_that_failed_succeeds(wheel: Wheel) -> None:
    failed = await wheel.broken()
    asked = await wheel.improve(failed)
    await wheel.answer(asked.workflowID, "yes")
    done = await wheel.ended(asked.workflowID)
    assert (done.status, done.toV, done.toStatus, done.error) == ("published", "1.0.1", "stable", None)
    rerun = done.rerunWorkflowID
    assert rerun is not None and rerun != failed
    await wheel.product.approve(rerun)
    assert (await wheel.product.result(rerun))["status"] == "succeeded"
    assert await wheel.steps(asked.workflowID) == ["PostmortemST", "PatchGenST", "ApplyPatchST", "FixturesST", "PublishST"]
    assert (await wheel.product.run(asked.workflowID))["status"] == "succeeded"


async def test_the_chain_from_the_failure_to_the_rerun_stands_in_one_row(wheel: Wheel) -> None:
    failed = await wheel.broken()
    asked = await wheel.improve(failed)
    await wheel.answer(asked.workflowID, "yes")
    done = await wheel.ended(asked.workflowID)
    (row,) = await wheel.product.rows("select * from app.v_recipe_flywheel")
    assert [row[key] for key in ("failed_workflow_id", "from_v", "to_v", "to_status")] == [failed, "1.0.0", "1.0.1", "stable"]
    assert row["failure"] == "SBX execution failed [CMD_NONZERO]"
    (found,) = await wheel.product.rows("select inline from app.artifacts where uri = %s", row["postmortem"])
    assert found["inline"]["json"]["cause"] == "CMD_NONZERO"
    (promoted,) = await wheel.product.rows("select * from app.promotions where workflow_id = %s", row["promotion_workflow_id"])
    assert (promoted["v"], promoted["status"], promoted["actor"]) == ("1.0.1", "promoted", "ada")
    (fixtures,) = await wheel.product.rows("select json -> 'fixtures' as f from app.recipe_versions where v = '1.0.1'")
    assert [fixture["formData"] for fixture in fixtures["f"]] == [{}, FORM]
    (active,) = await wheel.product.rows("select active_v from app.recipes where id = 'wheel'")
    assert active["active_v"] == "1.0.1"
    (form,) = await wheel.product.rows("select form, recipe_v from app.intents where id = %s", row["rerun_workflow_id"])
    assert (form["form"], form["recipe_v"]) == (FORM, "1.0.1")
    assert done.rerunWorkflowID == row["rerun_workflow_id"]


async def test_the_gate_shows_what_is_to_be_changed_and_why(wheel: Wheel) -> None:
    asked = await wheel.improve(await wheel.broken())
    key = await wheel.gate(asked.workflowID)
    hints = (await wheel.product.events(asked.workflowID))[identity.prompt_event(key)]["uiHints"]
    assert [hints[name] for name in ("recipe", "fromV", "toV", "cause")] == ["wheel", "1.0.0", "1.0.1", "CMD_NONZERO"]
    assert '-            "test_command": "FAIL_ME"\n' in hints["diff"]
    assert "FAIL_ME" in hints["summary"] or "CMD_NONZERO" in hints["summary"]
    stored = await wheel.product.rows("select inline from app.artifacts where uri = any (%s)", hints["artifacts"])
    assert {"text": hints["diff"]} in [row["inline"] for row in stored]


async def test_the_rerun_is_started_as_the_failed_run_was(wheel: Wheel) -> None:
    await wheel.store(recipe())
    budget = {"maxFanout": 2, "maxSBXMinutes": 3, "maxArtifactsMB": 4, "maxRetriesPerStep": 1, "maxWallClockMS": 900_000}
    failed = await wheel.start(tenantId="t-7", traceId="trace-7", budget=budget, lane="batch", timeoutMS=600_000)
    await wheel.product.approve(failed)
    await wheel.product.failure(failed)
    asked = await wheel.improve(failed)
    await wheel.answer(asked.workflowID, "yes")
    rerun = (await wheel.ended(asked.workflowID)).rerunWorkflowID
    assert rerun is not None
    kept = ("tenant_id", "trace_id", "queue_partition_key", "budget")
    old, new = await wheel.product.run(failed), await wheel.product.run(rerun)
    assert [new[key] for key in kept] == [old[key] for key in kept]
    (engines,) = await wheel.product.rows(
        "select priority, workflow_timeout_ms from dbos.workflow_status where workflow_uuid = %s", rerun
    )
    assert engines == {"priority": 1000, "workflow_timeout_ms": 600_000}


async def test_a_red_check_is_reason_enough(wheel: Wheel) -> None:
    check = {"id": "says-done", "kind": "regex", "artifact": "stdout.log", "re": "done"}
    mend = {"testHooks": {"replay": {"mend": [{"op": "remove", "path": "/eval/1"}]}}}
    await wheel.store(recipe(eval=[*RECIPE["eval"], check], intentTmpl=RECIPE["intentTmpl"] | {"constraints": mend}))
    wid = await wheel.start()
    await wheel.product.approve(wid)
    await wheel.product.result(wid)
    asked = await wheel.improve(wid)
    await wheel.answer(asked.workflowID, "yes")
    done = await wheel.ended(asked.workflowID)
    assert (done.status, done.failure) == ("published", "a check of what it left is red")
    assert done.rerunWorkflowID not in (None, wid)  # though the intent differs in nothing but its version


async def test_a_limit_that_was_too_low_is_raised(wheel: Wheel) -> None:
    many = {"testHooks": {"replay": {"build": {"tests": ["a", "b", "c"], "test_command": "try"}}}}
    failed = await wheel.broken(intentTmpl=RECIPE["intentTmpl"] | {"constraints": many})
    asked = await wheel.improve(failed)
    await wheel.answer(asked.workflowID, "yes")
    done = await wheel.ended(asked.workflowID)
    assert (done.status, done.failure) == ("published", "budget:maxFanout: observed 3 > limit 2 (runtime)")
    assert done.rerunWorkflowID not in (None, failed)
    await wheel.product.approve(str(done.rerunWorkflowID))
    assert (await wheel.product.result(str(done.rerunWorkflowID)))["status"] == "succeeded"


async def test_a_version_may_be_given_a_name(wheel: Wheel) -> None:
    failed = await wheel.broken()
    with pytest.raises(Conflict, match=r"wheel@1\.0\.0 exists already"):
        await wheel.improve(failed, ImproveRequest(actor="ada", reason="r", version="1.0.0"))
    asked = await wheel.improve(failed, ImproveRequest(actor="ada", reason="r", version="2.0.0"))
    await wheel.answer(asked.workflowID, "yes")
    assert (await wheel.ended(asked.workflowID)).toV == "2.0.0"


# -- no ---------------------------------------------------------------------------------------------------------------------


async def test_a_no_leaves_everything_about_recipes_as_it_was(wheel: Wheel) -> None:
    failed = await wheel.broken()
    before = await wheel.recipes()
    asked = await wheel.improve(failed)
    await wheel.answer(asked.workflowID, "no")
    done = await wheel.ended(asked.workflowID)
    assert (done.status, done.toV, done.error) == ("rejected", None, "Improvement rejected: no (rationale: I looked)")
    assert await wheel.recipes() == before
    assert (await wheel.product.run(asked.workflowID))["status"] == "retries_exceeded"


async def test_so_does_nobodys_answer(wheel: Wheel) -> None:
    ports = wheel.product.ports
    await wheel.product.stop_worker()
    wheel.product.ports = dataclasses.replace(ports, limits=dataclasses.replace(ports.limits, plan_approval_timeout_s=1))
    await wheel.product.start_worker()
    failed = await wheel.broken()
    before = await wheel.recipes()
    done = await wheel.ended((await wheel.improve(failed)).workflowID)
    assert (done.status, done.error) == ("rejected", "Improvement rejected: no (rationale: timeout)")
    assert await wheel.recipes() == before


@pytest.mark.parametrize(
    ("operations", "sentence"),
    [
        ([{"op": "replace", "path": "/id", "value": "other"}], "/id is out of reach"),
        ([{"op": "replace", "path": "/queue", "value": "sbxQ"}], "/queue is out of reach"),
        ([{"op": "replace", "path": "/limits/maxSteps", "value": 0}], "maxSteps"),
        ([{"op": "replace", "path": "/name", "value": "Greet"}], "changes nothing"),
        ([{"op": "remove", "path": "/nowhere"}], "out of reach"),
        ([{"op": "twist", "path": "/name", "value": "x"}], "structured output"),
        ([], "no patch was drafted"),
    ],
)
async def test_a_bad_patch_ends_it_with_a_sentence_and_stores_nothing(
    wheel: Wheel, agent: ScriptedOpenCode, operations: list[JsonObject], sentence: str
) -> None:
    failed = await wheel.broken()
    before = await wheel.recipes()
    agent.patch = {"summary": "an idea", "operations": operations}
    done = await wheel.ended((await wheel.improve(failed)).workflowID)
    assert done.status == "failed" and done.error is not None and sentence in done.error
    assert await wheel.recipes() == before


async def test_a_version_whose_fixtures_fail_stays_a_candidate_and_nothing_is_run_again(wheel: Wheel) -> None:
    await wheel.store(mended_by({"op": "replace", "path": COMMAND, "value": "FAIL_ME again"}))
    asked = await wheel.improve(await wheel.fail())
    await wheel.answer(asked.workflowID, "yes")
    done = await wheel.ended(asked.workflowID)
    assert (done.status, done.toStatus, done.rerunWorkflowID) == ("failed", "candidate", None)
    assert done.error is not None and done.error.startswith("wheel@1.0.1 stays a candidate: fixture ")
    assert await wheel.product.rows("select 1 from app.recipes where id = 'wheel'") == []


# -- once -------------------------------------------------------------------------------------------------------------------


async def test_a_failed_run_has_one_improvement_under_way(wheel: Wheel) -> None:
    failed = await wheel.broken()
    found = await asyncio.gather(*(wheel.improve(failed) for _ in range(5)))
    assert {one.workflowID for one in found} == {f"improve:{failed}:1"}
    assert await wheel.improve(identity.run_id(failed)) == await wheel.row(f"improve:{failed}:1")


async def test_a_version_has_one_improvement_under_way_whichever_run_failed(wheel: Wheel) -> None:
    first = await wheel.broken()
    second = await wheel.fail(form={"name": "Ben"})
    asked = await wheel.improve(first)
    with pytest.raises(Conflict, match=f"improved already, after run {first}; wait for {asked.workflowID}"):
        await wheel.improve(second)
    await wheel.answer(asked.workflowID, "no")
    await wheel.ended(asked.workflowID)
    assert (await wheel.improve(second)).status == "under_way"


async def test_a_cancelled_improvement_makes_room_for_another_and_a_resumed_one_finds_none(wheel: Wheel) -> None:
    failed = await wheel.broken()
    asked = await wheel.improve(failed)
    await wheel.gate(asked.workflowID)
    await ops.cancel(wheel.engine, asked.workflowID, CANCEL)
    assert (await wheel.ended(asked.workflowID)).status == "canceled"
    again = await wheel.improve(failed)
    assert again.workflowID == f"improve:{failed}:2"
    await wheel.gate(again.workflowID)
    await ops.resume(wheel.engine, asked.workflowID, RESUME)
    await wheel.answer(asked.workflowID, "yes")
    assert "not under way" in (await wheel.product.failure(asked.workflowID)).message
    assert {row["stored"].get("v") for row in await wheel.recipes() if row["stored"].get("id") == "wheel"} == {"1.0.0"}


async def test_a_resumed_improvement_goes_on_if_no_other_took_its_place(wheel: Wheel) -> None:
    asked = await wheel.improve(await wheel.broken())
    await wheel.gate(asked.workflowID)
    await ops.cancel(wheel.engine, asked.workflowID, CANCEL)
    await ops.resume(wheel.engine, asked.workflowID, RESUME)
    await wheel.answer(asked.workflowID, "yes")
    assert (await wheel.ended(asked.workflowID)).status == "published"


async def test_a_fork_of_an_improvement_improves_nothing(wheel: Wheel) -> None:
    asked = await wheel.improve(await wheel.broken())
    await wheel.gate(asked.workflowID)
    forked = await ops.fork(wheel.engine, asked.workflowID, ForkWorkflowRequest(stepN=3, actor="op", reason="what if"))
    assert forked.forkedWorkflowID is not None
    failure = await wheel.product.failure(forked.forkedWorkflowID)
    assert failure.name == "ForkedImprovement"
    row = await wheel.row(asked.workflowID)
    assert row is not None and row.status == "under_way"


# -- what can be improved -------------------------------------------------------------------------------------------------------


async def test_only_a_run_that_went_wrong_and_came_from_a_form_can_be_learnt_from(wheel: Wheel) -> None:
    await wheel.store(recipe(intentTmpl=RECIPE["intentTmpl"] | {"constraints": {}}))
    running = await wheel.start()
    with pytest.raises(Conflict, match="cannot learn from a run in status"):
        await wheel.improve(running)
    await wheel.product.approve(running)
    await wheel.product.result(running)
    with pytest.raises(Conflict, match="in status succeeded without a red check"):
        await wheel.improve(running)
    posted = await wheel.product.start("posted on its own", BREAKS)
    await wheel.product.approve(posted)
    await wheel.product.failure(posted)
    with pytest.raises(Conflict, match="not made from a recipe and a form"):
        await wheel.improve(posted)
    with pytest.raises(NotFound):
        await wheel.improve("nobody")
    assert await wheel.product.rows("select 1 from app.improvements") == []


async def test_neither_an_improvement_nor_a_fixtures_run_is_improved(wheel: Wheel, agent: ScriptedOpenCode) -> None:
    failed = await wheel.broken()
    agent.patch = {"summary": "no idea", "operations": []}
    done = await wheel.ended((await wheel.improve(failed)).workflowID)
    with pytest.raises(Conflict, match="a recipe's own improvement"):
        await wheel.improve(done.workflowID)
    with pytest.raises(Conflict, match="cannot retry a recipe's own improvement"):
        await retry_run(wheel.engine, done.workflowID)


# -- by the recipe's own asking --------------------------------------------------------------------------------------------------


async def test_a_recipe_that_is_tagged_asks_for_its_improvement_when_a_run_fails(wheel: Wheel) -> None:
    failed = await wheel.broken(tags=["auto-improve"])
    id = f"improve:{failed}:auto"
    await wheel.answer(id, "yes")
    done = await wheel.ended(id)
    assert (done.status, done.actor, done.toV) == ("published", "recipe", "1.0.1")


async def test_it_asks_once_a_version_and_never_for_a_version_that_an_improvement_made(wheel: Wheel) -> None:
    await wheel.store(mended_by({"op": "replace", "path": "/limits/maxSteps", "value": 99}, tags=["auto-improve"]))
    failed = await wheel.fail()
    await wheel.answer(f"improve:{failed}:auto", "yes")
    done = await wheel.ended(f"improve:{failed}:auto")
    assert (done.status, done.toV) == ("failed", "1.0.1")  # the mend did not mend, so its fixtures are red
    await wheel.fail(form={"name": "Ben"})
    await wheel.fail("1.0.1")
    assert len(await wheel.product.rows("select 1 from dbos.workflow_status where name = 'ImproveRecipe'")) == 1
    assert (await wheel.improve(failed)).workflowID == f"improve:{failed}:2"  # people may ask as often as they like


async def test_many_failures_at_once_make_one_improvement(wheel: Wheel) -> None:
    await wheel.store(recipe(tags=["auto-improve"]))
    names = [f"n{number}" for number in range(6)]
    await asyncio.gather(*(wheel.fail(form={"name": name}) for name in names))
    async with asyncio.timeout(WAIT_S):
        while await wheel.product.rows("select 1 from dbos.workflow_status where name = 'ImproveRecipe' and status = 'ENQUEUED'"):
            await asyncio.sleep(0.02)
    assert len(await wheel.product.rows("select 1 from app.improvements")) == 1


async def test_a_recipe_without_the_tag_does_not(wheel: Wheel) -> None:
    await wheel.broken(tags=["improve"])
    assert await wheel.product.rows("select 1 from dbos.workflow_status where name = 'ImproveRecipe'") == []


# -- evidence ---------------------------------------------------------------------------------------------------------------


async def test_an_improvement_is_exported_and_replayed_like_any_run(wheel: Wheel) -> None:
    asked = await wheel.improve(await wheel.broken())
    await wheel.answer(asked.workflowID, "yes")
    await wheel.ended(asked.workflowID)
    async with wheel.engine.pool.connection() as conn:
        async with snapshot(conn):
            pack = await repro_pack(conn, asked.workflowID)
    assert pack is not None
    verdict = await replay_pack(orjson.loads(pack_bytes(pack)))
    assert verdict.differences == []


async def test_a_worker_that_stops_at_any_wait_leaves_it_to_the_next(wheel: Wheel) -> None:
    asked = await wheel.improve(await wheel.broken())
    await wheel.gate(asked.workflowID)
    await wheel.product.stop_worker()
    await wheel.answer(asked.workflowID, "yes")
    await wheel.product.start_worker()
    async with asyncio.timeout(WAIT_S):
        while not await wheel.product.rows("select 1 from app.promotions"):
            await asyncio.sleep(0.01)
    await wheel.product.stop_worker()
    await wheel.product.start_worker()
    assert (await wheel.ended(asked.workflowID)).status == "published"

"""What a run may use: budgets and the limits of its recipe, held while it runs, and what is seen of a breach."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from steps import identity
from steps.budgets import Allowance, BudgetExceeded, attempts_allowed, check_given_up
from steps.contracts.base import parse
from steps.contracts.intent import RunStartRequest
from steps.contracts.recipe import RecipeBundle
from steps.contracts.sandbox import SBXReq, SBXRes
from steps.execute_task import run_in_sandbox
from steps.ingress import start_run
from steps.policy import QueueRules
from steps.recipes import import_bundle
from steps.retry import retry_run
from steps.sandbox import MockSandbox, OnOutput
from steps.signoff import TRIGGERS, now_ms, read_trigger
from steps.throughput import throughput
from tests.steps.product import Product, patch, product, replay
from tests.steps.samples import SPEC

BUDGET = {"maxFanout": 9, "maxSBXMinutes": 9, "maxArtifactsMB": 9, "maxRetriesPerStep": 9, "maxWallClockMS": 600_000}
TEMPLATE = {"goal": "{{formData.goal}}", "inputs": {}, "constraints": {"testHooks": {"replay": "{{formData.replay}}"}}}
FORM = {"type": "object", "properties": {"goal": {"type": "string"}, "replay": {"type": "object"}}}


def limited(**limits: int) -> dict[str, Any]:
    """A recipe with these limits, whose form says what a replay shall say."""
    return SPEC | {"formSchema": FORM, "intentTmpl": TEMPLATE, "limits": SPEC["limits"] | limits}


async def start(runs: Product, recipe: dict[str, Any], budget: dict[str, Any] | None = None, **rehearsed: Any) -> str:
    async with runs.engine.transaction() as conn:
        await import_bundle(conn, parse(RecipeBundle, {"id": "b", "versions": [recipe]}))
    request: dict[str, Any] = {"recipeRef": {"id": recipe["id"], "v": recipe["v"]}, "opts": {"queuePartitionKey": "tenant-1"}}
    request["formData"] = {"goal": "g", "replay": rehearsed}
    if budget is not None:
        request["opts"]["budget"] = budget
    return (await start_run(runs.engine, parse(RunStartRequest, request), QueueRules())).run.workflow_id


class SlowSandbox(MockSandbox):
    """Says that each command took six minutes."""

    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        result = await super().run(request, attempt=attempt, key=key)
        return result.model_copy(update={"metrics": result.metrics.model_copy(update={"wallMs": 360_000.0})})


@pytest.fixture
async def runs(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Product]:
    monkeypatch.setattr(run_in_sandbox, "backoff_s", 0.0)
    async with product(database, tmp_path) as one:
        yield one


@pytest.fixture
async def slow(database: str, tmp_path: Path) -> AsyncIterator[Product]:
    async with product(database, tmp_path, sandbox=SlowSandbox()) as one:
        yield one


async def breaches(runs: Product, wid: str) -> list[tuple[str, int, int]]:
    found = await runs.artifacts(wid, "BUDGET")
    return [(a["task_key"], a["inline"]["json"]["limit"], a["inline"]["json"]["observed"]) for a in found]


# Retries of a step -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("retries", "attempts"), [(0, 1), (1, 2)])
async def test_a_budget_keeps_a_task_from_being_tried_again(runs: Product, retries: int, attempts: int) -> None:
    wid = await runs.start(
        constraints=replay(build={"test_command": "INFRA_FAIL"}), budget=BUDGET | {"maxRetriesPerStep": retries}
    )
    await runs.approve(wid)
    failure = await runs.failure(wid)
    assert failure.message == f"budget:maxRetriesPerStep: observed {attempts} > limit {retries} (runtime)"
    assert await breaches(runs, wid) == [("maxRetriesPerStep", retries, attempts)]
    assert [row["attempt"] for row in await runs.rows("select attempt from app.sbx_runs order by 1")] == [*range(1, attempts + 1)]


async def test_a_budget_of_many_retries_allows_no_more_than_there_are(runs: Product) -> None:
    wid = await runs.start(constraints=replay(build={"test_command": "INFRA_FAIL"}), budget=BUDGET)
    await runs.approve(wid)
    assert "exceeded its maximum of 3 retries" in (await runs.failure(wid)).message
    assert await breaches(runs, wid) == []


async def test_a_command_that_fails_is_no_breach_of_a_budget_without_retries(runs: Product) -> None:
    wid = await runs.start(constraints=replay(build={"test_command": "FAIL_ME"}), budget=BUDGET | {"maxRetriesPerStep": 0})
    await runs.approve(wid)
    assert (await runs.failure(wid)).message == "SBX execution failed [CMD_NONZERO]"
    assert await breaches(runs, wid) == []


def test_only_a_task_that_could_have_been_tried_again_was_stopped_by_its_budget() -> None:
    assert [attempts_allowed(Allowance(retries=n), 3) for n in (0, 1, 2, 3)] == [1, 2, 3, 3]
    assert attempts_allowed(Allowance(), 3) == 3
    for allowed, code in ((Allowance(retries=2), "BOOT_FAIL"), (Allowance(), "BOOT_FAIL"), (Allowance(retries=0), "RunNotFound")):
        check_given_up(allowed, 3, code)
    with pytest.raises(BudgetExceeded):
        check_given_up(Allowance(retries=0), 3, "BOOT_FAIL")


# Tokens ------------------------------------------------------------------------------------------------------------------


async def test_a_plan_that_took_too_many_tokens_is_not_used(runs: Product) -> None:
    wid = await start(runs, limited(maxTokens=100), plan={"patchPlan": [patch("a.txt", "a")]}, usage={"total_tokens": 101})
    failure = await runs.failure(wid)
    assert failure.message == "budget:maxTokens: observed 101 > limit 100 (runtime)"
    assert await breaches(runs, wid) == [("maxTokens", 100, 101)]
    assert (await runs.run(wid))["status"] == "retries_exceeded"
    assert await runs.steps(wid) == {}
    assert await runs.patches(wid) == []
    calls = await runs.rows("select step_id, response #>> '{usage,total_tokens}' as tokens, error from app.opencode_calls")
    assert calls == [{"step_id": "CompileST", "tokens": "101", "error": None}]


async def test_tokens_are_summed_over_the_calls_of_a_run_and_a_breach_takes_the_patches_back(runs: Product) -> None:
    wid = await start(runs, limited(maxTokens=100), plan={"patchPlan": [patch("a.txt", "a")]}, usage={"total_tokens": 60})
    gate = await runs.prompt(wid)
    assert (runs.workspace / "a.txt").exists()
    await runs.reply(wid, gate, choice="yes")
    assert (await runs.failure(wid)).message == "budget:maxTokens: observed 120 > limit 100 (runtime)"
    assert await breaches(runs, wid) == [("maxTokens", 100, 120)]
    assert not (runs.workspace / "a.txt").exists()
    assert [row["rolled_back_at"] is None for row in await runs.patches(wid)] == [False]


async def test_a_run_that_used_up_its_tokens_asks_no_agent_again(runs: Product) -> None:
    wid = await start(runs, limited(maxTokens=100), usage={"total_tokens": 60})
    await runs.approve(wid)
    await runs.failure(wid)
    await retry_run(runs.engine, wid)
    assert (await runs.failure(wid)).message == "budget:maxTokens: observed 120 > limit 100 (runtime)"
    assert len(await runs.rows("select from app.opencode_calls")) == 2


async def test_a_run_within_its_tokens_succeeds(runs: Product) -> None:
    wid = await start(runs, limited(maxTokens=120), usage={"total_tokens": 60})
    await runs.approve(wid)
    await runs.result(wid)
    assert await breaches(runs, wid) == []


async def test_a_rehearsed_usage_that_is_none_is_refused(runs: Product) -> None:
    wid = await start(runs, limited(), usage={"total_tokens": "many"})
    assert "usage" in (await runs.failure(wid)).message


# Fan-out, sandbox minutes, wall clock -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fanout", "budget", "limit"), [(2, None, 2), (2, 9, 2), (9, 2, 2)])
async def test_the_lower_of_a_budget_and_a_recipes_limit_holds(
    runs: Product, fanout: int, budget: int | None, limit: int
) -> None:
    given = None if budget is None else BUDGET | {"maxFanout": budget}
    wid = await start(runs, limited(maxFanout=fanout), given, build={"tests": ["a", "b", "c"]})
    await runs.approve(wid)
    assert (await runs.failure(wid)).message == f"budget:maxFanout: observed 3 > limit {limit} (runtime)"
    assert await runs.rows("select from app.sbx_runs") == []


async def test_a_run_that_no_recipe_limits_may_fan_out(runs: Product) -> None:
    wid = await runs.start(constraints=replay(build={"tests": [f"t{n}" for n in range(20)]}))
    await runs.approve(wid)
    await runs.result(wid)


async def test_sandbox_minutes_are_held_to_the_recipes_limit(slow: Product) -> None:
    wid = await start(slow, limited(maxSbxMin=5))
    await slow.approve(wid)
    assert (await slow.failure(wid)).message == "budget:maxSBXMinutes: observed 6 > limit 5 (runtime)"


async def test_the_wall_clock_is_the_databases_and_runs_while_a_gate_waits(runs: Product) -> None:
    async with runs.engine.transaction() as conn:
        await conn.execute("insert into engine.clock (now_ms) values (1000000)")
    wid = await runs.start(
        constraints=replay(plan={"patchPlan": [patch("a.txt", "a")]}), budget=BUDGET | {"maxWallClockMS": 60_000}
    )
    gate = await runs.prompt(wid)
    async with runs.engine.transaction() as conn:
        await conn.execute("update engine.clock set now_ms = now_ms + 60001")
    await runs.reply(wid, gate, choice="yes")
    assert (await runs.failure(wid)).message == "budget:maxWallClockMS: observed 60001 > limit 60000 (runtime)"
    assert await runs.rows("select from app.sbx_runs") == []
    assert not (runs.workspace / "a.txt").exists()


# What is seen of it -------------------------------------------------------------------------------------------------------


async def test_both_boards_see_a_breach(runs: Product) -> None:
    wid = await start(runs, limited(maxTokens=1), usage={"total_tokens": 2})
    await runs.failure(wid)
    (trigger,) = [trigger for trigger in TRIGGERS if trigger.id == "trigger-budget"]
    async with runs.engine.pool.connection() as conn:
        tile = await read_trigger(conn, trigger, await now_ms(conn))
        (row,) = (await throughput(conn, [])).budgets
    run_id = identity.run_id(wid)
    assert (tile.verdict, tile.reason) == ("NO_GO", f"budget_violations_24h=1 ({run_id}:maxTokens)")
    assert (row.runId, row.metric, row.limit, row.observed, row.outcome) == (run_id, "maxTokens", 1, 2, "blocked")

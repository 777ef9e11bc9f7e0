"""The way in: one run for one ask, however often and however concurrently it is asked, and nothing written for a refusal."""

import asyncio
import re
from collections.abc import AsyncIterator
from copy import deepcopy
from typing import Any, LiteralString

import pytest

from engine import ConflictingWorkflow, Engine
from steps import identity, recipes
from steps.contracts.base import parse
from steps.contracts.intent import Intent, RunRequest, RunStartRequest
from steps.contracts.recipe import RecipeBundle
from steps.errors import Conflict, InvalidInput, NotFound, ProductError, QueuePolicyError, RunIdentityConflict
from steps.ingress import StartedRun, create_intent, start_intent, start_run
from steps.policy import QueueRules
from tests.steps.samples import SPEC

BUDGET = {"maxFanout": 5, "maxSBXMinutes": 5, "maxArtifactsMB": 5, "maxRetriesPerStep": 0, "maxWallClockMS": 60_000}
INTENT = {"goal": "by hand", "inputs": {"repo": "r"}, "constraints": {"determinism": True}, "connectors": []}


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Engine]:
    async with Engine.connect(database, pool_size=20) as engine:
        async with engine.transaction() as conn:
            versions = [SPEC, SPEC | {"v": "2.0.0"}]
            await recipes.import_bundle(conn, parse(RecipeBundle, {"id": "b", "versions": deepcopy(versions)}))
        yield engine


async def start(engine: Engine, form: Any = None, v: str = "1.0.0", rules: QueueRules | None = None, **opts: Any) -> StartedRun:
    request = {
        "recipeRef": {"id": "spec09.demo", "v": v},
        "formData": {"goal": "alpha"} if form is None else form,
        "opts": {"queuePartitionKey": "tenant"} | opts,
    }
    return await start_run(engine, parse(RunStartRequest, request), rules or QueueRules(), version="v1")


async def rows(engine: Engine, query: LiteralString, *values: object) -> list[tuple[Any, ...]]:
    async with engine.transaction() as conn:
        return await (await conn.execute(query, values)).fetchall()


async def counts(engine: Engine) -> tuple[Any, ...]:
    """(intents, runs, workflows)"""
    [found] = await rows(
        engine,
        """
        select (select count(*) from app.intents), (select count(*) from app.runs),
               (select count(*) from dbos.workflow_status)
        """,
    )
    return found


async def test_a_start_writes_the_intent_its_run_and_its_workflow(engine: Engine) -> None:
    started = await start(engine, traceId="t-1", tenantId="acme", budget=BUDGET, lane="batch", timeoutMS=5000)
    intent = {
        "goal": "alpha",
        "inputs": {},
        "constraints": {
            "stepLibrary": {
                "primitives": [
                    "Collect",
                    "Fetch",
                    "Extract",
                    "Normalize",
                    "Decide",
                    "Act",
                    "Report",
                    "Legacy",
                ]
            }
        },
    }
    digest = identity.intent_hash(intent)
    wid, recipe_hash = f"ih_{digest}", identity.recipe_hash(SPEC)
    assert not started.is_replay
    run = started.run
    assert (run.id, run.intent_id, run.workflow_id) == (identity.run_id(wid), wid, wid)
    assert (run.status, run.retry_count, run.next_action, run.error) == ("queued", 0, None, None)
    assert (run.trace_id, run.tenant_id, run.queue_partition_key, run.budget) == ("t-1", "acme", "tenant", BUDGET)
    assert (run.intent_hash, run.recipe_id, run.recipe_v, run.recipe_hash) == (digest, "spec09.demo", "1.0.0", recipe_hash)
    assert await rows(
        engine, "select id, goal, payload, json, intent_hash, recipe_id, recipe_v, recipe_hash from app.intents"
    ) == [(wid, "alpha", intent, intent, digest, "spec09.demo", "1.0.0", recipe_hash)]
    status = await engine.status(wid)
    assert status is not None
    assert (status.status, status.name, status.class_name) == ("ENQUEUED", "RunIntent", "IntentWorkflow")
    assert (status.queue, status.partition, status.priority, status.version) == ("intentQ", "tenant", 1000, "v1")
    assert await rows(engine, "select workflow_timeout_ms, inputs::json -> 'positionalArgs' from dbos.workflow_status") == [
        (5000, [wid])
    ]


async def test_the_same_start_again_is_a_replay_of_the_same_run(engine: Engine) -> None:
    first = await start(engine)
    again = await start(engine)
    assert again.is_replay
    assert again.run == first.run
    assert await counts(engine) == (1, 1, 1)


async def test_what_is_no_part_of_a_runs_identity_may_differ_in_a_replay(engine: Engine) -> None:
    await start(engine)
    workload = {"concurrency": 1, "steps": 1, "sandboxMinutes": 1}
    again = await start(engine, lane="batch", priority=7, timeoutMS=9, taskKey="k", workload=workload, queueName="intentQ")
    assert again.is_replay


async def test_an_unused_form_field_does_not_make_another_run(engine: Engine) -> None:
    await start(engine, {"goal": "alpha"})
    assert (await start(engine, {"tenant": "acme", "goal": "alpha"})).is_replay
    assert not (await start(engine, {"goal": "beta"})).is_replay


async def test_a_hundred_identical_starts_at_once_make_one_run(engine: Engine) -> None:
    started = await asyncio.gather(*(start(engine) for _ in range(100)))
    assert sum(not one.is_replay for one in started) == 1
    assert {one.run.workflow_id for one in started} == {started[0].run.workflow_id}
    assert await counts(engine) == (1, 1, 1)


async def test_a_hundred_different_starts_at_once_make_a_hundred_runs(engine: Engine) -> None:
    started = await asyncio.gather(*(start(engine, {"goal": f"goal {number}"}) for number in range(100)))
    assert not any(one.is_replay for one in started)
    assert await counts(engine) == (100, 100, 100)


@pytest.mark.parametrize(
    ("changes", "drift"),
    [
        ({"queuePartitionKey": "other"}, [{"field": "queue_partition_key", "existing": "tenant", "incoming": "other"}]),
        ({"traceId": "t"}, [{"field": "trace_id", "existing": None, "incoming": "t"}]),
        (
            {"tenantId": "acme", "budget": BUDGET},
            [
                {"field": "tenant_id", "existing": None, "incoming": "acme"},
                {"field": "budget", "existing": None, "incoming": BUDGET},
            ],
        ),
    ],
)
async def test_other_particulars_for_the_same_intent_are_a_conflict(
    engine: Engine, changes: dict[str, Any], drift: list[dict[str, Any]]
) -> None:
    wid = (await start(engine)).run.workflow_id
    with pytest.raises(RunIdentityConflict) as refused:
        await start(engine, **changes)
    fields = ", ".join(entry["field"] for entry in drift)
    assert refused.value.body() == {"error": f"Divergence in run {wid}: identity drift on {fields}", "drift": drift}
    assert await counts(engine) == (1, 1, 1)


async def test_the_order_of_a_budgets_keys_is_no_drift(engine: Engine) -> None:
    await start(engine, budget=BUDGET)
    assert (await start(engine, budget=dict(reversed(BUDGET.items())))).is_replay


async def test_another_recipe_version_that_makes_the_same_intent_is_a_conflict(engine: Engine) -> None:
    digest = (await start(engine)).run.intent_hash
    with pytest.raises(Conflict) as refused:
        await start(engine, v="2.0.0")
    assert refused.value.message == f"intent hash conflict with divergent recipe refs: {digest}"
    assert await counts(engine) == (1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        ({"v": "9"}, NotFound, "workflow not found: Recipe not found: spec09.demo@9"),
        ({"form": {"goal": 1}}, InvalidInput, "invalid formData: formData/goal must be string"),
        ({"queuePartitionKey": None}, QueuePolicyError, "queuePartitionKey is required for partitioned operations"),
        ({"queueName": "sbxQ"}, QueuePolicyError, "parent intent workflow must use intentQ (got sbxQ)"),
        (
            {"workload": {"concurrency": 999, "steps": 1, "sandboxMinutes": 1}},
            QueuePolicyError,
            "recipe cap exceeded: concurrency 999 > 1",
        ),
        (
            {"workload": {"concurrency": 1, "steps": 6, "sandboxMinutes": 1}, "budget": BUDGET},
            QueuePolicyError,
            "budget:maxFanout: observed 6 > limit 5 (ingress)",
        ),
    ],
)
async def test_a_refused_start_writes_nothing(
    engine: Engine, arguments: dict[str, Any], error: type[ProductError], sentence: str
) -> None:
    with pytest.raises(error) as refused:
        await start(engine, **arguments)
    assert refused.value.message.startswith(sentence)
    assert await counts(engine) == (0, 0, 0)


async def test_the_form_is_kept_as_it_was_given(engine: Engine) -> None:
    form = {"more": [1, {"b": None, "a": 2.5}]}  # the goal is a default
    started = await start(engine, form)
    again = await start(engine, {"goal": "g", **form})  # another form for the same intent
    assert again.is_replay
    assert await rows(engine, "select payload ->> 'goal', form from app.intents where id = %s", started.run.intent_id) == [
        ("g", form)
    ]


async def test_an_intent_that_was_posted_on_its_own_has_no_form(engine: Engine) -> None:
    intent_id = await create_intent(engine, parse(Intent, INTENT))
    assert await rows(engine, "select form from app.intents where id = %s", intent_id) == [(None,)]


async def test_the_pinned_recipe_wins_over_the_options(engine: Engine) -> None:
    started = await start(engine, recipeName="other", recipeVersion=3, deduplicationID="mine")
    assert started.run.recipe_id == "spec09.demo"


async def test_without_partitions_the_intent_hash_keeps_starts_apart(engine: Engine) -> None:
    rules = QueueRules(partitioned=frozenset())
    started = await start(engine, rules=rules, queuePartitionKey=None, deduplicationID="mine")
    assert await rows(engine, "select deduplication_id, queue_partition_key from dbos.workflow_status") == [
        (started.run.intent_hash, None)
    ]


async def test_a_start_that_the_engine_refuses_leaves_no_run_behind(engine: Engine) -> None:
    wid = (await start(engine)).run.workflow_id
    async with engine.transaction() as conn:
        await conn.execute("set local session_replication_role = replica")  # what is append-only refuses to be emptied
        await conn.execute("truncate app.intents cascade")
        await conn.execute("update dbos.workflow_status set name = 'Other' where workflow_uuid = %s", (wid,))
    with pytest.raises(ConflictingWorkflow):
        await start(engine)
    assert await counts(engine) == (0, 0, 1)


async def test_numbers_and_text_of_every_kind_survive_a_replay(engine: Engine) -> None:
    template = {"goal": "g", "inputs": "{{formData}}", "constraints": {}}
    bundle = {"id": "b", "versions": [SPEC | {"v": "raw", "intentTmpl": template}]}
    async with engine.transaction() as conn:
        await recipes.import_bundle(conn, parse(RecipeBundle, bundle))
    form = {"n": [1.0, -0.0, 1e21, 1e22, 1e-7, 5e-324, 1.7976931348623157e308, 0.1, 2**53 + 1, 10**30 + 1], "é😀": '"\\ \u2028'}
    await start(engine, form, v="raw")
    assert (await start(engine, form, v="raw")).is_replay


async def test_an_intent_posted_on_its_own_is_stored_as_it_is(engine: Engine) -> None:
    intent_id = await create_intent(engine, parse(Intent, INTENT))
    assert re.fullmatch(r"it_[0-9a-f]{16}", intent_id)
    assert await rows(engine, "select id, goal, payload, intent_hash, json from app.intents") == [
        (intent_id, "by hand", INTENT, None, None)
    ]
    assert await create_intent(engine, parse(Intent, INTENT)) != intent_id


async def test_with_a_seed_the_ids_of_intents_follow_from_it_and_none_comes_twice(engine: Engine) -> None:
    async def created(seed: int) -> str:
        return await create_intent(engine, parse(Intent, INTENT), seed=seed)

    first = [await created(7) for _ in range(3)]
    after_a_restart = [await created(7) for _ in range(3)]
    assert len({*first, *after_a_restart}) == 6
    await rows(engine, "delete from app.intents returning id")
    await rows(engine, "select setval('app.intent_seq', 1, false)")
    assert [await created(7) for _ in range(3)] == first
    assert await created(8) not in [await created(7), *after_a_restart]


async def start_stored(engine: Engine, intent_id: str, **opts: Any) -> StartedRun:
    options = parse(RunRequest, {"queuePartitionKey": "legacy"} | opts)
    return await start_intent(engine, intent_id, options, QueueRules(), version="v1")


async def test_a_stored_intent_runs_under_its_own_id_and_once(engine: Engine) -> None:
    intent_id = await create_intent(engine, parse(Intent, INTENT))
    first, again = await start_stored(engine, intent_id, traceId="t"), await start_stored(engine, intent_id, traceId="t")
    assert (first.is_replay, again.is_replay) == (False, True)
    assert first.run == again.run
    assert (first.run.workflow_id, first.run.id) == (intent_id, identity.run_id(intent_id))
    assert (first.run.intent_hash, first.run.recipe_id) == (None, None)
    with pytest.raises(RunIdentityConflict):
        await start_stored(engine, intent_id, traceId="other")
    assert await counts(engine) == (1, 1, 1)


async def test_a_stored_intent_is_held_to_the_limits_of_the_named_recipe(engine: Engine) -> None:
    intent_id = await create_intent(engine, parse(Intent, INTENT))
    load = {"concurrency": 999, "steps": 1, "sandboxMinutes": 1}
    for recipe, sentence in (
        ("sandbox-default", "recipe cap exceeded: concurrency 999 > 20"),
        (None, "recipe cap exceeded: concurrency 999 > 10"),
        ("nope", "recipe not found: nope"),
    ):
        with pytest.raises(QueuePolicyError) as refused:
            await start_stored(engine, intent_id, recipeName=recipe, workload=load)
        assert refused.value.message == sentence
    assert await counts(engine) == (1, 0, 0)


async def test_the_policy_speaks_before_a_missing_intent(engine: Engine) -> None:
    with pytest.raises(QueuePolicyError):
        await start_stored(engine, "it_missing", queuePartitionKey=None)
    with pytest.raises(NotFound, match="intent not found"):
        await start_stored(engine, "it_missing")


async def test_a_deduplication_id_in_use_is_a_conflict(engine: Engine) -> None:
    rules = QueueRules(partitioned=frozenset())
    options = parse(RunRequest, {"deduplicationID": "d"})
    first, second = [await create_intent(engine, parse(Intent, INTENT)) for _ in range(2)]
    await start_intent(engine, first, options, rules)
    with pytest.raises(Conflict, match="already holds unfinished work with deduplication id 'd'"):
        await start_intent(engine, second, options, rules)
    assert await counts(engine) == (2, 1, 1)

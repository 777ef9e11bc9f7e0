"""From draft to stable: fixtures that really run, twice, and a version that changes only when all of them are green."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from copy import deepcopy
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from engine import Worker, start, workflow
from steps import identity, promotion, recipes
from steps.contracts.base import parse
from steps.contracts.intent import RecipeRef
from steps.contracts.ops import CancelWorkflowRequest
from steps.contracts.recipe import PromotionView, RecipeBundle
from steps.contracts.sandbox import SBXReq, SBXRes
from steps.errors import Conflict, NotFound
from steps.fixtures import Left, hashes
from steps.ops import cancel
from steps.policy import CONTROL_QUEUE
from steps.promoting import promote_recipe
from steps.promotion import Begun, PromotionOutcome, PromotionRequest
from steps.sandbox import MockSandbox, OnOutput
from steps.worker import QUEUES, configure, workflows
from tests.steps.product import WAIT_S, Product, patch, product, replay
from tests.steps.samples import SPEC

REF = RecipeRef(id="spec09.demo", v="1.0.0")
EVAL = [
    {"id": "files", "kind": "file_exists", "glob": "**/*"},
    {"id": "ok", "kind": "regex", "artifact": "stdout.log", "re": "^OK"},
]
FIXTURES = [{"id": "fx1", "formData": {"goal": "one"}}, {"id": "fx2", "formData": {"goal": "two"}}]


def spec(**changes: Any) -> dict[str, Any]:
    return deepcopy(SPEC) | {"eval": EVAL, "fixtures": FIXTURES} | changes


def intent(constraints: dict[str, Any]) -> dict[str, Any]:
    return {"goal": "{{formData.goal}}", "inputs": {}, "constraints": constraints}


async def candidate(one: Product, **changes: Any) -> None:
    async with one.engine.transaction() as conn:
        await recipes.import_bundle(conn, parse(RecipeBundle, {"id": "b", "versions": [spec(**changes)]}))
        await promotion.set_candidate(conn, REF, actor="ann", reason="it is ready")


async def begin(one: Product) -> Begun:
    return await promotion.begin(one.engine, REF, actor="ann", reason="it is good")


async def found(one: Product) -> PromotionView:
    async with one.engine.pool.connection() as conn:
        newest = await promotion.find(conn, REF)
    assert newest is not None
    return newest


async def promoted(one: Product) -> PromotionView:
    """The promotion of the candidate, begun and waited for."""
    begun = await begin(one)
    assert begun.promotion is not None
    await one.result(begun.promotion.workflowID)
    return await found(one)


async def status(one: Product) -> str:
    async with one.engine.pool.connection() as conn:
        return (await recipes.get_version(conn, REF)).status


async def active(one: Product) -> list[dict[str, Any]]:
    return await one.rows("select active_v from app.recipes where id = 'spec09.demo'")


async def counts(one: Product) -> dict[str, Any]:
    (row,) = await one.rows(
        """
        select (select count(*) from app.promotions) as promotions, (select count(*) from dbos.workflow_status) as workflows,
               (select count(*) from app.runs) as runs, (select count(*) from app.intents) as intents
        """
    )
    return row


@pytest.fixture
async def one(database: str, tmp_path: Path) -> AsyncIterator[Product]:
    async with product(database, tmp_path) as running:
        yield running


@asynccontextmanager
async def idle(database: str, workspace: Path) -> AsyncIterator[Product]:
    """A product whose worker has stopped."""
    async with product(database, workspace) as one:
        await one.stop_worker()
        yield one


# A green promotion -----------------------------------------------------------------------------------------------------


async def test_a_candidate_whose_fixtures_are_green_becomes_stable_and_active(one: Product) -> None:
    await candidate(one)
    ended = await promoted(one)
    assert (ended.status, ended.refusal, ended.attempt) == ("promoted", None, 1)
    assert (ended.actor, ended.reason, ended.workflowID) == ("ann", "it is good", "promote:spec09.demo@1.0.0:1")
    assert (ended.fixturesDone, ended.fixturesTotal) == (2, 2)
    assert ended.endedAt is not None
    assert ended.endedAt >= ended.createdAt
    assert await status(one) == "stable"
    assert await active(one) == [{"active_v": "1.0.0"}]


async def test_each_fixture_is_run_twice_and_says_what_it_found(one: Product) -> None:
    await candidate(one)
    ended = await promoted(one)
    assert [(fixture.fixtureId, fixture.green, fixture.reason) for fixture in ended.fixtures] == [
        ("fx1", True, ""),
        ("fx2", True, ""),
    ]
    for fixture in ended.fixtures:
        assert [round.round for round in fixture.rounds] == [1, 2]
        assert len({round.hash for round in fixture.rounds}) == 1
        assert len({round.workflowID for round in fixture.rounds}) == 2
        for round in fixture.rounds:
            assert [(check["checkId"], check["pass"]) for check in round.checks] == [("files", True), ("ok", True)]
    runs = await one.rows("select * from app.runs order by workflow_id")
    assert {run["workflow_id"] for run in runs} == {r.workflowID for f in ended.fixtures for r in f.rounds}
    for run in runs:
        assert (run["purpose"], run["status"], run["queue_partition_key"]) == ("fixture", "succeeded", "fixture:spec09.demo")
        assert (run["recipe_id"], run["recipe_v"], run["intent_hash"]) == ("spec09.demo", "1.0.0", None)
    forms = await one.rows("select form, count(*) as n from app.intents group by form order by form ->> 'goal'")
    assert forms == [{"form": {"goal": "one"}, "n": 2}, {"form": {"goal": "two"}, "n": 2}]


async def test_the_workflows_of_a_promotion_have_ids_that_follow_from_it(one: Product) -> None:
    await candidate(one)
    ended = await promoted(one)
    rows = await one.rows(
        """
        select s.workflow_uuid as id, s.name, s.class_name, s.queue_name, s.priority, s.parent_workflow_id as parent
          from dbos.workflow_status s where s.name <> 'ExecuteTask' order by s.name, s.workflow_uuid
        """
    )
    of = {name: [row for row in rows if row["name"] == name] for name in ("PromoteRecipe", "RecipeFixture", "RunIntent")}
    assert [(row["class_name"], row["queue_name"]) for row in of["PromoteRecipe"]] == [("RecipeWorkflow", "controlQ")]
    fixtures = {identity.fixture_workflow_id("spec09.demo", "1.0.0", id) for id in ("fx1", "fx2")}
    assert {row["id"] for row in of["RecipeFixture"]} == fixtures
    assert {row["parent"] for row in of["RecipeFixture"]} == {ended.workflowID}
    assert {row["parent"] for row in of["RunIntent"]} == fixtures
    assert {(row["queue_name"], row["priority"]) for row in of["RunIntent"]} == {("intentQ", 1000)}
    assert len(of["RunIntent"]) == 4


async def test_a_fixtures_run_answers_its_own_gates_through_the_ledger(one: Product) -> None:
    await candidate(one, intentTmpl=intent({"askUser": True, "parallelApprovals": True}), fixtures=FIXTURES[:1])
    assert (await promoted(one)).status == "promoted"
    answers = await one.rows(
        """
        select i.origin, i.payload, count(*) as n from app.human_interactions i join app.runs r on r.id = i.run_id
         group by i.origin, i.payload order by n
        """
    )
    assert answers == [
        {"origin": "engine-dbos", "payload": {"answer": "fixture"}, "n": 2},
        {"origin": "engine-dbos", "payload": {"choice": "yes", "rationale": "fixture", "actor": "engine"}, "n": 4},
    ]
    assert await one.rows("select 1 from app.human_gates where resolved_at is null") == []
    assert await one.rows("select 1 from app.plan_approvals") == []
    (decided,) = await one.rows(
        "select output from app.run_steps where step_id = 'DecideST' and run_id = (select min(id) from app.runs)"
    )
    assert "Answer from the user: fixture" in decided["output"]["prompt"]


async def test_a_fixtures_run_leaves_no_file_behind(one: Product) -> None:
    (one.workspace / "kept.txt").write_text("as it was")
    plan = {"patchPlan": [patch("kept.txt", "changed"), patch("deep/er/new.txt", "new")]}
    await candidate(one, intentTmpl=intent(replay(plan=plan)))
    assert (await promoted(one)).status == "promoted"
    assert [path.name for path in one.workspace.iterdir()] == ["kept.txt"]
    assert (one.workspace / "kept.txt").read_text() == "as it was"
    patches = await one.rows("select applied_at, rolled_back_at from app.patch_history")
    assert len(patches) == 8
    assert all(patch["applied_at"] and patch["rolled_back_at"] for patch in patches)


async def test_a_fixtures_run_that_fails_leaves_no_file_behind_either(one: Product) -> None:
    hooks = replay(plan={"patchPlan": [patch("new.txt", "new")]}, build={"test_command": "FAIL_ME"})
    await candidate(one, intentTmpl=intent(hooks))
    assert (await promoted(one)).status == "refused"
    assert list(one.workspace.iterdir()) == []


# Refused ---------------------------------------------------------------------------------------------------------------


async def test_a_red_check_refuses_and_says_which(one: Product) -> None:
    await candidate(one, eval=[*EVAL, {"id": "never", "kind": "regex", "artifact": "stdout.log", "re": "^no"}])
    ended = await promoted(one)
    assert (ended.status, ended.refusal) == ("refused", "fixture fx1 is red: check never says regex:miss:stdout.log")
    assert [len(fixture.rounds) for fixture in ended.fixtures] == [1, 1]
    assert await status(one) == "candidate"
    assert await active(one) == []


async def test_a_run_that_fails_refuses_with_its_reason(one: Product) -> None:
    await candidate(one, intentTmpl=intent(replay(build={"test_command": "FAIL_ME"})), fixtures=FIXTURES[:1])
    ended = await promoted(one)
    assert (ended.status, ended.refusal) == ("refused", "fixture fx1 failed: SBX execution failed [CMD_NONZERO]")
    assert [(round.status, round.checks, round.hash) for round in ended.fixtures[0].rounds] == [("ERROR", [], None)]


class Moody(MockSandbox):
    """Says something else every time to one goal's command."""

    def __init__(self) -> None:
        self.calls = count()

    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        result = await super().run(request, attempt=attempt, key=key)
        metrics = result.metrics.model_copy(update={"wallMs": next(self.calls), "bootMs": next(self.calls)})
        result = result.model_copy(update={"metrics": metrics, "sandboxRef": f"box-{next(self.calls)}"})
        if "moody" in request.cmd:
            return result.model_copy(update={"stdout": f"{result.stdout}{next(self.calls)}\n"})
        return result


@pytest.mark.parametrize(("command", "verdict"), [("moody", "refused"), ("steady", "promoted")])
async def test_a_fixture_whose_two_runs_differ_is_flaky_whatever_they_measured(
    database: str, tmp_path: Path, command: str, verdict: str
) -> None:
    async with product(database, tmp_path, sandbox=Moody()) as one:
        await candidate(one, intentTmpl=intent(replay(build={"test_command": command})), fixtures=FIXTURES[:1])
        ended = await promoted(one)
        assert ended.status == verdict
        if verdict == "refused":
            assert ended.refusal == "fixture fx1 is flaky: its two runs differ in ExecuteST"
            assert await status(one) == "candidate"


@pytest.mark.parametrize("lack", ["eval", "fixtures"])
async def test_a_version_without_checks_or_fixtures_is_refused_at_once(database: str, tmp_path: Path, lack: str) -> None:
    async with idle(database, tmp_path) as one:
        await candidate(one, **{lack: []})
        before = await counts(one)
        with pytest.raises(Conflict, match="it needs at least one of each"):
            await begin(one)
        assert await counts(one) == before


async def test_a_version_whose_fixture_makes_no_intent_is_refused_at_once(database: str, tmp_path: Path) -> None:
    async with idle(database, tmp_path) as one:
        await candidate(one, intentTmpl={"goal": "{{formData.missing}}", "inputs": {}, "constraints": {}})
        with pytest.raises(Conflict, match=r"fixture fx1 .* makes no intent: missing template key: formData\.missing"):
            await begin(one)


async def test_a_draft_and_an_unknown_version_are_refused_at_once(database: str, tmp_path: Path) -> None:
    async with idle(database, tmp_path) as one:
        with pytest.raises(NotFound, match=r"recipe version not found: spec09\.demo@1\.0\.0"):
            await begin(one)
        async with one.engine.transaction() as conn:
            await recipes.import_bundle(conn, parse(RecipeBundle, {"id": "b", "versions": [spec()]}))
        before = await counts(one)
        with pytest.raises(Conflict, match="is a draft; make it a candidate first"):
            await begin(one)
        assert await counts(one) == before


# Again, at once, and never twice ---------------------------------------------------------------------------------------


async def test_asking_again_finds_the_promotion_that_is_under_way(database: str, tmp_path: Path) -> None:
    async with idle(database, tmp_path) as one:
        await candidate(one)
        begun = await asyncio.gather(*(begin(one) for _ in range(8)))
        assert {one.promotion.workflowID for one in begun if one.promotion} == {"promote:spec09.demo@1.0.0:1"}
        assert await counts(one) | {"intents": 0} == {"promotions": 1, "workflows": 1, "runs": 0, "intents": 0}


async def test_a_refused_promotion_can_be_tried_again_with_runs_of_its_own(database: str, tmp_path: Path) -> None:
    async with product(database, tmp_path, sandbox=Moody()) as one:
        await candidate(one, intentTmpl=intent(replay(build={"test_command": "moody"})), fixtures=FIXTURES[:1])
        first = await promoted(one)
        second = await promoted(one)
        assert (first.attempt, second.attempt, second.status) == (1, 2, "refused")
        runs = {round.workflowID for ended in (first, second) for fixture in ended.fixtures for round in fixture.rounds}
        assert len(runs) == 4
        again = identity.fixture_workflow_id("spec09.demo", "1.0.0", "fx1", 2)
        assert (await one.engine.status(again)) is not None


async def test_promoting_a_stable_version_makes_it_active_again_at_once(one: Product) -> None:
    await candidate(one)
    await promoted(one)
    async with one.engine.transaction() as conn:
        newer = RecipeRef(id=REF.id, v="2")
        await recipes.import_bundle(conn, parse(RecipeBundle, {"id": "b", "versions": [spec(v="2")]}))
        await promotion.set_candidate(conn, newer)
        await promotion.make_stable(conn, await promotion.locked(conn, newer))
    assert await active(one) == [{"active_v": "2"}]
    before = await counts(one)
    begun = await begin(one)
    assert (begun.promotion, begun.version.status) == (None, "stable")
    assert await active(one) == [{"active_v": "1.0.0"}]
    assert await counts(one) == before


# Cancelled, and as another workflow's child ----------------------------------------------------------------------------


async def test_a_cancelled_promotion_is_refused_and_another_one_can_begin(database: str, tmp_path: Path) -> None:
    async with idle(database, tmp_path) as one:
        await candidate(one)
        begun = await begin(one)
        assert begun.promotion is not None
        wid = begun.promotion.workflowID
        await cancel(one.engine, wid, CancelWorkflowRequest(actor="ann", reason="not now"))
        ended = await found(one)
        assert (ended.status, ended.refusal) == ("refused", "the promotion was cancelled; promote again")
        again = await begin(one)
        assert again.promotion is not None
        assert again.promotion.attempt == 2
        await one.engine.resume(wid)  # it goes on, but it promotes nothing any more
        await one.start_worker()
        assert (await one.result(wid))["reason"] == "this promotion of spec09.demo@1.0.0 has ended before; promote again"
        await one.result(again.promotion.workflowID)
        assert await status(one) == "stable"
        assert [row["status"] for row in await one.rows("select status from app.promotions order by attempt")] == [
            "refused",
            "promoted",
        ]


async def test_a_cancelled_run_of_a_fixture_refuses_the_promotion_and_leaves_no_file(database: str, tmp_path: Path) -> None:
    held = asyncio.Event()

    class Slow(MockSandbox):
        async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
            held.set()
            await asyncio.Event().wait()
            raise AssertionError("never")

    async with product(database, tmp_path, sandbox=Slow()) as one:
        await candidate(one, intentTmpl=intent(replay(plan={"patchPlan": [patch("new.txt", "new")]})), fixtures=FIXTURES[:1])
        begun = await begin(one)
        assert begun.promotion is not None
        await asyncio.wait_for(held.wait(), WAIT_S)
        (run,) = await one.rows("select workflow_id from app.runs")
        assert [path.name.startswith(".fixture-run_") for path in tmp_path.iterdir()] == [True]
        await one.engine.cancel(run["workflow_id"], children=True)
        await one.result(begun.promotion.workflowID)
        ended = await found(one)
        assert (ended.status, ended.refusal) == ("refused", "fixture fx1 failed: it was cancelled")
        assert ended.fixtures[0].rounds[0].status == "CANCELLED"
        (undoing,) = await one.rows("select workflow_uuid as id from dbos.workflow_status where name = 'RollbackRun'")
        await one.result(undoing["id"])
        assert list(tmp_path.iterdir()) == []


@workflow(name="Improver")
async def improver(request: PromotionRequest) -> list[str]:
    """Another workflow that promotes twice."""
    first = await start(promote_recipe, request, queue=CONTROL_QUEUE)
    outcomes: list[PromotionOutcome] = [await first.result()]
    again = await start(promote_recipe, request, queue=CONTROL_QUEUE)
    outcomes.append(await again.result())
    return [f"{outcome.status} {outcome.attempt} {outcome.reason}" for outcome in outcomes]


@asynccontextmanager
async def improving(one: Product) -> AsyncIterator[None]:
    """A worker that has the other workflow besides the product's."""
    configure(one.ports)
    worker: Worker = one.engine.worker([*workflows(), improver], queues={**QUEUES, "default": 1}, poll_s=0.05)
    working = asyncio.create_task(worker.run())
    yield
    worker.stop()
    await working


async def test_another_workflow_promotes_as_its_child(database: str, tmp_path: Path) -> None:
    async with idle(database, tmp_path) as one, improving(one):
        request = PromotionRequest("spec09.demo", "1.0.0", "the engine", "it was mended")
        handle = await one.engine.enqueue(improver, request)
        async with asyncio.timeout(WAIT_S):
            assert await handle.result() == ["refused 0 recipe version not found: spec09.demo@1.0.0"] * 2
        assert (await counts(one))["promotions"] == 0
        await candidate(one, fixtures=FIXTURES[:1])
        handle = await one.engine.enqueue(improver, request)
        async with asyncio.timeout(WAIT_S):
            assert await handle.result() == ["promoted 1 ", "promoted 0 "]
        ended = await found(one)
        assert (ended.status, ended.actor, ended.workflowID.startswith(handle.id)) == ("promoted", "the engine", True)


# What counts -----------------------------------------------------------------------------------------------------------


def left(names: list[str], **changes: Any) -> Left:
    run, task = names[0], names[-1]
    uri = f"artifact://run/{run}/step/ExecuteST/task/{task}/out.json"
    output = {"stdout": "hello", "taskKey": task, "artifactIndexRef": uri, "sandboxRef": run, "metrics": {"wallMs": len(run)}}
    output |= {"raw": {"tasks": [{"taskKey": task, "exit": 0}]}, "note": f"made by {task}"}
    index = {"json": {"taskKey": task, "items": [{"kind": "file", "uri": uri, "sha256": f"of {run}"}], "provider": "mock"}}
    rows = {
        "checks": [{"checkId": "a", "pass": True, "reason": "ok", "payload": None}],
        "steps": [{"step": "ExecuteST", "output": output}],
        "artifacts": [
            {"step": "ExecuteST", "kind": "file", "uri": uri, "inline": {"text": "hello"}},
            {"step": "ExecuteST", "kind": "timings", "uri": f"{uri}.time", "inline": {"json": {"bootMs": len(task)}}},
            {"step": "ExecuteST", "kind": "artifact_index", "uri": f"{uri}.index", "inline": index},
        ],
    }
    return Left(**(rows | changes), names=names)


def test_ids_addresses_and_measures_do_not_count() -> None:
    assert hashes(left(["run_a", "fx_1", "f" * 64])) == hashes(left(["run_bb", "fx_2", "e" * 64]))


@pytest.mark.parametrize(
    ("changes", "part"),
    [
        ({"checks": [{"checkId": "a", "pass": True, "reason": "another", "payload": None}]}, "eval"),
        ({"steps": [{"step": "ExecuteST", "output": {"stdout": "hello!"}}]}, "ExecuteST"),
        ({"steps": [{"step": "DecideST", "output": {}}]}, "DecideST"),
        ({"artifacts": [{"step": "DecideST", "kind": "patch", "uri": "u", "inline": {"text": "-"}}]}, "DecideST"),
        ({"artifacts": []}, "ExecuteST"),
    ],
)
def test_everything_else_counts(changes: dict[str, Any], part: str) -> None:
    same, other = hashes(left(["run_a", "f" * 64])), hashes(left(["run_a", "f" * 64], **changes))
    assert same.get(part) != other.get(part)


def test_no_two_versions_share_the_id_of_a_promotion() -> None:
    assert identity.promotion_id("a@b", "c", 1) != identity.promotion_id("a", "b@c", 1)
    assert identity.promotion_id("a%40b", "c", 1) != identity.promotion_id("a@b", "c", 1)
    assert identity.promotion_id("greeting", "1.0.0", 2) == "promote:greeting@1.0.0:2"

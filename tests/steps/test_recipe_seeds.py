"""The recipes that every database starts with: their scripts do what they say, and the product runs them as they stand."""

import asyncio
import shlex
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine import Engine
from steps import identity
from steps.canonical import sha256_text
from steps.compile import replayed_plan
from steps.contracts.base import JsonObject, parse
from steps.contracts.intent import RunStartRequest
from steps.contracts.plan import Build, Plan
from steps.contracts.recipe import Fixture, RecipeSpec
from steps.contracts.sandbox import FileIn, FileOut, SBXRes
from steps.decide import replayed_build
from steps.evaluation import Artifact, judge
from steps.execute_artifacts import STEP, entries_of
from steps.ingress import start_run
from steps.opencode import rehearsal, rehearsed
from steps.policy import QueueRules
from steps.recipes import import_bundle, seed_bundles
from steps.sandbox import SandboxNotConfigured
from steps.sandbox_inputs import files_of
from steps.sandboxes.local import LocalSandbox
from steps.seeds import install_seeds
from steps.template import instantiate
from tests.steps.product import Product, product

SEEDS = [spec for bundle in seed_bundles() for spec in bundle.versions if spec.id.startswith("seed.")]
CASES = [(spec, fixture) for spec in SEEDS for fixture in spec.fixtures]
NAMES = [f"{spec.id}:{fixture.id}" for spec, fixture in CASES]


def intent_of(spec: RecipeSpec, form: JsonObject) -> JsonObject:
    return instantiate(spec.intentTmpl, spec.formSchema, form)


def plan_of(intent: JsonObject) -> Plan:
    return parse(Plan, rehearsed(intent["constraints"], "plan", replayed_plan(intent["goal"])))


def work(folder: Path, intent: JsonObject) -> tuple[str, dict[str, str]]:
    """What the recipe's command says and leaves, run here and now in a folder with its inputs."""
    plan = plan_of(intent)
    build = parse(Build, rehearsed(intent["constraints"], "build", replayed_build(plan)))
    given = files_of(intent, [(patch.targetPath, patch.postimageContent) for patch in plan.patchPlan])
    for file in given:
        put(folder, file)
    program, *arguments = shlex.split(build.test_command)
    assert program == "python3"
    done = subprocess.run([sys.executable, "-I", *arguments], cwd=folder, capture_output=True, text=True, timeout=20)
    assert done.returncode == 0, done.stderr
    there = {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}
    return done.stdout, {path: text for path, text in there.items() if FileIn(path=path, inline=text) not in given}


def put(folder: Path, file: FileIn) -> None:
    assert file.inline is not None
    (folder / file.path).parent.mkdir(parents=True, exist_ok=True)
    (folder / file.path).write_text(file.inline)


def artifacts_of(stdout: str, files: dict[str, str]) -> list[Artifact]:
    out = [FileOut(path=path, sha256=sha256_text(text), inline=text) for path, text in files.items()]
    metrics = {"wallMs": 1, "cpuMs": 1, "memPeakMB": 1}
    result = SBXRes.model_validate(
        {
            "exit": 0,
            "stdout": stdout,
            "stderr": "",
            "filesOut": out,
            "metrics": metrics,
            "sandboxRef": "s",
            "errCode": "NONE",
            "taskKey": "t",
        }
    )
    return [Artifact(identity.artifact_uri("run", STEP, "t", entry.name), entry.inline) for entry in entries_of(result)]


def test_there_are_ten_and_between_them_they_use_every_kind_of_check() -> None:
    assert len({spec.id for spec in SEEDS}) == 10
    kinds = {check.kind for spec in SEEDS for check in spec.eval}
    assert kinds == {"file_exists", "jsonschema", "rowcount_gte", "regex", "diff_le"}
    for spec in SEEDS:
        assert len(spec.eval) >= 2 and len(spec.fixtures) >= 2, spec.id


def test_their_forms_say_what_is_asked_for_and_take_nothing_else() -> None:
    for spec in SEEDS:
        fields = spec.formSchema["properties"]
        assert spec.formSchema["additionalProperties"] is False, spec.id
        assert set(spec.formSchema["required"]) == {name for name, field in fields.items() if "default" not in field}, spec.id
        assert all(field.get("title") for field in fields.values()), spec.id


@pytest.mark.parametrize(("spec", "fixture"), CASES, ids=NAMES)
def test_a_recipes_script_passes_its_checks(spec: RecipeSpec, fixture: Fixture, tmp_path: Path) -> None:
    stdout, files = work(tmp_path, intent_of(spec, fixture.formData))
    assert stdout.count("\n") == 1
    verdicts = judge(spec.eval, artifacts_of(stdout, files))
    assert [verdict.reason for verdict in verdicts if not verdict.passed] == []


@pytest.mark.parametrize(("spec", "fixture"), CASES, ids=NAMES)
def test_a_check_is_red_when_the_script_leaves_nothing(spec: RecipeSpec, fixture: Fixture) -> None:
    assert not any(verdict.passed for verdict in judge(spec.eval, artifacts_of("", {})))


@pytest.mark.parametrize("spec", SEEDS, ids=lambda spec: spec.id)
def test_a_rehearsal_is_what_the_script_makes_of_the_first_fixture(spec: RecipeSpec, tmp_path: Path) -> None:
    intent = intent_of(spec, spec.fixtures[0].formData)
    stdout, files = work(tmp_path, intent)
    assert rehearsal(intent["constraints"], "sandbox") == {"stdout": stdout, "files": files}


@pytest.fixture
async def runs(database: str, tmp_path: Path) -> AsyncIterator[Product]:
    async with product(database, tmp_path) as one:
        await import_seeds(one)
        yield one


async def import_seeds(one: Product) -> None:
    async with one.engine.transaction() as conn:
        for bundle in seed_bundles():
            await import_bundle(conn, bundle)


async def start(engine: Engine, spec: RecipeSpec, fixture: Fixture) -> str:
    request: dict[str, Any] = {"recipeRef": {"id": spec.id, "v": spec.v}, "formData": fixture.formData}
    request["opts"] = {"queuePartitionKey": "tenant-1"}
    started = await start_run(engine, parse(RunStartRequest, request), QueueRules())
    return started.run.workflow_id


async def test_the_product_runs_every_recipe_with_every_fixture_and_all_checks_are_green(runs: Product) -> None:
    for spec, fixture in CASES:
        await runs_green(runs, spec, fixture)


def local_sandbox(folder: Path) -> LocalSandbox:
    try:
        return LocalSandbox(folder / "sandboxes")
    except SandboxNotConfigured as reason:
        pytest.skip(str(reason))


@pytest.fixture
async def at_work(database: str, tmp_path: Path) -> AsyncIterator[Product]:
    """A product whose sandboxes run commands on this machine."""
    (tmp_path / "workspace").mkdir()
    async with product(database, tmp_path / "workspace", sandbox=local_sandbox(tmp_path)) as one:
        await import_seeds(one)
        yield one


async def test_in_a_real_sandbox_the_scripts_do_the_work_and_all_checks_are_green(at_work: Product) -> None:
    for spec, fixture in CASES:
        wid = await runs_green(at_work, spec, fixture)
        rehearsed_files = rehearsal(intent_of(spec, fixture.formData)["constraints"], "sandbox")
        output = (await at_work.steps(wid))["ExecuteST"]["output"]
        left = {"stdout": output["stdout"], "files": {file["path"]: file["inline"] for file in output["filesOut"]}}
        assert (left == rehearsed_files) is (fixture is spec.fixtures[0]), f"{spec.id} {fixture.id}"


async def test_a_new_database_promotes_them_all_by_their_own_fixtures(database: str, tmp_path: Path) -> None:
    async with product(database, tmp_path) as one:
        await promotes_them_all(one)
    assert list(tmp_path.iterdir()) == []


async def test_real_sandboxes_promote_them_all_too(database: str, tmp_path: Path) -> None:
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    async with product(database, workspace, sandbox=local_sandbox(tmp_path)) as one:
        await promotes_them_all(one)
    assert list(workspace.iterdir()) == []


async def promotes_them_all(one: Product) -> None:
    await install_seeds(one.engine)
    async with asyncio.timeout(60):
        while await one.rows("select from app.promotions where status = 'under_way'"):
            await asyncio.sleep(0.05)
    assert await one.rows("select recipe_id, outcome from app.promotions where status <> 'promoted'") == []
    stable = await one.rows("select id from app.recipe_versions where status = 'stable'")
    assert {row["id"] for row in stable} >= {spec.id for spec in SEEDS}


async def runs_green(runs: Product, spec: RecipeSpec, fixture: Fixture) -> str:
    wid = await start(runs.engine, spec, fixture)
    await runs.approve(wid)
    await runs.result(wid)
    verdicts = await runs.rows("select check_id, pass, reason from app.eval_results where run_id = %s", identity.run_id(wid))
    assert {row["check_id"] for row in verdicts} == {check.id for check in spec.eval}
    assert [row["reason"] for row in verdicts if not row["pass"]] == [], f"{spec.id} {fixture.id}"
    return wid

"""Prebuilt sandboxes: which one a run starts from, what the registry refuses, the command, and what the board shows of it."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from engine import Engine, TerminalError
from steps import identity, templates
from steps.contracts.base import parse
from steps.contracts.intent import RunStartRequest
from steps.contracts.recipe import RecipeBundle
from steps.errors import Conflict, InvalidInput
from steps.ingress import start_run
from steps.policy import QueueRules
from steps.recipes import import_bundle
from steps.templates import Registered, chosen, register, registered
from steps.throughput import throughput
from tests.steps.product import Product, product
from tests.steps.samples import SPEC

ROOT = Path(__file__).resolve().parents[2]
HASH = identity.recipe_hash(SPEC)
KEY = f"spec09.demo:1.0.0:{HASH}"
HOT = "tpl_of_the_provider"


@pytest.fixture
async def engine(database: str) -> AsyncIterator[Engine]:
    async with Engine.connect(database) as engine:
        async with engine.transaction() as conn:
            await import_bundle(conn, parse(RecipeBundle, {"id": "b", "versions": [SPEC]}))
        yield engine


@pytest.fixture
async def runs(engine: Engine, database: str, tmp_path: Path) -> AsyncIterator[Product]:
    async with product(database, tmp_path) as one:
        yield one


async def start(runs: Product, goal: str) -> str:
    request = {
        "recipeRef": {"id": "spec09.demo", "v": "1.0.0"},
        "formData": {"goal": goal},
        "opts": {"queuePartitionKey": "tenant-1"},
    }
    wid = (await start_run(runs.engine, parse(RunStartRequest, request), QueueRules())).run.workflow_id
    await runs.approve(wid)
    return wid


async def register_hot(engine: Engine, template_id: str = HOT, **meta: Any) -> Registered:
    async with engine.transaction() as conn:
        return await register(conn, "spec09.demo", "1.0.0", HASH, template_id, meta)


async def test_a_recipe_starts_cold_until_a_template_is_registered_and_hot_from_then_on(runs: Product) -> None:
    cold = await start(runs, "before")
    await runs.result(cold)
    await register_hot(runs.engine)
    hot = await start(runs, "after")
    await runs.result(hot)
    requests = {
        row["run_id"]: row["request"] for row in await runs.rows("select run_id, request from app.sbx_runs order by created_at")
    }
    asked = [requests[identity.run_id(wid)] for wid in (cold, hot)]
    assert [(a["templateKey"], a.get("templateId"), a["depsHash"]) for a in asked] == [(KEY, None, HASH), (KEY, HOT, HASH)]
    keys = [identity.task_key(wid, identity.run_id(wid), cmd="pnpm test", template_key=KEY, template_ref=ref)
            for wid, ref in ((cold, "local-node-24"), (hot, HOT))]  # fmt: skip
    assert [a["taskKey"] for a in asked] == keys
    boots = await runs.rows(
        "select inline #> '{json,bootMs}' as ms from app.artifacts where uri like '%%/sbx-boot.json' order by 1"
    )
    assert [row["ms"] for row in boots] == [5, 50]
    async with runs.engine.pool.connection() as conn:
        board = (await throughput(conn, [])).templates
    assert [(r.templateKey, r.templateId, r.runCount, r.p95BootMs) for r in board] == [(KEY, None, 1, 50.0), (KEY, HOT, 1, 5.0)]


async def test_a_run_whose_template_says_that_it_is_another_one_fails(runs: Product) -> None:
    async with runs.engine.transaction() as conn:
        await conn.execute(
            "insert into app.sbx_templates (recipe_id, recipe_v, deps_hash, template_key, template_id)"
            " values ('spec09.demo', '1.0.0', %s, 'other:1:x', 'tpl_1')",
            (HASH,),
        )
    failure = await runs.failure(await start(runs, "drifted"))
    assert failure.message == f"sandbox template drift: other:1:x is registered for {KEY}"
    assert await runs.rows("select from app.sbx_runs") == []


def test_a_template_drifts_by_its_key_or_by_its_id() -> None:
    row = Registered("r", "1", "d", "r:1:d", "tpl_1", {"templateId": "tpl_1"})
    assert chosen("r:1:d", "d", row).ref == "tpl_1"
    assert chosen("r:1:d", "d", None).ref == "local-node-24"
    for drifted in (
        Registered("r", "1", "d", "r:1:e", "tpl_1", {}),
        Registered("r", "1", "d", "r:1:d", "tpl_2", {"templateId": "tpl_1"}),
    ):
        with pytest.raises(TerminalError) as error:
            chosen("r:1:d", "d", drifted)
        assert error.value.name == "TemplateDrift"


async def test_registering_again_changes_nothing_and_another_template_is_refused(engine: Engine) -> None:
    first = await register_hot(engine, builtBy="ada")
    assert await register_hot(engine, builtBy="grace") == first
    with pytest.raises(Conflict, match=f"divergent sandbox template: .* is {HOT}; .* can't be tpl_other"):
        await register_hot(engine, "tpl_other")
    async with engine.pool.connection() as conn:
        assert await registered(conn) == [first]


async def test_of_two_who_register_at_once_one_is_refused(engine: Engine) -> None:
    done = await asyncio.gather(*(register_hot(engine, f"tpl_{n % 2}") for n in range(8)), return_exceptions=True)
    assert len({one.template_id for one in done if isinstance(one, Registered)}) == 1
    assert sum(isinstance(one, Conflict) for one in done) == 4


@pytest.mark.parametrize(
    ("template_id", "meta"), [("", {}), (" ", {}), ("a\nb", {}), ("x" * 201, {}), ("tpl_1", {"templateId": "tpl_2"})]
)
async def test_what_is_no_template_is_not_registered(engine: Engine, template_id: str, meta: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await register_hot(engine, template_id, **meta)
    async with engine.pool.connection() as conn:
        assert await registered(conn) == []


# The command ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """The options that name a build's files."""
    options: list[str] = []
    for name, text in (("dockerfile", "FROM scratch\n"), ("toml", "cpu = 1\n"), ("lock", "httpx==0.28.1\n")):
        (tmp_path / name).write_text(text)
        options += [f"--{name}", str(tmp_path / name)]
    return options


def command(database: str, state: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bin.commands.sbx_template", *arguments],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database, "STATE_DIR": str(state)},
        capture_output=True,
        text=True,
        check=False,
    )


def answer(database: str, state: Path, *arguments: str) -> Any:
    done = command(database, state, *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_build_is_named_by_its_files_and_leaves_evidence(database: str, tmp_path: Path, files: list[str]) -> None:
    state = tmp_path / "state"
    built = answer(database, state, "build", *files)
    deps = templates.build_of("FROM scratch\n", "cpu = 1\n", "httpx==0.28.1\n").deps_hash
    assert (built["templateKey"], built["templateId"], built["registered"]) == (f"local:dev:{deps}", f"tpl_{deps[:24]}", False)
    assert built["evidence"] == str(state / "sbx-template-build.json")
    evidence = json.loads((state / "sbx-template-build.json").read_text())
    assert evidence == {key: built[key] for key in ("templateKey", "templateId", "depsHash", "files")}
    assert answer(database, state, "list") == []
    assert answer(database, state, "build", *files, "--register")["registered"]
    (row,) = answer(database, state, "list")
    assert (row["template_key"], row["template_id"]) == (built["templateKey"], built["templateId"])
    (tmp_path / "lock").write_text("httpx==0.28.2\n")
    assert answer(database, state, "build", *files)["templateId"] != built["templateId"]


async def test_a_recipes_template_is_registered_by_its_address(engine: Engine, database: str, tmp_path: Path) -> None:
    row = await asyncio.to_thread(answer, database, tmp_path, "register", "spec09.demo", "1.0.0", HOT)
    assert (row["template_key"], row["template_id"]) == (KEY, HOT)
    for arguments, sentence in (
        (("register", "spec09.demo", "1.0.0", "tpl_other"), "divergent sandbox template"),
        (("register", "spec09.demo", "9.9.9", HOT), "not found: spec09.demo@9.9.9"),
        (("build", "--dockerfile", "/no/such", "--toml", "/no/such", "--lock", "/no/such"), "cannot read /no/such"),
    ):
        done = await asyncio.to_thread(command, database, tmp_path, *arguments)
        assert done.returncode in (1, 2)
        assert sentence in done.stderr
        assert done.stderr.count("\n") == 1
    async with engine.pool.connection() as conn:
        assert len(await registered(conn)) == 1

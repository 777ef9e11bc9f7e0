"""bin/recipe: import, candidate and promote from the shell."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from steps.canonical import canonical_json
from tests.steps.product import product
from tests.steps.samples import SPEC as SAMPLE

ROOT = Path(__file__).resolve().parents[2]
NAMED = ("spec09.demo", "1.0.0")
SPEC = SAMPLE | {"eval": [{"id": "files", "kind": "file_exists", "glob": "**/*"}]}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    file = tmp_path / "bundle.json"
    file.write_text(json.dumps({"id": "spec09.demo", "versions": [SPEC]}))
    return file


def recipe(database: str, *arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "bin.commands.recipe", *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def answer(database: str, *arguments: object, stdin: str = "", told: str = "") -> Any:
    """The command's JSON. told: what stands on standard error."""
    done = recipe(database, *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, told)
    return json.loads(done.stdout)


async def test_a_bundle_becomes_the_active_recipe_in_three_commands(database: str, bundle: Path, tmp_path: Path) -> None:
    imported = answer(database, "import", bundle)
    assert [(v["id"], v["v"], v["status"]) for v in imported["versions"]] == [("spec09.demo", "1.0.0", "draft")]
    assert answer(database, "candidate", *NAMED, "--actor", "ann", "--reason", "ready")["status"] == "candidate"
    (tmp_path / "workspace").mkdir()
    async with product(database, tmp_path / "workspace"):
        done = await asyncio.to_thread(recipe, database, "promote", *NAMED)
    assert done.returncode == 0, done.stderr
    assert {key: json.loads(done.stdout)[key] for key in ("id", "v", "status")} == {
        "id": NAMED[0],
        "v": NAMED[1],
        "status": "stable",
    }
    assert done.stderr.splitlines()[0] == "holdfast: 0 of 1 fixtures are done"
    with psycopg.connect(database) as conn:
        found = conn.execute("select active_v from app.recipes where id = 'spec09.demo'").fetchall()
        kept = conn.execute(
            "select candidate_actor, candidate_reason from app.recipe_versions where id = 'spec09.demo'"
        ).fetchall()
    assert (found, kept) == ([("1.0.0",)], [("ann", "ready")])
    assert ("spec09.demo", "stable") in [(r["id"], r["status"]) for r in answer(database, "list")]
    promotion = answer(database, "promotion", *NAMED)
    assert (promotion["status"], promotion["actor"], promotion["reason"]) == ("promoted", "bin/recipe", "asked for at the shell")
    assert answer(database, "promote", *NAMED)["status"] == "stable"  # at once, without any worker


def test_a_promotion_that_nobody_waits_for_is_under_way(database: str, bundle: Path) -> None:
    answer(database, "import", bundle)
    answer(database, "candidate", *NAMED)
    begun = answer(database, "promote", *NAMED, "--no-wait", "--actor", "ann", "--reason", "good")
    assert (begun["status"], begun["promotion"]["status"], begun["promotion"]["actor"]) == ("candidate", "under_way", "ann")
    assert answer(database, "promotion", *NAMED) == begun["promotion"]


def test_waiting_without_a_worker_says_so_and_ends_in_time(database: str, bundle: Path) -> None:
    answer(database, "import", bundle)
    answer(database, "candidate", *NAMED)
    done = recipe(database, "promote", *NAMED, "--timeout", "6")
    assert (done.returncode, done.stdout) == (1, "")
    progress, nobody, end = done.stderr.splitlines()
    assert progress == "holdfast: 0 of 1 fixtures are done"
    assert nobody == "holdfast: no worker is alive; start one"
    assert end.startswith("holdfast: promote:spec09.demo@1.0.0:1 had not ended after 6 s and goes on")


async def test_a_red_fixture_is_refused_in_one_line(database: str, bundle: Path, tmp_path: Path) -> None:
    red = {"id": "red", "kind": "regex", "artifact": "stdout.log", "re": "^no"}
    bundle.write_text(json.dumps({"id": "spec09.demo", "versions": [SPEC | {"eval": [red]}]}))
    answer(database, "import", bundle)
    answer(database, "candidate", *NAMED)
    (tmp_path / "workspace").mkdir()
    async with product(database, tmp_path / "workspace"):
        done = await asyncio.to_thread(recipe, database, "promote", *NAMED)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1] == (
        "holdfast: recipe version spec09.demo@1.0.0 is not promoted: fixture fx1 is red: check red says regex:miss:stdout.log"
    )


def test_an_export_is_canonical_and_can_be_imported_from_standard_input(database: str, bundle: Path) -> None:
    answer(database, "import", bundle)
    exported = recipe(database, "export", "spec09.demo").stdout
    assert exported == canonical_json({"id": "spec09.demo", "versions": [SPEC]}) + "\n"
    assert answer(database, "import", "-", stdin=exported)["id"] == "spec09.demo"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["import", "/nowhere/bundle.json"], 2, "cannot read /nowhere/bundle.json: No such file or directory"),
        (["import", "-"], 2, "- is not JSON"),
        (["promote", "nope", "1"], 1, "recipe version not found: nope@1"),
        (["promotion", "nope", "1"], 1, "recipe version nope@1 was never promoted"),
        (["promote", "nope", "1", "--actor", " "], 2, "invalid PromoteRequest: data/actor must not be blank"),
        (["candidate", "", "1"], 2, "invalid RecipeRef: data/id must NOT have fewer than 1 characters"),
    ],
)
def test_a_refusal_is_one_line(database: str, arguments: list[str], code: int, sentence: str) -> None:
    done = recipe(database, *arguments, stdin="{bad")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"holdfast: {sentence}")
    assert done.stderr.count("\n") == 1

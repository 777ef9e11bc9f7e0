"""bin/recipe: import, candidate and promote from the shell."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg
import pytest

from steps.canonical import canonical_json
from tests.steps.samples import SPEC

ROOT = Path(__file__).resolve().parents[2]


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


def answer(database: str, *arguments: object, stdin: str = "") -> Any:
    done = recipe(database, *arguments, stdin=stdin)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_bundle_becomes_the_active_recipe_in_three_commands(database: str, bundle: Path) -> None:
    imported = answer(database, "import", bundle)
    assert [(v["id"], v["v"], v["status"]) for v in imported["versions"]] == [("spec09.demo", "1.0.0", "draft")]
    assert answer(database, "candidate", "spec09.demo", "1.0.0")["status"] == "candidate"
    assert answer(database, "promote", "spec09.demo", "1.0.0")["status"] == "stable"
    with psycopg.connect(database) as conn:
        found = conn.execute("select active_v from app.recipes where id = 'spec09.demo'").fetchall()
    assert found == [("1.0.0",)]
    assert ("spec09.demo", "stable") in [(r["id"], r["status"]) for r in answer(database, "list")]


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
        (["candidate", "", "1"], 2, "invalid RecipeRef: data/id must NOT have fewer than 1 characters"),
    ],
)
def test_a_refusal_is_one_line(database: str, arguments: list[str], code: int, sentence: str) -> None:
    done = recipe(database, *arguments, stdin="{bad")
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(f"holdfast: {sentence}")
    assert done.stderr.count("\n") == 1

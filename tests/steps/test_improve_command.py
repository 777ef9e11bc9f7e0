"""bin/recipe improve: ask for a better recipe from the shell, and wait for what a person says to it."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.steps.product import product
from tests.steps.wheel import Wheel, recipe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
async def wheel(database: str, tmp_path: Path) -> AsyncIterator[Wheel]:
    async with product(database, tmp_path) as one:
        yield Wheel(one)


async def improve(database: str, *arguments: str) -> tuple[int | None, str, str]:
    """Exit code, standard output, standard error."""
    command = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bin.commands.recipe", "improve", *arguments),
        cwd=ROOT,
        env=os.environ | {"DATABASE_URL": database},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await command.communicate()
    return command.returncode, out.decode(), err.decode()


async def test_it_begins_an_improvement_and_says_what_it_is(wheel: Wheel, database: str) -> None:
    failed = await wheel.broken()
    code, out, err = await improve(database, failed, "--actor", "ada", "--reason", "it breaks", "--name", "2.0.0")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert (told["workflowID"], told["status"], told["actor"]) == (f"improve:{failed}:1", "under_way", "ada")
    await wheel.answer(told["workflowID"], "yes")
    assert (await wheel.ended(told["workflowID"])).toV == "2.0.0"


@pytest.mark.parametrize(("choice", "expected"), [("yes", 0), ("no", 1)])
async def test_it_waits_for_the_end_and_tells_for_whom(wheel: Wheel, database: str, choice: str, expected: int) -> None:
    failed = await wheel.broken()
    id = f"improve:{failed}:1"
    waiting = asyncio.create_task(improve(database, failed, "--wait"))
    gate = await wheel.gate(id)
    await asyncio.sleep(0.5)  # for it to see that a person is waited for
    await wheel.answer(id, choice)
    code, out, err = await waiting
    assert code == expected
    assert f"holdfast: {id} waits for a person at gate {gate}\n" in err
    assert out == "" if expected else json.loads(out)["status"] == "published"
    assert ("is rejected: Improvement rejected: no" in err) == bool(expected)


async def test_what_nothing_can_be_learnt_from_is_refused_in_one_line(wheel: Wheel, database: str) -> None:
    await wheel.store(recipe())
    code, out, err = await improve(database, await wheel.start())
    assert (code, out) == (1, "") and err.startswith("holdfast: cannot learn from a run in status ")
    code, out, err = await improve(database, "nobody")
    assert (code, out, err) == (1, "", "holdfast: run not found\n")

"""Several runs that change files of one workspace at the same time."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.steps.product import Product, patch, product, replay

HOLD = "select pg_advisory_xact_lock(hashtextextended('file:a.txt', 0))"
WAITING = "select from pg_locks where locktype = 'advisory' and not granted"


@pytest.fixture
async def runs(database: str, tmp_path: Path) -> AsyncIterator[Product]:
    async with product(database, tmp_path) as one:
        yield one


async def test_a_run_looks_at_a_file_again_when_another_one_was_at_it(runs: Product) -> None:
    async with runs.engine.transaction() as other:
        await other.execute(HOLD)
        wid = await runs.start(constraints=replay(plan={"patchPlan": [patch("b.txt", "b"), patch("a.txt", "mine")]}))
        async with asyncio.timeout(20):
            while not await runs.rows(WAITING):
                await asyncio.sleep(0.01)
        assert [row["applied_at"] for row in await runs.patches(wid)] == [None, None]
        (runs.workspace / "a.txt").write_text("theirs")
    assert (await runs.failure(wid)).message == "PREIMAGE_MISMATCH:a.txt"
    assert (runs.workspace / "a.txt").read_text() == "theirs"
    assert not (runs.workspace / "b.txt").exists()


async def test_of_many_runs_at_one_file_none_overwrites_what_it_has_not_seen(runs: Product) -> None:
    files = ["a.txt", "deep/b.txt"]
    wids = [
        await runs.start(
            f"run {n}", replay(plan={"patchPlan": [patch(path, f"{n}") for path in (files if n % 2 else files[::-1])]})
        )
        for n in range(12)
    ]
    outcomes = [await come_to_its_gate(runs, wid) for wid in wids]
    assert None in outcomes
    assert all(outcome is None or outcome.startswith("PREIMAGE_MISMATCH:") for outcome in outcomes)
    chains = await runs.rows(
        """select target_path, preimage_content as before, postimage_content as after from app.patch_history
            where applied_at is not null and rolled_back_at is null order by target_path, applied_at"""
    )
    for path in files:
        states = [(row["before"], row["after"]) for row in chains if row["target_path"] == path]
        assert [before for before, _ in states] == ["", *(after for _, after in states[:-1])]
        assert (runs.workspace / path).read_text() == states[-1][1]


async def come_to_its_gate(runs: Product, wid: str) -> str | None:
    """Wait until the run asks for approval; what it failed of, if it did."""
    async with asyncio.timeout(20):
        while (await runs.run(wid))["status"] in ("queued", "running"):
            await asyncio.sleep(0.01)
    run = await runs.run(wid)
    return None if run["status"] == "waiting_input" else str(run["error"])

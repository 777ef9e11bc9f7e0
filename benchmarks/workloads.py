"""The workflows that are measured: four trivial steps, four with a row riding along, slow steps with a ledger, and a gate."""

import asyncio
import os

from engine import Rider, recv, ride, step, step_info, workflow

NOTES = Rider(
    "insert into bench.rider (workflow_uuid, step, note) "
    "select r.workflow_uuid, r.step, r.note from json_to_recordset(%s) as r (workflow_uuid text, step int, note text)"
)
QUEUE = "bench"
SLOW_STEPS = 5
SLOW_STEP_S = 0.3
GATE = "gate"


@step
async def one(n: int) -> int:
    return n + 1


@step
async def two(n: int) -> int:
    return n + 1


@step
async def three(n: int) -> int:
    return n + 1


@step
async def four(n: int) -> int:
    return n + 1


@workflow
async def four_steps(n: int) -> int:
    return await four(await three(await two(await one(n))))


def note(name: str) -> None:
    """Let one row of the product ride with the calling step's record."""
    here = step_info()
    ride(NOTES, {"workflow_uuid": here.workflow_id, "step": int(here.path), "note": name})


@step(name="one")
async def noted_one(n: int) -> int:
    note("one")
    return n + 1


@step(name="two")
async def noted_two(n: int) -> int:
    note("two")
    return n + 1


@step(name="three")
async def noted_three(n: int) -> int:
    note("three")
    return n + 1


@step(name="four")
async def noted_four(n: int) -> int:
    note("four")
    return n + 1


@workflow
async def four_noted(n: int) -> int:
    return await noted_four(await noted_three(await noted_two(await noted_one(n))))


@step
async def slow(ledger: str, n: int) -> int:
    """Take a while, then note in a file outside of the database that this step's effect happened."""
    await asyncio.sleep(SLOW_STEP_S)
    line = f"{step_info().key}\n".encode()
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, line)  # one write of a short line to an append-only file is whole, whoever else writes
    finally:
        os.close(file)
    return n + 1


@workflow
async def slow_steps(ledger: str) -> int:
    n = 0
    for _ in range(SLOW_STEPS):
        n = await slow(ledger, n)
    return n


@workflow
async def gated(n: int) -> int:
    reply = await recv(GATE)
    return n if reply is None else int(str(reply))


ALL = [four_steps, four_noted, slow_steps, gated]

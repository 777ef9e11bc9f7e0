"""The workflows that are measured: four trivial steps, four with a row riding along, slow steps with a ledger, a gate, and one
step that takes a while."""

import asyncio
import os
import time
import zlib

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


@step
async def take(ms: int) -> int:
    """Take 0.4 to 1.6 times so long, by the run's id: steps of one length would soon begin and end in step."""
    await asyncio.sleep(ms * (40 + zlib.crc32(step_info().workflow_id.encode()) % 121) / 100_000)
    return ms


@workflow
async def timed(ms: int) -> int:
    return await take(ms)


@step
async def take_noted(ledger: str) -> int:
    """Take 20 to 200 ms, by the run's id, and note in a file when that began and ended: a line each, which no kill takes back."""
    name = step_info().workflow_id
    ms = 20 + zlib.crc32(name.encode()) % 181
    _note_time(ledger, "began", name)
    try:
        await asyncio.sleep(ms / 1000)
    finally:
        _note_time(ledger, "ended", name)
    return ms


def _note_time(ledger: str, what: str, name: str) -> None:
    file = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, f"{what} {os.getpid()} {name} {time.time_ns() // 1000}\n".encode())
    finally:
        os.close(file)


@workflow
async def timed_noted(ledger: str) -> int:
    return await take_noted(ledger)


ALL = [four_steps, four_noted, slow_steps, gated, timed, timed_noted]

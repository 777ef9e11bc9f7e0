"""Workflows to be killed: between them they make every kind of journal entry.

A step appends to the ledger, a file outside of the database, which shows how often its body ran; the row that rides with its record
shows how often that was recorded. Neither the table of riders nor that of bookings has a key: a doubled write stays visible.
"""

import asyncio
import os
from pathlib import Path
from typing import Any, LiteralString

from engine import (
    Connection,
    Rider,
    StepFailed,
    TerminalError,
    close_stream,
    gather,
    get_event,
    now,
    patched,
    recv,
    ride,
    send,
    set_event,
    sleep,
    start,
    step,
    step_info,
    transaction,
    uuid4,
    workflow,
    workflow_info,
    write_stream,
)

TABLES: LiteralString = """
create table ridden (workflow_id text not null, path text not null, what text not null);
create table booked (workflow_id text not null, amount int not null)
"""
RIDDEN = Rider("""
    insert into ridden (workflow_id, path, what)
    select r.workflow_id, r.path, r.what from json_to_recordset(%s) as r (workflow_id text, path text, what text)
""")
BOOK: LiteralString = "insert into booked (workflow_id, amount) values (%s, %s)"
BALANCE: LiteralString = "select sum(b.amount)::int from booked b where b.workflow_id = %s"

ledger: Path = Path(os.devnull)  # each worker process sets its own


def write_down(line: str) -> None:
    """One write to a file opened for appending, so that lines of several processes never mix."""
    with ledger.open("ab", buffering=0) as file:
        file.write(f"{line}\n".encode())


@step
async def note(what: str, pause_s: float = 0.0) -> str:
    me = step_info()
    write_down(me.key)
    if pause_s:
        await asyncio.sleep(pause_s)
    ride(RIDDEN, {"workflow_id": me.workflow_id, "path": me.path, "what": what})
    return f"noted {what}"


@step(max_attempts=2, backoff_s=0.001)
async def refuse(what: str) -> str:
    raise TerminalError(f"no {what} today", name="OutOfStock", data={"what": what})


@transaction
async def book(conn: Connection, amount: int) -> int:
    me = workflow_info().id
    await conn.execute(BOOK, (me, amount))
    row = await (await conn.execute(BALANCE, (me,))).fetchone()
    assert row is not None
    return int(row[0])


@workflow
async def parcel(what: str) -> str:
    """A child that waits for a word from its parent."""
    await note(f"wrapped {what}")
    await set_event("state", "wrapped")
    word = await recv("go")
    return f"{what} went on {word}"


@workflow
async def label(what: str) -> str:
    return await note(f"label for {what}")


async def left_hand() -> list[str]:
    first = await note("left 1")
    await set_event("hand", "left")
    return [first, await note("left 2")]


async def right_hand() -> int:
    await sleep(0.02)
    return await book(5)


@workflow
async def fulfil(order: str) -> dict[str, Any]:
    me = workflow_info().id
    begun = await note("begin")
    number = await uuid4()
    await now()
    await set_event("progress", {"done": 1})
    balance = await book(10)
    await write_stream("log", "booked")
    ride(RIDDEN, {"workflow_id": me, "path": "before the sleep", "what": order})
    await sleep(0.03)
    early = await recv("early", timeout_s=600)
    left, right, tag = await gather(left_hand(), right_hand(), label(order))
    sent = await start(parcel, order, id=f"{me}/parcel")
    ribbon: list[Any] = []
    try:
        await refuse("ribbon")
    except StepFailed as failure:
        ribbon = [failure.name, failure.data]
    late = await recv("late", timeout_s=600)
    await send(sent.id, {"word": late}, "go")
    went = await sent.result()
    state = await get_event(sent.id, "state")
    await set_event("progress", {"done": 2})
    await write_stream("log", "sent")
    await close_stream("log")
    marked = await patched("labels")
    ride(RIDDEN, {"workflow_id": me, "path": "with the end", "what": order})
    return {
        "begun": begun,
        "number": number,
        "balance": balance,
        "early": early,
        "hands": [left, right, tag],
        "ribbon": ribbon,
        "late": late,
        "went": went,
        "state": state,
        "marked": marked,
    }


@workflow(max_recovery_attempts=1000)
async def errand(steps: int, pause_s: float, gate: bool) -> int:
    """A plain line of steps, with a gate in the middle if asked."""
    for number in range(1, steps + 1):
        await note(f"errand {number}", pause_s)
        if gate and number == steps // 2:
            await recv("gate")
    return steps


@workflow
async def watch(workflow_id: str, key: str) -> Any:
    """Wait for somebody else's event."""
    return await get_event(workflow_id, key)


WORKFLOWS = [fulfil, parcel, label, errand, watch]

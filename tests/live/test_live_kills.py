"""Workers that are killed while an agent's server plans, a person is asked, and commands run: all is done once, and nothing is left."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import LiteralString

import pytest

from steps import identity
from steps.contracts.sandbox import SBXRes
from steps.sandboxes.conformance import command_line, new_mark, processes_with
from steps.sandboxes.local import groups_here
from steps.sandboxes.slots import group_of
from tests.live.scene import SOON_S, Scene, script

#: Something else each time that it is run.
COMMAND = "python3 test_count.py && cat /proc/sys/kernel/random/uuid && sleep 0.6 && : {mark}"
CALLS: LiteralString = "select run_id, step_id, count(*) as calls from app.opencode_calls where state = 'answered' group by 1, 2"
TASKS: LiteralString = "select run_id, attempt, err_code, response from app.sbx_runs order by run_id, attempt"
DONE: LiteralString = "select count(*) as done from app.runs where status = 'succeeded'"


async def until(true: Callable[[], bool | Awaitable[bool]], what: str) -> None:
    deadline = time.monotonic() + SOON_S
    while True:
        answer = true()
        if answer if isinstance(answer, bool) else await answer:
            return
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.01)


def commands_with(mark: str) -> list[int]:
    """Without bubblewrap itself: killed while it boots it may leave a process that waits, which the next worker clears."""
    return [pid for pid in processes_with(mark) if not command_line(pid).split(b"\0")[0].endswith(b"bwrap")]


async def moment(live: Scene, stage: int, asked_before: int, wid: str, mark: str) -> None:
    """Returns at one of the moments at which a worker may die."""
    if stage == 0:  # the agent is asked for the plan
        await until(lambda: len(live.model.asked) > asked_before, "the agent was not asked")
    elif stage == 1:  # the person is asked
        await live.gate(wid)
    elif stage == 2:  # the agent is asked for the build
        await live.approve(wid)
        await until(lambda: any(not one.is_for_plan for one in live.model.asked[asked_before:]), "no build was asked for")
    else:  # the command runs, or has just ended
        await live.approve(wid)
        await until(lambda: commands_with(mark) != [], "no command began")
        await asyncio.sleep(0.15 * (stage - 3))


#: Fifty in all.
MANY = [pytest.param(10, id=f"10, part {part} of 5", marks=pytest.mark.slow) for part in range(1, 6)]


@pytest.mark.parametrize("kills", [5, *MANY])
async def test_killed_workers_leave_nothing_and_repeat_nothing_that_had_ended(live: Scene, kills: int) -> None:
    mark, ended, wids = new_mark(), dict[str, str](), list[str]()
    live.model.reset(script(COMMAND.format(mark=mark), after_s=0.2))
    for number in range(kills):
        stage, asked = number % 9, len(live.model.asked)
        if kills < 9:
            stage = (0, 1, 2, 4, 8)[number]
        wid = await live.start(f"kill {number} of {mark}")  # so that the agent's server knows no answer of an earlier test
        wids.append(wid)
        with live.worker() as worker:
            await moment(live, stage, asked, wid, mark)
            worker.kill()
            worker.wait()
        ended |= recorded(live.folder)
        await until(lambda: commands_with(mark) == [], "a command outlived its worker")

    with live.worker() as worker:
        for wid in wids:
            with contextlib.suppress(AssertionError):  # it was answered before
                await live.approve(wid)

        async def all_done() -> bool:
            return (await live.rows(DONE))[0]["done"] == kills

        await until(all_done, f"not every run was done; {live.log()[-2000:]}")
        tasks, calls = await live.rows(TASKS), await live.rows(CALLS)
        worker.terminate()
        assert await asyncio.to_thread(worker.wait, SOON_S) == 0

    ids = sorted(identity.run_id(wid) for wid in wids)
    assert [(row["run_id"], row["attempt"], row["err_code"]) for row in tasks] == [(id, 1, "NONE") for id in ids]
    said = {row["response"]["sandboxRef"]: row["response"]["stdout"] for row in tasks}
    assert {ref: said[ref] for ref in ended} == ended, "a command ran again although its end was recorded"
    assert sorted((row["run_id"], row["step_id"], row["calls"]) for row in calls) == sorted(
        (id, step, 1) for id in ids for step in ("CompileST", "DecideST")
    )
    assert live.busy_sessions() == {}
    assert processes_with(mark) == []
    slots = list(live.folder.glob("sandboxes/*"))
    assert [slot for slot in slots if not (slot / "result.json").exists()] == []
    groups = groups_here()
    places = [] if groups is None else groups.folders.values()
    assert [slot for slot in slots for place in places if (place / group_of(slot)).exists()] == []


def recorded(folder: Path) -> dict[str, str]:
    """What stands in each recorded result, by sandbox."""
    found = [SBXRes.model_validate_json(file.read_bytes()) for file in folder.glob("sandboxes/*/result.json")]
    return {result.sandboxRef: result.stdout for result in found}

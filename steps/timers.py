"""Workflows that wait or recur, for drills and for the record: a durable sleep, a slow step, and a tick every half minute.

What they leave behind are artifacts, which belong to runs; so the first row of each brings a run and an intent with it. Their tables
and the journal are one commit: a tick that was started counts once, and a sleep that a restart interrupts goes on.
"""

import asyncio
from datetime import datetime
from typing import Any, LiteralString

from engine import Engine, Rider, now, ride, sleep, step, workflow, workflow_info
from steps.canonical import sha256_json
from steps.contracts.base import JsonObject
from steps.crashdemo import mark
from steps.identity import artifact_uri, run_id
from steps.policy import CONTROL_QUEUE

SCHEDULE = "scheduled-ops"
EVERY_30_S = "*/30 * * * * *"

# An intent, a run and an artifact at once, whichever of them are new.
LEAVE = Rider("""
    with given as (
        select n.* from json_to_recordset(%s) as n (intent_id text, goal text, payload jsonb, run_id text, workflow_id text, status text,
                                                    step_id text, uri text, inline jsonb, sha256 text)),
    intent as (
        insert into app.intents (id, goal, payload) select distinct on (g.intent_id) g.intent_id, g.goal, g.payload from given g
            on conflict do nothing),
    run as (
        insert into app.runs (id, intent_id, workflow_id, status)
        select distinct on (g.workflow_id) g.run_id, g.intent_id, g.workflow_id, g.status from given g
            on conflict (workflow_id) do update set status = excluded.status, updated_at = now())
    insert into app.artifacts (run_id, step_id, task_key, idx, attempt, kind, uri, inline, sha256)
    select g.run_id, g.step_id, g.step_id, 0, 1, 'json_diagnostic', g.uri, g.inline, g.sha256 from given g
        on conflict do nothing
""")


def leave(step_id: str, content: JsonObject, *, intent_id: str, status: str) -> None:
    """Ride an artifact of this workflow, with the run that it belongs to, in this status."""
    wid = workflow_info().id
    inline: JsonObject = {"json": content}
    ride(
        LEAVE,
        {
            "intent_id": intent_id,
            "goal": intent_id,
            "payload": {"goal": intent_id, "inputs": {}, "constraints": {}},
            "run_id": run_id(wid),
            "workflow_id": wid,
            "status": status,
            "step_id": step_id,
            "uri": artifact_uri(run_id(wid), step_id, step_id, f"{step_id}.json"),
            "inline": inline,
            "sha256": sha256_json(inline),
        },
    )


# A durable sleep -----------------------------------------------------------------------------------------------------


@workflow(name="TimeWorkflow")
async def time_workflow(sleep_s: float) -> str:
    """Sleeps, holding nothing, and leaves an artifact before and after."""
    await note("sleep-before-sleep", await now(), "running")
    await sleep(sleep_s)
    await note("sleep-after-sleep", await now(), "succeeded")
    return "slept"


@step(name="noteTime")
async def note(step_id: str, at: datetime, status: str) -> None:
    leave(step_id, {"at": at.isoformat()}, intent_id=f"it-ops-{workflow_info().id}", status=status)


# A slow step ---------------------------------------------------------------------------------------------------------


@workflow(name="SlowStep", max_recovery_attempts=3)
async def slow_step(run_id: str, sleep_s: float) -> str:
    """A mark, a step that takes its time, and another mark."""
    await mark(run_id, "s1")
    await linger(sleep_s)
    await mark(run_id, "s2")
    return "marked"


@step(name="linger")
async def linger(sleep_s: float) -> None:
    """Takes this long, in memory: a restart begins anew, a cancel ends it."""
    await asyncio.sleep(sleep_s)


# A tick every half minute --------------------------------------------------------------------------------------------


@workflow(name="ScheduledOps")
async def scheduled_ops(at: str, context: Any) -> str:
    """Leaves a tick, once for its time."""
    return await tick(at)


@step(name="recordTick")
async def tick(at: str) -> str:
    leave("ScheduledTick", {"scheduledAt": at}, intent_id=SCHEDULE, status="succeeded")
    return at


PAUSE: LiteralString = "update dbos.workflow_schedules set status = 'PAUSED' where schedule_name = %s and status = 'ACTIVE'"
#: What was not wanted is not caught up with.
FORGET_PAUSE: LiteralString = """
    update dbos.workflow_schedules set last_fired_at = null where schedule_name = %s and status = 'PAUSED'
"""


async def set_schedule(engine: Engine, *, on: bool) -> None:
    """Tick from now on, catching up after every downtime; or stop it."""
    async with engine.transaction() as conn:
        await conn.execute(FORGET_PAUSE if on else PAUSE, (SCHEDULE,))
    if on:
        await engine.schedule(SCHEDULE, scheduled_ops, EVERY_30_S, queue=CONTROL_QUEUE)

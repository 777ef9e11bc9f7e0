"""What `bin/recipe improve` does: ask for an improvement, and on request wait for its end, telling on the way what it waits for."""

import asyncio
import time

from bin.operators import pretty
from bin.wiring import complain
from engine import Engine
from steps import improvements
from steps.contracts.improvement import ImprovementView, ImproveRequest
from steps.errors import Conflict
from steps.reason import why_not_running

LOOK_EVERY_S = 0.2


async def improve(engine: Engine, wid: str, asked: ImproveRequest, patience_s: int | None) -> str:
    """The improvement: just begun, or once it has ended. Raises NotFound, and Conflict when it was not published or takes too long."""
    begun = await improvements.begin(engine, wid, asked)
    if patience_s is None:
        return pretty(begun.document())
    ended = await ended_improvement(engine, begun, patience_s)
    if ended.status != "published":
        raise Conflict(f"{ended.workflowID} is {ended.status}: {ended.error or 'somebody cancelled it'}")
    return pretty(ended.document())


async def ended_improvement(engine: Engine, found: ImprovementView, patience_s: float) -> ImprovementView:
    """The improvement when it has ended. Raises Conflict when that takes longer."""
    began, told = time.monotonic(), ""
    while found.status == "under_way":
        if time.monotonic() - began > patience_s:
            raise Conflict(f"{found.workflowID} had not ended after {patience_s:.0f} s and goes on")
        await asyncio.sleep(LOOK_EVERY_S)
        async with engine.pool.connection() as conn:
            why = await why_not_running(conn, found.workflowID)
            found = (await improvements.list_improvements(conn, found.workflowID))[0]
        if why is not None and why.code in ("person", "no-worker") and why.sentence != told:
            told = why.sentence
            complain(f"{found.workflowID} {told}" if why.code == "person" else told)
    return found

"""The drill that proves durability: a workflow makes a mark, sleeps, and makes another one.

Kill whatever you like in between; in the end there are exactly two marks.
"""

from typing import LiteralString

from starlette.requests import Request
from starlette.responses import Response

from api.answers import DrillStarted, Marks
from api.http import BadRequest, Door, json_response, query_with_numbers
from steps.contracts.base import parse
from steps.contracts.ops import SleepWorkflowRequest
from steps.crashdemo import crash_demo
from steps.policy import CONTROL_QUEUE
from steps.timers import slow_step

MARKS: LiteralString = """
    select count(*) filter (where m.step = 's1'), count(*) filter (where m.step = 's2')
      from app.marks m
     where m.run_id = %s
"""


def workflow_id_of(request: Request) -> str:
    if workflow_id := request.query_params.get("wf"):
        return workflow_id
    raise BadRequest("wf query param required")


async def start(door: Door, request: Request) -> Response:
    """The same id again is the same drill."""
    workflow_id = workflow_id_of(request)
    config = door.config
    await door.engine.enqueue(
        crash_demo,
        workflow_id,
        config.crashdemo_sleep_ms / 1000,
        id=workflow_id,
        queue=CONTROL_QUEUE,
        version=config.app_version,
    )
    return json_response(DrillStarted(accepted=True, workflowId=workflow_id).document(), 202)


async def start_slow_step(door: Door, request: Request) -> Response:
    """The same id again is the same workflow. `sleep` is how long its slow step takes, in milliseconds."""
    query = {"wf": workflow_id_of(request)} | query_with_numbers(request, "sleep")
    asked = parse(SleepWorkflowRequest, query)
    version = door.config.app_version
    await door.engine.enqueue(slow_step, asked.wf, asked.sleep / 1000, id=asked.wf, queue=CONTROL_QUEUE, version=version)
    return json_response(DrillStarted(accepted=True, workflowId=asked.wf).document(), 202)


async def marks(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        found = await (await conn.execute(MARKS, (workflow_id_of(request),))).fetchone()
    s1, s2 = found or (0, 0)
    return json_response(Marks(s1=s1, s2=s2).document())

"""The drill that proves durability: a workflow makes a mark, sleeps, and makes another one.

Kill whatever you like in between; in the end there are exactly two marks.
"""

from typing import LiteralString

from starlette.requests import Request
from starlette.responses import Response

from api.http import BadRequest, Door, json_response
from steps.crashdemo import crash_demo

QUEUE = "controlQ"

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
        queue=QUEUE,
        version=config.app_version,
    )
    return json_response({"accepted": True, "workflowId": workflow_id}, 202)


async def marks(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        found = await (await conn.execute(MARKS, (workflow_id_of(request),))).fetchone()
    s1, s2 = found or (0, 0)
    return json_response({"s1": s1, "s2": s2})

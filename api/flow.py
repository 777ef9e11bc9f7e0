"""How work flows, over HTTP."""

from starlette.requests import Request
from starlette.responses import Response

from api.http import Door, json_response
from steps.flow import flow


async def get_flow(door: Door, request: Request) -> Response:
    async with door.engine.pool.connection() as conn:
        return json_response((await flow(conn)).document())

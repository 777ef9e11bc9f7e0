"""Improvements of recipes over HTTP: ask for one, and see what came of it. The flywheel itself is in steps.flywheel."""

from starlette.requests import Request
from starlette.responses import Response

from api.http import Door, json_response, read_signed
from api.views import require_run
from steps import improvements
from steps.contracts.base import parse
from steps.contracts.improvement import ImproveRequest

ACCEPTED = 202


async def improve(door: Door, request: Request) -> Response:
    """Begins an improvement, or finds the one that is under way."""
    asked = parse(ImproveRequest, await read_signed(door, request))
    begun = await improvements.begin(door.engine, request.path_params["wid"], asked, version=door.config.app_version)
    return json_response(begun.document(), ACCEPTED)


async def list_improvements(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        run = await require_run(conn, request.path_params["wid"])
        found = await improvements.list_improvements(conn, run.workflow_id)
    return json_response([one.document() for one in found])

"""Intents and runs over HTTP: start one, read one. The rules of starting are in steps.ingress."""

from starlette.requests import Request
from starlette.responses import Response

from api.http import Door, json_response, read_json
from api.views import find_run, run_header, started_run_header, step_rows
from steps import ingress
from steps.contracts.base import parse
from steps.contracts.intent import Intent, RunStartRequest
from steps.errors import NotFound


async def create_intent(door: Door, request: Request) -> Response:
    intent = parse(Intent, await read_json(door, request))
    return json_response({"intentId": await ingress.create_intent(door.engine, intent)}, 201)


async def start_run(door: Door, request: Request) -> Response:
    """201 for a fresh run, 200 for one that was started before with the same particulars."""
    asked = parse(RunStartRequest, await read_json(door, request))
    config = door.config
    started = await ingress.start_run(door.engine, asked, config.queue_rules, version=config.app_version)
    header = started_run_header(started.run, config, is_replay=started.is_replay)
    return json_response(header.document(), 200 if started.is_replay else 201)


async def get_run(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        run = await find_run(conn, request.path_params["wid"])
    if run is None:
        raise NotFound("run not found")
    return json_response(run_header(run, door.config).document())


async def list_steps(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        run = await find_run(conn, request.path_params["wid"])
        if run is None:
            raise NotFound("run not found")
        rows = await step_rows(conn, run)
    return json_response([row.document() for row in rows])

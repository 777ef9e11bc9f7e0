"""Intents and runs over HTTP: start one, read its header. The rules of starting are in steps.ingress."""

from typing import cast

from starlette.requests import Request
from starlette.responses import Response
from structlog.contextvars import bind_contextvars

from api.answers import IntentCreated
from api.http import BadRequest, Door, Json, json_response, read_json
from api.views import require_run, run_header, started_run_header
from steps import compat, ingress
from steps.contracts.base import JsonObject, Text, parse
from steps.contracts.intent import Intent, RunRequest, RunStartRequest


class StoredRunRequest(RunRequest):
    """The options of a start, with the intent that is to run."""

    intentId: Text


async def create_intent(door: Door, request: Request) -> Response:
    intent = compat.rehearsed(parse(Intent, await read_json(door, request)))
    intent_id = await ingress.create_intent(door.engine, intent, seed=door.config.random_seed)
    return json_response(IntentCreated(intentId=intent_id).document(), 201)


async def start_run(door: Door, request: Request) -> Response:
    """201 for a fresh run, 200 for one that was started before with the same particulars."""
    asked = parse(RunStartRequest, await read_json(door, request))
    config = door.config
    started = await ingress.start_run(door.engine, asked, config.queue_rules, version=config.app_version)
    return started_response(door, started)


async def start_stored(door: Door, request: Request) -> Response:
    """The same for an intent that is stored already."""
    given = await read_json(door, request)
    require_intent_id(given)
    asked = parse(StoredRunRequest, given, "RunRequest")
    config = door.config
    started = await ingress.start_intent(door.engine, asked.intentId, asked, config.queue_rules, version=config.app_version)
    return started_response(door, started)


def require_intent_id(given: Json) -> None:
    if not isinstance(given, dict):
        raise BadRequest("invalid json payload")
    intent_id = cast(JsonObject, given).get("intentId")
    if not isinstance(intent_id, str) or not intent_id.strip():
        raise BadRequest("intentId required")


def started_response(door: Door, started: ingress.StartedRun) -> Response:
    bind_contextvars(wid=started.run.workflow_id)
    header = started_run_header(started.run, door.config, is_replay=started.is_replay)
    return json_response(header.document(), 200 if started.is_replay else 201)


async def get_run(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        run = await require_run(conn, request.path_params["wid"])
        header = await run_header(conn, run, door.config)
    return json_response(header.document())

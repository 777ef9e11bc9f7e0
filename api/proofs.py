"""Evidence over HTTP: the proof cards of a run, the verdicts of its recipe's checks, and the whole run as one document."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from api.http import JSON_TYPE, Door, json_response
from api.views import require_run
from steps.contracts.base import JsonObject
from steps.contracts.proof import EvalRow
from steps.documents import without_none
from steps.errors import NotFound
from steps.proofs import Verdict, proof_cards, verdicts_of
from steps.repro import pack_bytes, repro_pack


async def list_proofs(door: Door, request: Request) -> Response:
    async with door.engine.pool.connection() as conn:
        cards = await proof_cards(conn, request.path_params["wid"])
    return json_response([card.document() for card in cards])


async def list_eval(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        run = await require_run(conn, request.path_params["wid"])
        verdicts = await verdicts_of(conn, run.run_id)
    return json_response([eval_row(verdict).document() for verdict in verdicts])


def eval_row(verdict: Verdict) -> EvalRow:
    row: JsonObject = {"checkId": verdict.check_id, "pass": verdict.passed, "reason": verdict.reason, "createdAt": verdict.at_ms}
    return EvalRow.model_validate(without_none(row | {"payload": verdict.payload}))


async def get_repro(door: Door, request: Request) -> Response:
    """The same bytes as bin/repro-pack writes."""
    async with door.engine.pool.connection() as conn:
        pack = await repro_pack(conn, request.path_params["wid"])
    if pack is None:
        raise NotFound("run not found")
    return Response(await asyncio.to_thread(pack_bytes, pack), media_type=JSON_TYPE)

"""Evidence over HTTP: the proof cards of a run, and the whole run as one document."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from api.http import JSON_TYPE, Door, json_response
from steps.errors import NotFound
from steps.proofs import proof_cards
from steps.repro import pack_bytes, repro_pack


async def list_proofs(door: Door, request: Request) -> Response:
    async with door.engine.pool.connection() as conn:
        cards = await proof_cards(conn, request.path_params["wid"])
    return json_response([card.document() for card in cards])


async def get_repro(door: Door, request: Request) -> Response:
    """The same bytes as bin/repro-pack writes."""
    async with door.engine.pool.connection() as conn:
        pack = await repro_pack(conn, request.path_params["wid"])
    if pack is None:
        raise NotFound("run not found")
    return Response(await asyncio.to_thread(pack_bytes, pack), media_type=JSON_TYPE)

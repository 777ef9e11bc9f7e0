"""The throughput board over HTTP."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from api.http import Door, json_response
from steps.load_tests import read_load_tests
from steps.throughput import throughput


async def get_board(door: Door, request: Request) -> Response:
    load_tests = await asyncio.to_thread(read_load_tests, door.config.k6_dir)
    async with door.engine.pool.connection() as conn:
        board = await throughput(conn, load_tests)
    return json_response(board.document())

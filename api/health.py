"""Is this process serving?

It says nothing about the database or the workers: a restart of this process would not mend those.
"""

from starlette.requests import Request
from starlette.responses import Response

from api.answers import Ok
from api.http import Door, json_response


async def healthz(door: Door, request: Request) -> Response:
    return json_response(Ok(ok=True).document())

"""What goes wrong, and what the client hears: one table from types to answers.

The lattice is 400 malformed, 401 unknown, 403 not allowed, 404 missing, 409 illegal, 429 too many, 500 unexpected, 503 the database is
away. A refusal of the product carries its own status and body; what nobody foresaw is logged with its traceback and answered without
details.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import psycopg
import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.access import Forbidden, Unauthorized
from api.http import BadRequest, TooSlow, json_response
from api.pace import TooMany
from engine import ConflictingWorkflow, DuplicateWork, InvalidName, NoSuchWorkflow, cannot_now
from steps.errors import ProductError

Answer: TypeAlias = tuple[int, Mapping[str, object]]

UNEXPECTED: Answer = 500, {"error": "internal error"}
AWAY: Answer = 503, {"error": "the database is away at the moment; ask again"}
UNROUTED: Answer = 404, {"error": "not found"}

ANSWERS: Mapping[type[Exception], Callable[[Any], Answer]] = {
    ProductError: lambda error: (error.status, error.body()),
    BadRequest: lambda error: (400, {"error": str(error)}),
    TooMany: lambda error: (429, {"error": str(error)}),
    Unauthorized: lambda error: (401, {"error": str(error)}),
    Forbidden: lambda error: (403, {"error": str(error)}),
    InvalidName: lambda error: (400, {"error": str(error)}),
    NoSuchWorkflow: lambda error: (404, {"error": f"workflow not found: {error.workflow_id}"}),
    ConflictingWorkflow: lambda error: (409, {"error": str(error)}),
    DuplicateWork: lambda error: (409, {"error": str(error)}),
    psycopg.Error: lambda error: AWAY if cannot_now(error) else UNEXPECTED,
    HTTPException: lambda error: UNROUTED if error.status_code in (404, 405) else UNEXPECTED,
}

RETRY_AWAY_S = 1

log = structlog.get_logger("api")


def answer_to(error: Exception) -> Answer:
    for kind in type(error).__mro__:
        if kind in ANSWERS:
            return ANSWERS[kind](error)
    return UNEXPECTED


def refusal(request: Request, error: Exception) -> Response:
    status, body = answer_to(error)
    if status == 500:
        log.error("request failed", method=request.method, path=request.url.path, exc_info=error)
        body = UNEXPECTED[1]
    if status == 503:
        log.warning("the database is away", method=request.method, path=request.url.path, error_type=type(error).__qualname__)
    response = json_response(body, status)
    if status == 401:
        response.headers["www-authenticate"] = "Bearer"
    if status == 503:
        response.headers["retry-after"] = str(RETRY_AWAY_S)
    if isinstance(error, TooMany):
        response.headers["retry-after"] = str(math.ceil(error.wait_s))
    if isinstance(error, TooSlow):
        response.headers["connection"] = "close"  # the rest of the body is not waited for
    return response

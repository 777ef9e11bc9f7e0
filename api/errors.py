"""What goes wrong, and what the client hears: one table from types to answers.

The lattice is 400 malformed, 404 missing, 409 illegal, 500 unexpected. A refusal of the product carries its
own status and body; what nobody foresaw is logged with its traceback and answered without details.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from api.http import BadRequest, json_response
from engine import ConflictingWorkflow, DuplicateWork, InvalidName, NoSuchWorkflow
from steps.errors import ProductError

Answer: TypeAlias = tuple[int, Mapping[str, object]]

UNEXPECTED: Answer = 500, {"error": "internal error"}
UNROUTED: Answer = 404, {"error": "not found"}

ANSWERS: Mapping[type[Exception], Callable[[Any], Answer]] = {
    ProductError: lambda error: (error.status, error.body()),
    BadRequest: lambda error: (400, {"error": str(error)}),
    InvalidName: lambda error: (400, {"error": str(error)}),
    NoSuchWorkflow: lambda error: (404, {"error": f"workflow not found: {error.workflow_id}"}),
    ConflictingWorkflow: lambda error: (409, {"error": str(error)}),
    DuplicateWork: lambda error: (409, {"error": str(error)}),
    HTTPException: lambda error: UNROUTED if error.status_code in (404, 405) else UNEXPECTED,
}

log = structlog.get_logger("api")


def answer_to(error: Exception) -> Answer:
    for kind in type(error).__mro__:
        if kind in ANSWERS:
            return ANSWERS[kind](error)
    return UNEXPECTED


def refusal(request: Request, error: Exception) -> Response:
    status, body = answer_to(error)
    if status >= 500:
        log.error("request failed", method=request.method, path=request.url.path, exc_info=error)
        body = UNEXPECTED[1]
    return json_response(body, status)

"""The OpenAPI document, made from the models that requests are parsed with and answers are made of."""

import functools
import re
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any, cast

from pydantic import TypeAdapter
from pydantic.json_schema import GenerateJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from api.access import COOKIE, needed
from api.answers import Refusal
from api.http import JSON_TYPE, Door, json_response
from api.operations import OPERATIONS, Media, Operation
from steps.contracts.base import JsonObject, Wire

PARAMETER = re.compile(r"{(\w+)}")

REFUSALS: Mapping[int, str] = {
    400: "Malformed, or against the rules of the queues.",
    401: "Nobody whom the service knows asks: it wants a token.",
    403: "Who asks may not, or the page of another site asks.",
    404: "There is no such thing.",
    409: "It exists in a state that forbids this.",
    410: "The older routes are switched off.",
    429: "Too many requests with one token, or too many clients that wait; `retry-after` says when to ask again.",
    500: "Unexpected. Details are in the log only.",
    503: "The database is away at the moment; `retry-after` says when to ask again. What was asked may have been done all the same.",
}
EVERYWHERE = (400, 403, 429, 500, 503)


async def get_document(door: Door, request: Request) -> Response:
    return json_response(document(door.config.app_version))


@functools.cache
def document(version: str) -> JsonObject:
    """The whole document. It is kept, so do not change it."""
    models = Models()
    paths: dict[str, JsonObject] = {}
    for (method, path), operation in OPERATIONS.items():
        paths.setdefault(path, {})[method.lower()] = _described(method, path, operation, models)
    refusal = {JSON_TYPE: {"schema": models.of(Refusal)}}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Holdfast",
            "version": version,
            "description": "Durable runs from intents written as data. JSON in and out. A refusal has written nothing.",
        },
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}, {"cookie": []}],
        "tags": [{"name": tag} for tag in dict.fromkeys(operation.tag for operation in OPERATIONS.values())],
        "paths": paths,
        "components": {
            "schemas": models.shared,
            "responses": {str(status): {"description": means, "content": refusal} for status, means in REFUSALS.items()},
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer"},
                "cookie": {"type": "apiKey", "in": "cookie", "name": COOKIE},
            },
        },
    }


class Untitled(GenerateJsonSchema):
    """Without titles that only repeat a field's name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


class Models:
    """The JSON Schemas of all types that the operations name, each model once, under its name."""

    def __init__(self) -> None:
        kinds = {repr(kind): kind for operation in OPERATIONS.values() for kind in (*_taken_and_answered(operation), Refusal)}
        inputs = [(name, "validation", TypeAdapter(kind)) for name, kind in kinds.items()]
        schemas, shared = TypeAdapter[Any].json_schemas(
            cast(Any, inputs), ref_template="#/components/schemas/{model}", schema_generator=Untitled
        )
        self._schemas = {name: schema for (name, _), schema in schemas.items()}
        self.shared: JsonObject = shared["$defs"]

    def of(self, kind: Any) -> JsonObject:
        return self._schemas[repr(kind)]

    def allows_nothing(self, model: type[Wire]) -> bool:
        """Whether an empty object is one."""
        return not self.shared[self.of(model)["$ref"].rpartition("/")[2]].get("required")


def _taken_and_answered(operation: Operation) -> list[Any]:
    answers = [kind for kind in operation.answers.values() if not isinstance(kind, Media)]
    return [*answers, *operation.path.values(), *([operation.body] if operation.body else [])]


def _described(method: str, path: str, operation: Operation, models: Models) -> JsonObject:
    described: JsonObject = {
        "operationId": "_".join([method.lower(), *re.findall(r"\w+", path)]),
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": [*_in_path(path, operation, models), *_in_query(operation)],
        "responses": {str(status): _answer(status, kind, models) for status, kind in operation.answers.items()}
        | {
            str(status): {"$ref": f"#/components/responses/{status}"}
            for status in sorted({*operation.also, *EVERYWHERE, *asked(method, path)})
        },
    }
    if operation.deprecated:
        described["deprecated"] = True
    if operation.body is not None:
        described["requestBody"] = {
            "required": not models.allows_nothing(operation.body),
            "content": {JSON_TYPE: {"schema": models.of(operation.body)}},
        }
    return described


def asked(method: str, path: str) -> tuple[int, ...]:
    """What a route answers to those without a token, if it wants one."""
    return () if needed(method, path) is None and path not in ("/api/session", "/api/events/hitl") else (401,)


def _in_path(path: str, operation: Operation, models: Models) -> list[JsonObject]:
    plain = {"type": "string", "minLength": 1}
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "schema": models.of(operation.path[name]) if name in operation.path else plain,
        }
        for name in PARAMETER.findall(path)
    ]


def _in_query(operation: Operation) -> list[JsonObject]:
    if operation.query is None:
        return []
    schema = operation.query.model_json_schema(schema_generator=Untitled)
    required = schema.get("required", [])
    return [
        {"name": name, "in": "query", "required": name in required, "schema": _without_null(found)}
        for name, found in schema["properties"].items()
    ]


def _without_null(schema: JsonObject) -> JsonObject:
    """The schema without null, which a query cannot say."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return kinds[0] | {key: value for key, value in schema.items() if key != "anyOf" and value is not None}


def _answer(status: int, kind: Any, models: Models) -> JsonObject:
    if isinstance(kind, Media):
        return {"description": kind.means, "content": {kind.type: {}}}
    return {"description": HTTPStatus(status).phrase, "content": {JSON_TYPE: {"schema": models.of(kind)}}}

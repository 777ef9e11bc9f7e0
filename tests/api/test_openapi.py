"""GET /openapi.json describes every route, validly, and GET /docs shows it without help from elsewhere."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema
import pytest
from pydantic import ValidationError
from schemathesis.specs.openapi.definitions import OPENAPI_31

from api.answers import Refusal
from api.app import ROUTES
from api.openapi import document
from api.operations import OPERATIONS
from steps.errors import Conflict, InvalidInput, ProductError, QueuePolicyError, RunIdentityConflict

DOCUMENT = document("v1")
CONVERTER = re.compile(r":\w+}")


def operations() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield f"{method.upper()} {path}", operation


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        yield from ([node["$ref"]] if "$ref" in node else [])
        for value in node.values():
            yield from references(value)
    elif isinstance(node, list):
        for value in node:
            yield from references(value)


def test_it_describes_every_route_and_no_other() -> None:
    assert set(OPERATIONS) == {(method, CONVERTER.sub("}", path)) for method, path, _ in ROUTES}


async def test_it_is_served(client: httpx.AsyncClient) -> None:
    response = await client.get("/openapi.json")
    assert response.json() == document("test")
    assert response.json()["info"]["version"] == "test"


def test_it_is_an_openapi_document() -> None:
    jsonschema.Draft202012Validator(OPENAPI_31).validate(DOCUMENT)


def test_every_schema_in_it_is_one() -> None:
    for schema in DOCUMENT["components"]["schemas"].values():
        jsonschema.Draft202012Validator.check_schema(schema)


def test_every_reference_leads_somewhere_and_every_model_is_referred_to() -> None:
    found = set(references(DOCUMENT))
    parts = {kind: named for kind, named in DOCUMENT["components"].items() if kind != "securitySchemes"}
    assert found == {f"#/components/{kind}/{name}" for kind, named in parts.items() for name in named}
    assert {name for choice in DOCUMENT["security"] for name in choice} == set(DOCUMENT["components"]["securitySchemes"])


def test_every_operation_has_an_id_of_its_own_a_summary_a_success_and_refusals() -> None:
    ids = [operation["operationId"] for _, operation in operations()]
    assert len(set(ids)) == len(ids)
    for name, operation in operations():
        assert operation["summary"].endswith("."), name
        statuses = sorted(operation["responses"])
        assert statuses[0].startswith("2"), name
        assert {"400", "500"} <= set(statuses), name
        assert ("404" in statuses) or "{" not in name or name in LISTS, name


#: An unknown run or recipe has an empty list.
LISTS = (
    "GET /api/runs/{wid}/proofs",
    "GET /api/runs/{wid}/gates",
    "GET /api/runs/{wid}/interactions",
    "GET /api/recipes/{recipe_id}/versions",
    "GET /api/recipes/{recipe_id}/improvements",
)


def test_every_parameter_of_a_path_is_described() -> None:
    for name, operation in operations():
        described = [parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"]
        assert described == re.findall(r"{(\w+)}", name), name


REFUSALS: list[ProductError] = [
    InvalidInput("no", [{"instancePath": "/a", "keyword": "type", "message": "must be string", "params": {"type": "string"}}]),
    QueuePolicyError("no"),
    Conflict("no", "running"),
    RunIdentityConflict("w", [{"field": "traceId", "existing": None, "incoming": "t"}]),
]


@pytest.mark.parametrize("error", REFUSALS, ids=lambda error: type(error).__name__)
def test_a_refusal_is_what_the_document_says(error: ProductError) -> None:
    assert Refusal.model_validate(error.body()).document() == error.body()


def test_a_refusal_has_nothing_else() -> None:
    with pytest.raises(ValidationError):
        Refusal.model_validate({"error": "no", "stack": "…"})


async def test_the_page_shows_every_route_and_every_model(client: httpx.AsyncClient) -> None:
    response = await client.get("/docs")
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    for name, operation in operations():
        assert f'<details id="{operation["operationId"]}">' in response.text
        assert name.partition(" ")[2] in response.text
    for name in DOCUMENT["components"]["schemas"]:
        assert f'<h4 id="{name}">' in response.text


async def test_the_page_needs_no_other_host_and_no_script(client: httpx.AsyncClient) -> None:
    response = await client.get("/docs")
    assert re.findall(r"https?:|<script|\bsrc=|@import|url\(", response.text) == []
    assert response.headers["content-security-policy"] == "default-src 'none'; style-src 'unsafe-inline'"
    targets = set(re.findall(r'href="#([^"]+)"', response.text))
    assert targets - set(re.findall(r'id="([^"]+)"', response.text)) == set()
    assert len(targets) > 50

"""The page about the front door: the OpenAPI document as HTML, which needs no other host and no script."""

import functools
from pathlib import Path

import orjson
from jinja2 import Environment
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from api.http import Door
from api.openapi import document
from steps.contracts.base import JsonObject

TEMPLATE = Path(__file__).with_name("docs.html")
SCHEMAS = "#/components/schemas/"
HEADERS = {"content-security-policy": "default-src 'none'; style-src 'unsafe-inline'"}


async def get_page(door: Door, request: Request) -> Response:
    return HTMLResponse(page(door.config.app_version), headers=HEADERS)


@functools.cache
def page(version: str) -> str:
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["schema"] = shown
    described = document(version)
    return environment.from_string(TEMPLATE.read_text()).render(
        info=described["info"],
        tags=[tag["name"] for tag in described["tags"]],
        operations=operations(described),
        schemas=described["components"]["schemas"],
        refusals=described["components"]["responses"],
    )


def operations(described: JsonObject) -> list[JsonObject]:
    return [
        operation | {"method": method.upper(), "path": path}
        for path, methods in described["paths"].items()
        for method, operation in methods.items()
    ]


def shown(schema: JsonObject) -> Markup:
    """A schema as indented JSON, in which the names of others lead to them."""
    text = escape(orjson.dumps(schema, option=orjson.OPT_INDENT_2).decode())
    before, *rest = text.split(escape(f'"{SCHEMAS}'))
    for part in rest:
        name, _, after = part.partition(escape('"'))
        before += Markup('<a href="#{0}">{0}</a>').format(name) + after
    return Markup(before)

"""Recipes over HTTP: the registry itself is in steps.recipes."""

from starlette.requests import Request
from starlette.responses import Response

from api.answers import BundleImported
from api.http import JSON_TYPE, Door, json_response, read_json
from steps import recipes
from steps.contracts.base import parse
from steps.contracts.recipe import RecipeBundle, RecipeExportRequest


async def list_recipes(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        return json_response(await recipes.list_recipes(conn))


async def list_versions(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        return json_response(await recipes.list_versions(conn, request.path_params["recipe_id"]))


async def import_bundle(door: Door, request: Request) -> Response:
    bundle = parse(RecipeBundle, await read_json(door, request))
    async with door.engine.transaction() as conn:
        versions = await recipes.import_bundle(conn, bundle)
    imported = BundleImported(id=bundle.id, versions=sorted(versions, key=lambda version: version.v))
    return json_response(imported.document(), 201)


async def export_recipe(door: Door, request: Request) -> Response:
    """Canonical JSON, so that importing an export and exporting it again gives the same bytes."""
    asked = parse(RecipeExportRequest, await read_json(door, request))
    async with door.reading() as conn:
        return Response(await recipes.export_recipe(conn, asked.id), media_type=JSON_TYPE)

"""Recipes over HTTP: the registry itself is in steps.recipes, the way from draft to stable in steps.promotion."""

import asyncio
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from api.answers import BundleImported
from api.http import JSON_TYPE, Door, json_response, noticing_departure, numbers_in_query, query_of, read_json, read_signed
from steps import improvements, promotion, recipes
from steps.contracts.base import Wire, parse
from steps.contracts.intent import RecipeRef
from steps.contracts.recipe import (
    CandidateRequest,
    PromotedVersion,
    PromoteRequest,
    PromotionView,
    RecipeBundle,
    RecipeExportRequest,
    VersionStatus,
)
from steps.errors import NotFound


class PromotionQuery(Wire):
    """timeoutS: how long to wait for the end, in seconds."""

    timeoutS: Annotated[int, Field(ge=0, le=30)] = 0


def ref_of(request: Request) -> RecipeRef:
    return parse(RecipeRef, {"id": request.path_params["recipe_id"], "v": request.path_params["v"]})


async def list_recipes(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        return json_response(await recipes.list_recipes(conn))


async def list_versions(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        return json_response(await recipes.list_versions(conn, request.path_params["recipe_id"]))


async def get_version(door: Door, request: Request) -> Response:
    ref = ref_of(request)
    async with door.reading() as conn:
        version = await recipes.show_version(conn, ref)
        latest = await promotion.find(conn, ref)
    return json_response(version.model_copy(update={"promotion": latest}).document())


async def list_improvements(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        found = await improvements.list_of_recipe(conn, request.path_params["recipe_id"])
    return json_response([view.document() for view in found])


async def import_bundle(door: Door, request: Request) -> Response:
    body = await read_json(door, request)
    bundle = await asyncio.to_thread(lambda: parse(RecipeBundle, body))  # which may take seconds
    async with door.engine.transaction() as conn:
        versions = await recipes.import_bundle(conn, bundle)
    imported = BundleImported(id=bundle.id, versions=sorted(versions, key=lambda version: version.v))
    return json_response(imported.document(), 201)


async def export_recipe(door: Door, request: Request) -> Response:
    """Canonical JSON, so that importing an export and exporting it again gives the same bytes."""
    asked = parse(RecipeExportRequest, await read_json(door, request))
    async with door.reading() as conn:
        return Response(await recipes.export_recipe(conn, asked.id), media_type=JSON_TYPE)


async def make_candidate(door: Door, request: Request) -> Response:
    ref = ref_of(request)
    asked = parse(CandidateRequest, await read_signed(door, request))
    async with door.engine.transaction() as conn:
        version = await promotion.set_candidate(conn, ref, actor=asked.actor, reason=asked.reason)
    return json_response(VersionStatus(version.id, version.v, version.hash, version.status))


async def promote(door: Door, request: Request) -> Response:
    """202 while the fixtures are run, 200 for a version that is stable already."""
    ref = ref_of(request)
    asked = parse(PromoteRequest, await read_signed(door, request))
    begun = await promotion.begin(door.engine, ref, actor=asked.actor, reason=asked.reason, version=door.config.app_version)
    version = begun.version
    answer = PromotedVersion(version.id, version.v, version.hash, version.status, begun.promotion)
    return json_response(answer, 200 if begun.promotion is None else 202)


async def get_promotion(door: Door, request: Request) -> Response:
    """The newest promotion of a version, once it has ended or as it is after timeoutS."""
    ref = ref_of(request)
    query = parse(PromotionQuery, numbers_in_query(query_of(request, only=("timeoutS",))))
    async with door.reading() as conn:
        found = await promotion.find(conn, ref)
    if found is None:
        raise NotFound(f"recipe version {ref.id}@{ref.v} was never promoted")
    if found.status == "under_way" and query.timeoutS:
        found = await ended_promotion(door, request, ref, found, query.timeoutS)
    return json_response(found)


async def ended_promotion(door: Door, request: Request, ref: RecipeRef, found: PromotionView, wait_s: float) -> PromotionView:
    """The promotion when it has ended, or as it is when the time is up or the client has gone."""
    door.waits.require_room()
    deadline = asyncio.get_running_loop().time() + wait_s
    async with door.waits.watch(found.workflowID) as changed, noticing_departure(request, changed) as departed:
        while True:
            changed.clear()
            over = door.waits.closing or departed.done() or asyncio.get_running_loop().time() >= deadline
            async with door.reading() as conn:
                found = await promotion.find(conn, ref, found.attempt) or found
            if over or found.status != "under_way":
                return found
            try:
                async with asyncio.timeout_at(deadline):
                    await changed.wait()
            except TimeoutError:
                continue

"""What a run left behind: artifacts by their address, and the history of its patches."""

from typing import Any, LiteralString, cast

import orjson
from psycopg import AsyncConnection
from psycopg.rows import dict_row
from starlette.requests import Request
from starlette.responses import Response

from api.http import Door, Json, json_response
from api.views import find_run, mime_of
from steps.contracts.base import JsonObject
from steps.errors import InvalidInput, NotFound
from steps.identity import parse_artifact_uri

#: The latest attempt that left something under this address. The run and step only narrow the search.
ARTIFACT: LiteralString = """
    select a.run_id as "runId", a.step_id as "stepID", a.task_key as "taskKey", a.idx, a.attempt, a.kind,
           a.uri as id, a.sha256, a.inline
      from app.artifacts a
     where a.run_id = %s and a.step_id = %s and a.uri = %s
     order by a.attempt desc, a.created_at desc
     limit 1
"""


async def get_artifact(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        artifact = await find_artifact(conn, request.path_params["uri"])
    if artifact is None:
        raise NotFound("artifact not found")
    return content_of(artifact)


async def find_artifact(conn: AsyncConnection[Any], uri: str) -> JsonObject | None:
    try:
        address = parse_artifact_uri(uri)
    except InvalidInput:
        return None
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(ARTIFACT, (address.run_id, address.step_id, uri))
        return await cursor.fetchone()


def content_of(artifact: JsonObject) -> Response:
    """The content, out of its envelope {"json": …} or {"text": …}; what is not stored inline is described."""
    inline: Json = artifact.pop("inline")
    envelope = cast(JsonObject, inline) if isinstance(inline, dict) else {}
    mime = mime_of(artifact["kind"], holds_json="json" in envelope)
    if inline is None:
        return json_response(artifact | {"mime": mime})
    if "json" in envelope:
        return Response(orjson.dumps(envelope["json"]), media_type=mime)
    if isinstance(envelope.get("text"), str):
        return Response(envelope["text"], media_type=mime)
    return json_response(inline)


PATCHES: LiteralString = """
    select p.patch_index as "patchIndex", p.target_path as "targetPath", p.preimage_hash as "preimageHash",
           p.postimage_hash as "postimageHash", p.diff_hash as "diffHash",
           floor(extract(epoch from p.applied_at) * 1000)::bigint as "appliedAt",
           floor(extract(epoch from p.rolled_back_at) * 1000)::bigint as "rolledBackAt",
           floor(extract(epoch from p.created_at) * 1000)::bigint as "createdAt"
      from app.patch_history p
     where p.run_id = %s and p.step_id = %s
     order by p.patch_index
"""


async def list_patches(door: Door, request: Request) -> Response:
    async with door.reading() as conn:
        run = await find_run(conn, request.path_params["wid"])
        if run is None:
            raise NotFound("run not found")
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(PATCHES, (run.run_id, request.path_params["step_id"]))
            return json_response(await cursor.fetchall())

"""What a run left behind: artifacts by their address, and the history of its patches.

An artifact holds what a recipe, an agent or a sandbox produced, so it is served as content that nobody trusts: with its own media type
and no other, in a sandbox without scripts, and what a browser could draw is a download.
"""

import asyncio
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import Any, LiteralString, cast
from urllib.parse import quote

from psycopg import AsyncConnection
from psycopg.rows import dict_row
from starlette.requests import Request
from starlette.responses import Response

from api.http import Door, Json, json_response
from api.views import require_run
from steps.artifacts import content_text
from steps.contracts.base import JsonObject
from steps.contracts.views import PatchRow
from steps.errors import InvalidInput, NotFound
from steps.identity import parse_artifact_uri

JSON_KINDS = frozenset(
    {
        "json",
        "raw",
        "timings",
        "artifact_index",
        "question_card",
        "plan_card",
        "json_diagnostic",
        "patch_apply",
        "ops",
    }
)
UNTRUSTED: Mapping[str, str] = {
    "x-content-type-options": "nosniff",
    "content-security-policy": "sandbox; default-src 'none'",
    "cross-origin-resource-policy": "same-origin",
}
#: Characters of both sides together; the comparison takes time that grows faster than they do.
LONGEST_DIFFED = 200_000


@dataclass(frozen=True, slots=True)
class ArtifactRow:
    """An artifact without its content. size: of the content, in bytes."""

    step_id: str
    task_key: str
    attempt: int
    kind: str
    uri: str
    size: int
    holds_json: bool


def mime_of(kind: str | None, *, holds_json: bool) -> str:
    if holds_json or kind in JSON_KINDS:
        return "application/json"
    return "image/svg+xml" if kind == "svg" else "text/plain"


def artifact_ref(artifact: ArtifactRow, workflow_id: str) -> JsonObject:
    return {
        "id": artifact.uri,
        "workflowID": workflow_id,
        "stepID": artifact.step_id,
        "kind": artifact.kind,
        "mime": mime_of(artifact.kind, holds_json=artifact.holds_json),
        "size": artifact.size,
    }


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
    response = content_of(artifact)
    response.headers.update(UNTRUSTED)
    response.headers["content-disposition"] = disposition(artifact["id"], response.media_type)
    return response


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
        return Response(content_text(envelope), media_type=mime)
    if isinstance(envelope.get("text"), str):
        return Response(envelope["text"], media_type=mime)
    return json_response(inline)


def disposition(uri: str, mime: str | None) -> str:
    """Text and JSON may be looked at in place; anything else is saved under the last part of its name."""
    if mime in ("text/plain", "application/json"):
        return "inline"
    return f"attachment; filename*=UTF-8''{quote(uri.rpartition('/')[2], safe='')}"


# Patches ----------------------------------------------------------------------------------------------------

PATCH: LiteralString = """
    select p.patch_index as "patchIndex", p.target_path as "targetPath", p.preimage_hash as "preimageHash",
           p.postimage_hash as "postimageHash", p.diff_hash as "diffHash",
           floor(extract(epoch from p.applied_at) * 1000)::bigint as "appliedAt",
           floor(extract(epoch from p.rolled_back_at) * 1000)::bigint as "rolledBackAt",
           floor(extract(epoch from p.created_at) * 1000)::bigint as "createdAt"
"""
PATCHES: LiteralString = (
    PATCH
    + """
      from app.patch_history p
     where p.run_id = %s and p.step_id = %s
     order by p.patch_index
"""
)
PATCHES_OF_RUN: LiteralString = (
    PATCH
    + """
           , p.step_id as "stepID", p.preimage_existed, p.preimage_content, p.postimage_content
      from app.patch_history p
     where p.run_id = %s
     order by p.step_id, p.patch_index
"""
)


async def list_patches(door: Door, request: Request) -> Response:
    """The file changes of one step."""
    async with door.reading() as conn:
        run = await require_run(conn, request.path_params["wid"])
        async with conn.cursor(row_factory=dict_row) as cursor:
            await cursor.execute(PATCHES, (run.run_id, request.path_params["step_id"]))
            rows = await cursor.fetchall()
    return json_response([PatchRow.model_validate(row).document() for row in rows])


async def list_run_patches(door: Door, request: Request) -> Response:
    """The file changes of a whole run, with their diffs."""
    async with door.reading() as conn:
        run = await require_run(conn, request.path_params["wid"])
        rows = await patches_of_run(conn, run.run_id)
    return json_response([row.document() for row in await with_diffs(rows)])


async def patches_of_run(conn: AsyncConnection[Any], run_id: str) -> list[JsonObject]:
    """Every file change of a run, in order, for `with_diffs`."""
    async with conn.cursor(row_factory=dict_row) as cursor:
        await cursor.execute(PATCHES_OF_RUN, (run_id,))
        return await cursor.fetchall()


async def with_diffs(rows: Sequence[JsonObject]) -> list[PatchRow]:
    """Each with a diff of what the ledger holds, unless that is very long. It takes its time: hold no connection meanwhile."""
    return await asyncio.to_thread(lambda: [patch_row(row) for row in rows])


def patch_row(row: JsonObject) -> PatchRow:
    existed, before, after = (row.pop(name) for name in ("preimage_existed", "preimage_content", "postimage_content"))
    if len(before) + len(after) > LONGEST_DIFFED:
        return PatchRow.model_validate(row)
    path = row["targetPath"]
    return PatchRow.model_validate(
        row | {"diff": unified_diff(before, after, f"a/{path}" if existed else "/dev/null", f"b/{path}")}
    )


def unified_diff(before: str, after: str, before_name: str, after_name: str) -> str:
    """As `diff -u` writes it, the mark of a last line without end included."""
    lines = difflib.unified_diff(StringIO(before).readlines(), StringIO(after).readlines(), before_name, after_name)
    return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

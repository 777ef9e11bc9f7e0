"""The sign-off board over HTTP: evidence from files, triggers from the database. The rules are in steps.signoff."""

import asyncio
import stat
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from api.http import Door, json_response
from steps import signoff
from steps.contracts.signoff import SignoffPosture
from steps.signoff import MOST_BYTES, PF_TILES, PROOF_TILES, Evidence, Release


async def get_board(door: Door, request: Request) -> Response:
    config = door.config
    evidence = await asyncio.to_thread(read_evidence, config.evidence_dir)
    release = Release(config.signoff_commit, config.signoff_tree, config.app_version)
    posture = SignoffPosture(
        topology=config.runtime_mode,
        runtimeMode=config.runtime_mode,
        ocMode=config.oc_mode,
        sbxMode=config.sbx_mode,
        sbxProvider=config.sbx_provider,
        appVersion=config.app_version,
        claimScope=config.claim_scope,
    )
    async with door.reading() as conn:
        board = await signoff.board(conn, evidence, release, posture, oc_strict=config.oc_strict_mode)
    return json_response(board.document())


def read_evidence(folder: Path | None) -> dict[str, Evidence]:
    """The files of evidence in the folder by their tiles' names. One that can't be read is not there."""
    if folder is None:
        return {}
    found: dict[str, Evidence] = {}
    for name in (*PF_TILES, *PROOF_TILES):
        path = folder / f"{name}.json"
        try:
            status = path.stat()
            if not stat.S_ISREG(status.st_mode):
                continue
            with path.open("rb") as file:
                text = file.read(MOST_BYTES + 1)
        except OSError:
            continue
        found[name] = Evidence(text if len(text) <= MOST_BYTES else None, status.st_mtime_ns // 1_000_000)
    return found

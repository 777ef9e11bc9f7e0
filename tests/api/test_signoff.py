"""The sign-off board as the release manager sees it: GO only with fresh evidence for everything and nothing against it."""

import json
import os
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg.types.json import Jsonb

from api.app import create_app
from api.config import Config
from engine import Engine
from steps.contracts.base import parse
from steps.contracts.signoff import SignoffBoard
from steps.signoff import MOST_BYTES, PF_TILES, PROOF_TILES
from tests.api.samples import RUN_ID, WID, Rows

BOARD = "/api/ops/signoff"


class Board:
    """The board of a service that is set up for a sign-off, and its folder of evidence."""

    def __init__(self, engine: Engine, database: str, folder: Path, **changes: Any) -> None:
        settings: dict[str, Any] = {
            "database_url": database,
            "app_version": "v7",
            "claim_scope": "signoff",
            "oc_strict_mode": True,
            "evidence_dir": folder,
            "signoff_commit": "c1",
            "signoff_tree": "t1",
        }
        self.folder = folder
        self.app = create_app(engine, Config(**settings | changes))

    def leave(self, name: str, **changes: Any) -> Path:
        said = {"verdict": "GO", "evidenceRefs": ["log:x"], "ts": 7, "commit": "c1", "tree": "t1", "appVersion": "v7"}
        path = self.folder / f"{name}.json"
        path.write_text(json.dumps(said | changes))
        return path

    def leave_everything(self) -> None:
        for name in (*PF_TILES, *PROOF_TILES):
            self.leave(name)

    async def read(self) -> dict[str, Any]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.app), base_url="http://front-door") as client:
            answer = await client.get(BOARD)
        assert answer.status_code == 200
        said = answer.json()
        parse(SignoffBoard, said)
        tiles = [*said["pfTiles"], *said["proofTiles"], *said["rollbackTriggers"]]
        assert said["verdict"] == ("GO" if all(tile["verdict"] == "GO" for tile in tiles) else "NO_GO")
        assert said["ts"] == max(tile["ts"] for tile in tiles)
        return said

    async def against(self) -> dict[str, str]:
        """Why each tile that is a NO_GO is one."""
        said = await self.read()
        tiles = [*said["pfTiles"], *said["proofTiles"], *said["rollbackTriggers"]]
        return {tile["id"]: tile["reason"] for tile in tiles if tile["verdict"] == "NO_GO"}


@pytest.fixture
async def board(engine: Engine, database: str, tmp_path: Path, rows: Rows) -> Board:
    """With all the evidence that it takes."""
    board = Board(engine, database, tmp_path)
    board.leave_everything()
    return board


async def test_fresh_evidence_for_everything_and_nothing_against_it_is_a_go(board: Board) -> None:
    said = await board.read()
    assert said["verdict"] == "GO"
    assert [tile["id"] for tile in said["pfTiles"]] == list(PF_TILES)
    assert [tile["id"] for tile in said["proofTiles"]] == list(PROOF_TILES)
    assert [(tile["id"], tile["label"]) for tile in said["rollbackTriggers"]] == [
        ("trigger-posture", "Claim Posture Guard"),
        ("trigger-budget", "Budget Violations (24h)"),
        ("trigger-x1-drift", "Duplicate Side-Effects / X1 Keys"),
        ("trigger-fresh-failures", "Fresh Failures (24h)"),
        ("trigger-divergence", "Terminal Divergence"),
        ("trigger-false-green", "Policy False-Green"),
    ]
    assert said["posture"] == {
        "topology": "api-shim",
        "runtimeMode": "api-shim",
        "ocMode": "replay",
        "sbxMode": "mock",
        "sbxProvider": "e2b",
        "appVersion": "v7",
        "claimScope": "signoff",
    }


async def test_a_fresh_service_is_no_go_and_says_why(client: httpx.AsyncClient) -> None:
    said = (await client.get(BOARD)).json()
    assert said["verdict"] == "NO_GO"
    assert {tile["reason"] for tile in [*said["pfTiles"], *said["proofTiles"]]} == {"missing signoff results"}
    assert said["rollbackTriggers"][0]["reason"] == "claim_scope_demo"


@pytest.mark.parametrize("name", [*PF_TILES, *PROOF_TILES])
async def test_every_single_piece_of_evidence_is_needed(board: Board, name: str) -> None:
    (board.folder / f"{name}.json").unlink()
    assert await board.against() == {name: "missing signoff results"}


@pytest.mark.parametrize("name", ["pf-full", "proof-x1-audit"])
async def test_a_single_no_go_is_the_verdict(board: Board, name: str) -> None:
    board.leave(name, verdict="NO_GO", reason="2 tests failed")
    assert await board.against() == {name: "2 tests failed"}


async def test_evidence_for_another_tree_is_no_go(board: Board) -> None:
    board.leave("pf-deps", tree="t0")
    assert await board.against() == {"pf-deps": "tree_mismatch"}


async def test_a_go_without_evidence_trips_the_false_green_trigger(board: Board) -> None:
    board.leave("pf-check", evidenceRefs=[])
    board.leave("proof-hitl-dedupe", evidenceRefs=[" "])
    assert await board.against() == {
        "pf-check": "pf_tile_missing_evidence_refs",
        "proof-hitl-dedupe": "proof_tile_missing_evidence_refs",
        "trigger-false-green": "mandatory_go_tile_missing_evidence: pf-check, proof-hitl-dedupe",
    }


async def test_a_service_that_is_not_told_its_release_is_no_go(engine: Engine, database: str, tmp_path: Path) -> None:
    board = Board(engine, database, tmp_path, signoff_commit=None)
    board.leave_everything()
    assert set((await board.against()).values()) == {"commit_not_configured"}


async def test_a_file_that_cannot_be_used_is_no_go(board: Board) -> None:
    large = board.leave("pf-quick")
    large.write_bytes(large.read_bytes().ljust(MOST_BYTES + 1))
    just_fits = board.leave("pf-policy")
    just_fits.write_bytes(just_fits.read_bytes().ljust(MOST_BYTES))
    (board.folder / "pf-check.json").write_text("[]")
    (board.folder / "pf-full.json").unlink()
    (board.folder / "pf-full.json").mkdir()
    (board.folder / "pf-deps.json").unlink()
    os.mkfifo(board.folder / "pf-deps.json")  # reading it would never end
    assert await board.against() == {
        "pf-quick": f"invalid signoff tile payload (more than {MOST_BYTES} bytes)",
        "pf-check": "invalid signoff tile payload (expected object)",
        "pf-full": "missing signoff results",
        "pf-deps": "missing signoff results",
    }


async def test_the_claim_scope_is_shown_by_runs_and_by_the_board(board: Board, rows: Rows) -> None:
    await rows.run("running")
    async with httpx.AsyncClient(transport=httpx.ASGITransport(board.app), base_url="http://front-door") as client:
        header = (await client.get(f"/api/runs/{WID}")).json()
    posture = (await board.read())["posture"]
    assert posture["claimScope"] == "signoff"
    assert {name: header[name] for name in posture} == posture


# Triggers ---------------------------------------------------------------------------------------------------


async def test_a_budget_that_stopped_a_run_in_the_last_day_is_against_it(board: Board, rows: Rows) -> None:
    await rows.run("running")
    for task, outcome, age in (
        ("maxFanout", "blocked", "1 hour"),
        ("maxWallClockMS", "blocked", "25 hours"),
        ("x", "warned", "0"),
    ):
        await rows.fetch(
            """insert into app.artifacts (run_id, step_id, idx, task_key, kind, inline, sha256, created_at)
               values (%s, 'BUDGET', 0, %s, 'json_diagnostic', %s, 'x', now() - %s::interval)""",
            RUN_ID,
            task,
            Jsonb({"json": {"kind": "budget", "outcome": outcome}}),
            age,
        )
    assert await board.against() == {"trigger-budget": f"budget_violations_24h=1 ({RUN_ID}:maxFanout)"}


async def test_a_side_effect_that_happened_twice_is_against_it(board: Board, rows: Rows) -> None:
    await rows.run("running")
    insert = """insert into app.mock_receipts (receipt_key, run_id, step_id, payload_hash, first_attempt, last_attempt, seen_count,
                                               request_payload) values (%s, %s, 'ExecuteST', %s, 1, %s, %s, '{}')"""
    await rows.fetch(insert, "once", RUN_ID, "a", 1, 1)
    await rows.fetch(insert, "once, at the third try", RUN_ID, "b", 3, 1)
    assert await board.against() == {}
    await rows.fetch(insert, "twice", RUN_ID, "c", 1, 2)
    await rows.fetch(insert, "the same under another key", RUN_ID, "a", 1, 1)
    assert await board.against() == {"trigger-x1-drift": "mock_receipts_seen_count_gt1=2"}


async def test_a_reply_that_counted_twice_is_against_it(board: Board, rows: Rows) -> None:
    insert = """insert into app.human_interactions (workflow_id, gate_key, topic, dedupe_key, payload_hash, payload, origin)
                values ('w', 'g', 'human:g', %s, repeat('a', 64), '{}', 'manual')"""
    await rows.fetch(insert, "one")
    await rows.fetch(insert, "two")
    assert await board.against() == {}
    [(key,)] = await rows.fetch(
        "select conname from pg_constraint where conrelid = 'app.human_interactions'::regclass and contype = 'u'"
    )
    assert key == "human_interactions_workflow_id_gate_key_topic_dedupe_key_key"
    drop = "alter table app.human_interactions drop constraint human_interactions_workflow_id_gate_key_topic_dedupe_key_key"
    await rows.fetch(drop)
    try:
        await rows.fetch(insert, "two")
        assert await board.against() == {"trigger-x1-drift": "human_interactions_x1_tuple_dupes=1"}
    finally:
        await rows.fetch("truncate app.human_interactions")
        await rows.fetch("alter table app.human_interactions add unique (workflow_id, gate_key, topic, dedupe_key)")


@pytest.mark.parametrize("status", ["failed", "retries_exceeded"])
async def test_a_run_that_failed_in_the_last_day_is_against_it(board: Board, rows: Rows, status: str) -> None:
    await rows.run(status, workflow_status="ERROR")
    assert await board.against() == {"trigger-fresh-failures": f"failing_runs_24h=1 ({WID}:{status})"}
    await rows.fetch("update app.runs set updated_at = now() - interval '25 hours'")
    assert await board.against() == {}


@pytest.mark.parametrize(
    ("status", "workflow_status"),
    [
        ("succeeded", "SUCCESS"),
        ("canceled", "CANCELLED"),
        ("queued", "ENQUEUED"),
        ("running", "PENDING"),
        ("waiting_input", "ENQUEUED"),
        ("repairing", "ENQUEUED"),
    ],
)
async def test_a_run_that_agrees_with_its_workflow_is_not_against_it(
    board: Board, rows: Rows, status: str, workflow_status: str
) -> None:
    await rows.run(status, workflow_status=workflow_status)
    assert await board.against() == {}


@pytest.mark.parametrize(
    ("status", "workflow_status"),
    [
        ("succeeded", "PENDING"),
        ("succeeded", "ERROR"),
        ("canceled", "SUCCESS"),
        ("running", "SUCCESS"),
        ("waiting_input", "CANCELLED"),
        ("running", "ERROR"),
        ("queued", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"),
    ],
)
async def test_a_run_that_disagrees_with_its_workflow_is_against_it(
    board: Board, rows: Rows, status: str, workflow_status: str
) -> None:
    await rows.run(status, workflow_status=workflow_status)
    assert await board.against() == {"trigger-divergence": f"app_dbos_terminal_mismatches=1 ({WID}:{status}/{workflow_status})"}


async def test_a_succeeded_run_without_a_workflow_is_against_it(board: Board, rows: Rows) -> None:
    await rows.run("succeeded", workflow_status="SUCCESS")
    await rows.fetch("delete from dbos.workflow_status")
    assert await board.against() == {"trigger-divergence": f"app_dbos_terminal_mismatches=1 ({WID}:succeeded/MISSING)"}


async def test_a_workflow_of_another_kind_may_say_so_a_moment_before_it_succeeds(board: Board, rows: Rows) -> None:
    await rows.run("succeeded", workflow_status="PENDING")
    await rows.fetch("update dbos.workflow_status set class_name = null")
    assert await board.against() == {}
    await rows.fetch("update dbos.workflow_status set status = 'CANCELLED'")
    assert await board.against() == {"trigger-divergence": f"app_dbos_terminal_mismatches=1 ({WID}:succeeded/CANCELLED)"}


async def test_a_few_of_many_are_named(board: Board, rows: Rows) -> None:
    for number in range(5):
        await rows.run("retries_exceeded", workflow_id=f"w{number}", workflow_status="ERROR")
        await rows.fetch(
            "update app.runs set updated_at = now() + make_interval(secs => %s) where workflow_id = %s", number, f"w{number}"
        )
    assert await board.against() == {
        "trigger-fresh-failures": "failing_runs_24h=5 (w4:retries_exceeded, w3:retries_exceeded, w2:retries_exceeded)"
    }

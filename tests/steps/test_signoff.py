"""Evidence is believed only for the release at hand, and only if it can be looked up; a demo claims nothing."""

import json
from typing import Any

import pytest

from steps.contracts.base import JsonObject, parse
from steps.contracts.signoff import SignoffPosture
from steps.signoff import (
    MOST_BYTES,
    PF_TILES,
    PROOF_TILES,
    Evidence,
    Judged,
    Release,
    false_green_trigger,
    judge,
    posture_trigger,
)

RELEASE = Release(commit="c1", tree="t1", app_version="v1")
GOOD: JsonObject = {
    "verdict": "GO",
    "evidenceRefs": ["test:tests/x.py::test_y"],
    "ts": 7,
    "commit": "c1",
    "tree": "t1",
    "appVersion": "v1",
}


def judged(said: object, release: Release = RELEASE, kind: Any = "pf") -> Judged:
    text = said if isinstance(said, bytes) else json.dumps(said).encode()
    return judge("pf-quick", kind, Evidence(text, modified_at_ms=5), release)


def shown(said: object, release: Release = RELEASE, kind: Any = "pf") -> JsonObject:
    return judged(said, release, kind).tile.document()


def test_there_are_six_lanes_and_eight_proofs() -> None:
    assert [name.partition("-")[0] for name in (*PF_TILES, *PROOF_TILES)] == ["pf"] * 6 + ["proof"] * 8
    assert len({*PF_TILES, *PROOF_TILES}) == 14


def test_evidence_for_this_release_is_a_go() -> None:
    assert shown(GOOD) == {"id": "pf-quick", "label": "PF-QUICK", **GOOD}


def test_evidence_may_name_itself_and_give_a_reason_for_a_go() -> None:
    said = GOOD | {"id": "pf-quick", "label": "Quick lane", "reason": "without the slow tests"}
    assert shown(said) == said


def test_no_evidence_is_no_go() -> None:
    tile = judge("pf-quick", "pf", None, RELEASE).tile
    assert tile.document() == {
        "id": "pf-quick",
        "label": "PF-QUICK",
        "verdict": "NO_GO",
        "evidenceRefs": ["file:signoff/pf-quick.json"],
        "reason": "missing signoff results",
        "ts": 0,
    }


@pytest.mark.parametrize("said", [b"", b"{", b"[]", b"null", b'"GO"', b"7", b"\xff", b"[" * 5000])
def test_what_is_no_object_is_no_go(said: bytes) -> None:
    tile = judged(said).tile
    assert (tile.verdict, tile.reason, tile.ts) == ("NO_GO", "invalid signoff tile payload (expected object)", 5)


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "go"},
        {"verdict": None},
        {"evidenceRefs": "x"},
        {"evidenceRefs": [1]},
        {"ts": "7"},
        {"ts": -1},
        {"ts": 1.5},
        {"commit": 7},
        {"label": ""},
        {"reason": ["a"]},
        {"bogus": 1},
        {"id": "pf-check"},
    ],
    ids=str,
)
def test_what_is_no_tile_is_no_go(change: JsonObject) -> None:
    tile = judged(GOOD | change).tile
    assert (tile.verdict, tile.reason, tile.label) == ("NO_GO", "invalid signoff tile contract", "PF-QUICK")


def test_a_tile_without_a_verdict_is_none() -> None:
    assert judged({key: value for key, value in GOOD.items() if key != "verdict"}).tile.reason == "invalid signoff tile contract"


def test_a_file_that_is_too_large_is_not_read() -> None:
    tile = judge("pf-quick", "pf", Evidence(None, 5), RELEASE).tile
    assert (tile.verdict, tile.ts) == ("NO_GO", 5)
    assert tile.reason == f"invalid signoff tile payload (more than {MOST_BYTES} bytes)"


@pytest.mark.parametrize("said", [GOOD | {"ts": 0}, {key: value for key, value in GOOD.items() if key != "ts"}])
def test_a_tile_without_a_time_is_as_old_as_its_file(said: JsonObject) -> None:
    assert shown(said)["ts"] == 5


@pytest.mark.parametrize("kind", ["pf", "proof"])
@pytest.mark.parametrize("refs", [[], ["", "  "], None])
def test_a_go_that_does_not_say_why_is_no_go_and_a_false_green(kind: str, refs: list[str] | None) -> None:
    said = {key: value for key, value in GOOD.items() if key != "evidenceRefs"}
    one = judged(said if refs is None else said | {"evidenceRefs": refs}, kind=kind)
    assert one.claims_without_evidence
    assert (one.tile.verdict, one.tile.reason) == ("NO_GO", f"{kind}_tile_missing_evidence_refs")
    assert one.tile.evidenceRefs == ["file:signoff/pf-quick.json"]


def test_a_no_go_needs_no_evidence_and_keeps_its_reason() -> None:
    one = judged(GOOD | {"verdict": "NO_GO", "evidenceRefs": [], "reason": "2 tests failed"})
    assert not one.claims_without_evidence
    assert (one.tile.verdict, one.tile.reason) == ("NO_GO", "2 tests failed")


def test_evidence_refs_are_trimmed_and_blank_ones_dropped() -> None:
    assert shown(GOOD | {"evidenceRefs": [" a ", "", "b"]})["evidenceRefs"] == ["a", "b"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"commit": "c2"}, "commit_mismatch"),
        ({"tree": "t2"}, "tree_mismatch"),
        ({"appVersion": "v2"}, "app_version_mismatch"),
        ({"commit": "c2", "tree": "t2", "appVersion": "v2"}, "commit_mismatch; tree_mismatch; app_version_mismatch"),
        ({"commit": None}, "commit_missing"),
        ({"tree": ""}, "tree_missing"),
        ({"appVersion": None, "reason": "hm"}, "hm; app_version_missing"),
    ],
    ids=str,
)
def test_evidence_for_another_release_is_no_go(change: JsonObject, reason: str) -> None:
    tile = judged(GOOD | change).tile
    assert (tile.verdict, tile.reason) == ("NO_GO", reason)


def test_a_service_that_is_not_told_its_release_takes_no_evidence() -> None:
    assert shown(GOOD, Release(None, None, "v1"))["reason"] == "commit_not_configured; tree_not_configured"
    assert shown(GOOD, Release("c1", "", "v1"))["verdict"] == "NO_GO"


def posture(**values: str) -> SignoffPosture:
    said = {"topology": "api-shim", "runtimeMode": "api-shim", "ocMode": "live", "sbxMode": "live", "sbxProvider": "e2b"}
    return parse(SignoffPosture, {**said, "appVersion": "v1", "claimScope": "signoff", **values})


@pytest.mark.parametrize(
    ("values", "strict", "reason"),
    [
        ({"claimScope": "demo"}, True, "claim_scope_demo"),
        ({"claimScope": "demo"}, False, "claim_scope_demo"),
        ({"claimScope": "signoff"}, False, "oc_strict_mode_required"),
        ({"claimScope": "signoff", "ocMode": "replay", "sbxMode": "mock"}, True, None),
        ({"claimScope": "live-smoke"}, True, None),
        ({"claimScope": "live-smoke", "ocMode": "record"}, True, "oc_mode_live_required"),
        (
            {"claimScope": "live-smoke", "ocMode": "replay", "sbxMode": "mock"},
            False,
            "oc_strict_mode_required; oc_mode_live_required; sbx_mode_live_required",
        ),
    ],
    ids=str,
)
def test_what_may_be_claimed_depends_on_the_posture(values: dict[str, str], strict: bool, reason: str | None) -> None:
    tile = posture_trigger(posture(**values), 9, oc_strict=strict)
    assert (tile.id, tile.verdict, tile.reason, tile.ts) == ("trigger-posture", "NO_GO" if reason else "GO", reason, 9)


def test_the_false_green_trigger_names_the_tiles() -> None:
    tile = false_green_trigger(["pf-full", "proof-x1-audit"], 9)
    assert tile.reason == "mandatory_go_tile_missing_evidence: pf-full, proof-x1-audit"
    assert tile.evidenceRefs[1:] == ["tile:pf-full", "tile:proof-x1-audit"]
    assert false_green_trigger([], 9).document() == {
        "id": "trigger-false-green",
        "label": "Policy False-Green",
        "verdict": "GO",
        "evidenceRefs": ["policy:every GO has evidence"],
        "ts": 9,
    }

"""May this be released? Six lanes, eight proofs and six triggers, each GO or NO_GO; a single NO_GO is the verdict.

Lanes and proofs are known from files of evidence, which the commands of bin/ write about what they ran. A file counts only for the
commit, the tree and the version that it was made for, and only if it says where its evidence is. Triggers are what must not be
the case right now: they are read from the settings and from the database. Whatever is missing or can't be read is a NO_GO.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, LiteralString, TypeAlias

import orjson
from psycopg import AsyncConnection

from steps.contracts.base import parse
from steps.contracts.signoff import SignoffBoard, SignoffPosture, SignoffTile, Verdict
from steps.errors import InvalidInput

PF_TILES = ("pf-quick", "pf-check", "pf-full", "pf-deps", "pf-policy", "pf-crashdemo")
PROOF_TILES = (
    "proof-api-run-idem",
    "proof-api-run-drift",
    "proof-malformed-400",
    "proof-x1-audit",
    "proof-split-parity",
    "proof-hitl-dedupe",
    "proof-queue-fairness",
    "proof-budget-guard",
)
MOST_BYTES = 64 * 1024

Kind: TypeAlias = Literal["pf", "proof"]


@dataclass(frozen=True, slots=True)
class Release:
    """What is to be signed off. What is None can't be matched by any evidence."""

    commit: str | None
    tree: str | None
    app_version: str | None


@dataclass(frozen=True, slots=True)
class Evidence:
    """A file of evidence as it was found. text: None when it is larger than MOST_BYTES."""

    text: bytes | None
    modified_at_ms: int


async def board(
    conn: AsyncConnection[Any],
    evidence: Mapping[str, Evidence],
    release: Release,
    posture: SignoffPosture,
    *,
    oc_strict: bool,
) -> SignoffBoard:
    """The board as of now. evidence: the files there are, by the name of their tile."""
    at_ms = await now_ms(conn)
    lanes = [judge(name, "pf", evidence.get(name), release) for name in PF_TILES]
    proofs = [judge(name, "proof", evidence.get(name), release) for name in PROOF_TILES]
    triggers = [
        posture_trigger(posture, at_ms, oc_strict=oc_strict),
        *[await read_trigger(conn, trigger, at_ms) for trigger in TRIGGERS],
        false_green_trigger([judged.tile.id for judged in (*lanes, *proofs) if judged.claims_without_evidence], at_ms),
    ]
    tiles = [*(judged.tile for judged in (*lanes, *proofs)), *triggers]
    return SignoffBoard(
        verdict=_verdict([tile for tile in tiles if tile.verdict == "NO_GO"]),
        posture=posture,
        pfTiles=[judged.tile for judged in lanes],
        proofTiles=[judged.tile for judged in proofs],
        rollbackTriggers=triggers,
        ts=max(tile.ts for tile in tiles),
    )


def _verdict(against: Sequence[object]) -> Verdict:
    return "NO_GO" if against else "GO"


# Files of evidence ------------------------------------------------------------------------------------------

MISSING = "missing signoff results"
NO_OBJECT = "invalid signoff tile payload (expected object)"
TOO_LARGE = f"invalid signoff tile payload (more than {MOST_BYTES} bytes)"
NO_TILE = "invalid signoff tile contract"


@dataclass(frozen=True, slots=True)
class Judged:
    """A tile as the board shows it. claims_without_evidence: its file says GO and not why."""

    tile: SignoffTile
    claims_without_evidence: bool = False


def judge(name: str, kind: Kind, found: Evidence | None, release: Release) -> Judged:
    """The tile of that name, from its file."""
    if found is None:
        return unusable(name, MISSING, 0)
    if found.text is None:
        return unusable(name, TOO_LARGE, found.modified_at_ms)
    try:
        said = orjson.loads(found.text)
    except orjson.JSONDecodeError:
        said = None
    if not isinstance(said, dict):
        return unusable(name, NO_OBJECT, found.modified_at_ms)
    try:
        tile = parse(SignoffTile, {"id": name, "label": name.upper(), "evidenceRefs": [], "ts": 0} | said)
    except InvalidInput:
        return unusable(name, NO_TILE, found.modified_at_ms)
    if tile.id != name:
        return unusable(name, NO_TILE, found.modified_at_ms)
    return judge_tile(tile, kind, found.modified_at_ms, release)


def judge_tile(tile: SignoffTile, kind: Kind, modified_at_ms: int, release: Release) -> Judged:
    refs = [ref.strip() for ref in tile.evidenceRefs if ref.strip()]
    unproved = tile.verdict == "GO" and not refs
    against = [f"{kind}_tile_missing_evidence_refs"] if unproved else []
    against += binding_faults(tile, release)
    reasons = [tile.reason, *against] if tile.reason else against
    changes: dict[str, object] = {"evidenceRefs": refs or [file_ref(tile.id)], "ts": tile.ts or modified_at_ms}
    if against:
        changes["verdict"] = "NO_GO"
    if reasons:
        changes["reason"] = "; ".join(reasons)
    return Judged(tile.model_copy(update=changes), unproved)


def binding_faults(tile: SignoffTile, release: Release) -> list[str]:
    """Why the tile is not about this release. Both sides must say what they are about."""
    faults: list[str] = []
    for what, wanted, given in (
        ("commit", release.commit, tile.commit),
        ("tree", release.tree, tile.tree),
        ("app_version", release.app_version, tile.appVersion),
    ):
        if not wanted:
            faults.append(f"{what}_not_configured")
        elif not given:
            faults.append(f"{what}_missing")
        elif given != wanted:
            faults.append(f"{what}_mismatch")
    return faults


def unusable(name: str, reason: str, at_ms: int) -> Judged:
    return Judged(
        SignoffTile(id=name, label=name.upper(), verdict="NO_GO", evidenceRefs=[file_ref(name)], reason=reason, ts=at_ms)
    )


def file_ref(name: str) -> str:
    return f"file:signoff/{name}.json"


# Triggers ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Count:
    """Something of which there must be nothing. query: how many there are, and a few of them."""

    what: str
    table: str
    query: LiteralString


@dataclass(frozen=True, slots=True)
class Trigger:
    """A trigger that the database knows about."""

    id: str
    label: str
    counts: tuple[Count, ...]


BUDGET_VIOLATIONS: LiteralString = """
    select count(*), (array_agg(a.run_id || ':' || a.task_key order by a.created_at desc, a.run_id, a.task_key))[:3]
      from app.artifacts a
     where a.step_id = 'BUDGET' and a.inline #>> '{json,outcome}' = 'blocked' and a.created_at > now() - interval '24 hours'
       and exists (select from app.runs r where r.id = a.run_id and r.purpose = 'run')
"""

# A receipt is the same side effect when run, step and payload are the same, however often its step was tried.
REPEATED_EFFECTS: LiteralString = """
    select count(*), null::text[]
      from (select from app.mock_receipts m group by m.run_id, m.step_id, m.payload_hash having sum(m.seen_count) > 1) x
"""

REPEATED_REPLIES: LiteralString = """
    select count(*), null::text[]
      from (select from app.human_interactions h
             group by h.workflow_id, h.gate_key, h.topic, h.dedupe_key having count(*) > 1) x
"""

FRESH_FAILURES: LiteralString = """
    select count(*), (array_agg(r.workflow_id || ':' || r.status order by r.updated_at desc, r.workflow_id))[:3]
      from app.runs r
     where r.purpose = 'run' and r.status in ('failed', 'retries_exceeded') and r.updated_at > now() - interval '24 hours'
"""

# One commit ends a run and its workflow, so one snapshot never sees them disagree. Workflows of other kinds write their rows in
# app.runs by themselves, a moment before they end, so of those only a success is held against an end that is none.
DIVERGENCE: LiteralString = """
    select count(*),
           (array_agg(r.workflow_id || ':' || r.status || '/' || coalesce(s.status, 'MISSING')
                      order by r.updated_at desc, r.workflow_id))[:3]
      from app.runs r
      left join dbos.workflow_status s on s.workflow_uuid = r.workflow_id
     where (r.status = 'succeeded'
            and (s.status is null or s.status in ('ERROR', 'CANCELLED', 'MAX_RECOVERY_ATTEMPTS_EXCEEDED')))
        or (s.class_name = 'IntentWorkflow'
            and case s.status when 'SUCCESS' then r.status <> 'succeeded'
                              when 'CANCELLED' then r.status <> 'canceled'
                              when 'ERROR' then r.status not in ('failed', 'retries_exceeded')
                              when 'MAX_RECOVERY_ATTEMPTS_EXCEEDED' then r.status not in ('failed', 'retries_exceeded')
                              else r.status = 'succeeded' end)
"""

TRIGGERS = (
    Trigger("trigger-budget", "Budget Violations (24h)", (Count("budget_violations_24h", "app.artifacts", BUDGET_VIOLATIONS),)),
    Trigger(
        "trigger-x1-drift",
        "Duplicate Side-Effects / X1 Keys",
        (
            Count("mock_receipts_seen_count_gt1", "app.mock_receipts", REPEATED_EFFECTS),
            Count("human_interactions_x1_tuple_dupes", "app.human_interactions", REPEATED_REPLIES),
        ),
    ),
    Trigger("trigger-fresh-failures", "Fresh Failures (24h)", (Count("failing_runs_24h", "app.runs", FRESH_FAILURES),)),
    Trigger("trigger-divergence", "Terminal Divergence", (Count("app_dbos_terminal_mismatches", "app.runs", DIVERGENCE),)),
)


async def now_ms(conn: AsyncConnection[Any]) -> int:
    row = await (await conn.execute("select engine.now_ms()")).fetchone()
    assert row is not None
    return int(row[0])


async def read_trigger(conn: AsyncConnection[Any], trigger: Trigger, at_ms: int) -> SignoffTile:
    reasons: list[str] = []
    for count in trigger.counts:
        row = await (await conn.execute(count.query)).fetchone()
        assert row is not None
        if row[0]:
            reasons.append(f"{count.what}={row[0]}" + (f" ({', '.join(row[1])})" if row[1] else ""))
    refs = [f"sql:{count.table}#{count.what}" for count in trigger.counts]
    return trigger_tile(trigger.id, trigger.label, refs, reasons, at_ms)


def posture_trigger(posture: SignoffPosture, at_ms: int, *, oc_strict: bool) -> SignoffTile:
    """A demo claims nothing. A sign-off needs an agent that fails rather than improvises, a live smoke the real things besides."""
    reasons: list[str] = []
    if posture.claimScope == "demo":
        reasons.append("claim_scope_demo")
    elif not oc_strict:
        reasons.append("oc_strict_mode_required")
    if posture.claimScope == "live-smoke":
        reasons += [] if posture.ocMode == "live" else ["oc_mode_live_required"]
        reasons += [] if posture.sbxMode == "live" else ["sbx_mode_live_required"]
    refs = [f"config:{name}" for name in ("CLAIM_SCOPE", "OC_STRICT_MODE", "OC_MODE", "SBX_MODE")]
    return trigger_tile("trigger-posture", "Claim Posture Guard", refs, reasons, at_ms)


def false_green_trigger(claims: Sequence[str], at_ms: int) -> SignoffTile:
    """claims: the tiles whose files say GO without showing why."""
    reasons = [f"mandatory_go_tile_missing_evidence: {', '.join(claims)}"] if claims else []
    refs = ["policy:every GO has evidence", *(f"tile:{claim}" for claim in claims)]
    return trigger_tile("trigger-false-green", "Policy False-Green", refs, reasons, at_ms)


def trigger_tile(tile_id: str, label: str, refs: list[str], reasons: Sequence[str], at_ms: int) -> SignoffTile:
    tile = SignoffTile(id=tile_id, label=label, verdict=_verdict(reasons), evidenceRefs=refs, ts=at_ms)
    return tile.model_copy(update={"reason": "; ".join(reasons)}) if reasons else tile

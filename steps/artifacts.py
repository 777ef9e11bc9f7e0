"""What a run leaves to look at: a plan, patches, logs, diagnostics, each an addressable row with the hash of its content.

The content stands inline, JSON as {"json": …} and text as {"text": …}. A kind says what it is and how it is shown. Index 999
marks a row that says why there is nothing else, or that something went wrong.
"""

from typing import Literal

from engine import Rider, ride
from steps.canonical import compact_json, sha256_json
from steps.contracts.base import JsonObject
from steps.identity import artifact_uri
from steps.run_record import is_fork_of

Kind = Literal[
    "plan_card",
    "json_diagnostic",
    "patch_apply",
    "patch",
    "none",
    "artifact_index",
    "log",
    "file",
    "raw",
    "timings",
    "ops",
]

ASIDE = 999

ARTIFACT = Rider("""
    insert into app.artifacts (run_id, step_id, task_key, idx, attempt, kind, uri, inline, sha256)
    select n.run_id, n.step_id, n.task_key, n.idx, n.attempt, n.kind, n.uri, n.inline, n.sha256
      from json_to_recordset(%s) as n (run_id text, step_id text, task_key text, idx int, attempt int, kind text, uri text,
                                       inline jsonb, sha256 text)
    on conflict do nothing
""")


def content_text(inline: JsonObject) -> str:
    """The content out of its envelope, as text: JSON is compact, its keys in the order in which they are stored."""
    if "json" in inline:
        return compact_json(inline["json"])
    text = inline.get("text")
    return text if isinstance(text, str) else compact_json(inline)


def ride_artifact(
    run_id: str,
    step_id: str,
    kind: Kind,
    name: str,
    inline: JsonObject,
    *,
    idx: int,
    attempt: int,
    task_key: str = "",
    keep: bool = False,
) -> str:
    """Ride an artifact's row, unless this is a fork; returns its URI. JSON goes in as {"json": …}, text as {"text": …}."""
    uri = artifact_uri(run_id, step_id, task_key, name)
    if is_fork_of(run_id):
        return uri
    row = {
        "run_id": run_id,
        "step_id": step_id,
        "task_key": task_key,
        "idx": idx,
        "attempt": attempt,
        "kind": kind,
        "uri": uri,
        "inline": inline,
        "sha256": sha256_json(inline),
    }
    ride(ARTIFACT, row, keep=keep)
    return uri

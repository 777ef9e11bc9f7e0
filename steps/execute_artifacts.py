"""What a sandbox task leaves: an index, and under it the logs, the files, the raw answer and the timings."""

from typing import NamedTuple

from steps.artifacts import Kind, ride_artifact
from steps.canonical import sha256_json
from steps.contracts.base import JsonObject
from steps.contracts.sandbox import SBXRes
from steps.documents import compact
from steps.identity import artifact_uri

STEP = "ExecuteST"
EPOCH = "1970-01-01T00:00:00.000Z"  # an index is the same whenever it is written


class Entry(NamedTuple):
    name: str
    kind: Kind
    inline: JsonObject


def entries_of(result: SBXRes) -> list[Entry]:
    """The artifacts of a result besides its index, by URI."""
    entries = [
        Entry("stdout.log", "log", {"text": result.stdout}),
        Entry("stderr.log", "log", {"text": result.stderr}),
        Entry("raw.json", "raw", {"json": result.raw or {}}),
        Entry("metrics.json", "timings", {"json": compact(result.metrics)}),
        Entry(
            "sbx-boot.json",
            "timings",
            {"json": {"bootMs": result.metrics.bootMs, "sandboxRef": result.sandboxRef}},
        ),
    ]
    for file in result.filesOut:
        inline: JsonObject = {"json": compact(file)} if file.inline is None else {"text": file.inline}
        entries.append(Entry(f"files/{file.path}", "file", inline))
    return sorted(entries, key=lambda entry: entry.name)


def ride_task_artifacts(run_id: str, attempt: int, result: SBXRes, provider: str) -> str:
    """Ride the task's artifacts; returns the URI of the index."""
    key = result.taskKey
    entries = entries_of(result)
    items = [
        {
            "kind": entry.kind,
            "uri": artifact_uri(run_id, STEP, key, entry.name),
            "sha256": sha256_json(entry.inline),
        }
        for entry in entries
    ]
    index: JsonObject = {
        "taskKey": key,
        "provider": provider,
        "items": items,
        "rawRef": artifact_uri(run_id, STEP, key, "raw.json"),
        "createdAt": EPOCH,
    }
    for idx, entry in enumerate(entries, 1):
        ride_artifact(run_id, STEP, entry.kind, entry.name, entry.inline, idx=idx, attempt=attempt, task_key=key)
    return ride_artifact(run_id, STEP, "artifact_index", "index.json", {"json": index}, idx=0, attempt=attempt, task_key=key)

"""Replaying a repro pack: does today's code, given the recorded outcomes, do what the run did?

Nothing outside of the pack is needed. Three things are held against each other: the rows against the seals that they were exported
with, the same fact where the pack holds it twice, and the workflows' code against what they recorded.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import BaseModel, ConfigDict, ValidationError

from engine import Replay, replay
from steps.canonical import NotCanonical, canonical_json, sha256_json
from steps.contracts.base import JsonObject
from steps.contracts.plan import OCOutput, Plan
from steps.documents import compact
from steps.errors import InvalidInput, invalid_input
from steps.pack_history import history_of
from steps.seals import Broken, broken_seals
from steps.worker import workflows


class Row(BaseModel):
    """Base of a row as a pack holds it: these columns, and any others."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class StatusRow(Row):
    workflow_uuid: str
    status: str
    name: str | None
    class_name: str | None
    inputs: str | None
    output: str | None
    error: str | None
    serialization: str | None
    recovery_attempts: int | None
    claims: int
    forked_from: str | None
    parent_workflow_id: str | None
    queue_name: str | None
    queue_partition_key: str | None
    priority: int
    application_version: str | None
    workflow_deadline_epoch_ms: int | None
    attributes: Any
    updated_at: int
    wake_at_ms: int | None


class JournalRow(Row):
    workflow_uuid: str
    function_id: int
    function_name: str
    call_path: str | None
    output: str | None
    error: str | None
    child_workflow_id: str | None
    serialization: str | None
    started_at_epoch_ms: int | None


class ValueRow(Row):
    """A value of an event or a stream."""

    workflow_uuid: str
    function_id: int
    key: str
    value: str


class EventRow(Row):
    workflow_uuid: str
    key: str
    value: str


class MessageRow(Row):
    message_uuid: str
    topic: str | None
    message: str


class InputRow(Row):
    workflow_uuid: str
    inputs: str | None


class OutputRow(Row):
    workflow_uuid: str
    output: str | None
    error: str | None


class Engines(Row):
    """A pack's `dbos` section."""

    parentStatuses: list[StatusRow]
    childStatuses: list[StatusRow]
    parentEvents: list[EventRow]
    childEvents: list[EventRow]
    operationOutputs: list[JournalRow]
    eventHistory: list[ValueRow]
    streams: list[ValueRow]
    messages: list[MessageRow]
    workflowInputs: list[InputRow]
    workflowOutputs: list[OutputRow]


class StepRow(Row):
    step_id: str
    attempt: int
    output: Any


class ArtifactRow(Row):
    uri: str | None
    inline: Any
    sha256: str


class Pack(Row):
    """What a replay reads of a repro pack."""

    runSteps: list[StepRow]
    artifacts: list[ArtifactRow]
    dbos: Engines
    seals: dict[str, list[str]]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a replay: each workflow's own, and every difference in words, the first that matters first."""

    replays: list[Replay]
    differences: list[str]

    @property
    def identical(self) -> bool:
        return not self.differences


async def replay_pack(document: JsonObject) -> Verdict:
    """Hold a pack against itself and against the code. Raises InvalidInput for what is no pack that can be replayed."""
    try:
        pack = Pack.model_validate(document)
        altered = [_sentence(broken) for broken in broken_seals(document)]
    except ValidationError as error:
        raise invalid_input("repro pack", error, document) from None
    except NotCanonical as error:
        raise InvalidInput(f"invalid repro pack: {error}") from None
    history = history_of(document["dbos"])
    code = {workflow.name: workflow for workflow in workflows()}
    replays: list[Replay] = []
    unknown: list[str] = []
    for row in (*pack.dbos.parentStatuses, *pack.dbos.childStatuses):
        if row.name in code:
            replays.append(await replay(code[row.name], history, row.workflow_uuid))
        else:
            unknown.append(f"{row.workflow_uuid}: this code has no workflow {row.name!r}")
    parted = [str(one.difference) for one in replays if one.difference is not None]
    return Verdict(replays, [*altered, *parted, *unknown, *contradictions(pack)])


# Rows against their seals ----------------------------------------------------------------------------------------------------

#: What tells a row from its neighbours, in the order of telling.
TELLING = (
    "step_id",
    "function_name",
    "call_path",
    "attempt",
    "gate_key",
    "key",
    "task_key",
    "uri",
    "op_key",
    "workflow_uuid",
    "id",
)


def _sentence(broken: Broken) -> str:
    if broken.row is None:
        return f"{broken.section}: row {broken.index + 1} of the export is missing"
    told: Sequence[str] = ()
    if isinstance(broken.row, dict):
        told = [f"{name} {broken.row[name]!r}" for name in TELLING if broken.row.get(name) not in (None, "")]
    place = f" ({', '.join(told)})" if told else ""
    return f"{broken.section}: row {broken.index + 1}{place} is not as it was exported"


# The same fact twice ---------------------------------------------------------------------------------------------------------


def contradictions(pack: Pack) -> Iterator[str]:
    """Where the pack says one thing in two places, and differently."""
    yield from _events(pack.dbos)
    yield from _results(pack.dbos)
    yield from _steps(pack)
    for artifact in pack.artifacts:
        if artifact.inline is not None and sha256_json(artifact.inline) != artifact.sha256:
            yield f"artifacts: the content of {artifact.uri} does not have its sha256"


def _events(dbos: Engines) -> Iterator[str]:
    """An event is the last value that was set."""
    last = {(row.workflow_uuid, row.key): row.value for row in sorted(dbos.eventHistory, key=lambda row: row.function_id)}
    for row in (*dbos.parentEvents, *dbos.childEvents):
        if not _same(row.value, last.get((row.workflow_uuid, row.key))):
            yield f"{row.workflow_uuid}: event {row.key!r} is not the last value that was set"


def _results(dbos: Engines) -> Iterator[str]:
    """What a parent got is what its child ended with."""
    output = {row.workflow_uuid: row.output for row in dbos.workflowOutputs if row.output is not None}
    output |= {row.workflow_uuid: row.output for row in dbos.childStatuses if row.output is not None}
    for row in dbos.operationOutputs:
        child = row.child_workflow_id
        got = row.output if row.function_name == "DBOS.getResult" else None
        if got is not None and child in output and not _same(got, output[child]):
            yield f"{row.workflow_uuid} at call {row.call_path}, {row.function_name!r}: {child} ended with another result"


def _steps(pack: Pack) -> Iterator[str]:
    """What a step returned is what it wrote into its row."""
    parents = {row.workflow_uuid for row in pack.dbos.parentStatuses}
    returned = {
        row.function_name: row for row in pack.dbos.operationOutputs if row.workflow_uuid in parents and row.error is None
    }
    latest = {row.step_id: row for row in sorted(pack.runSteps, key=lambda row: row.attempt)}
    for step_id, row in latest.items():
        if (record := returned.get(step_id)) is not None and not _agree(row, _value(record.output)):
            yield f"{record.workflow_uuid} at call {record.call_path}, {step_id!r}: its row in runSteps holds another output"


def _agree(row: StepRow, returned: Any) -> bool:
    """Each step's row holds its output in a form of its own, with the attempt added."""
    try:
        match row.step_id:
            case "CompileST":
                expected = compact(Plan.model_validate(returned)) | {"attempt": row.attempt}
            case "DecideST":
                expected = compact(OCOutput.model_validate(returned)) | {"attempt": row.attempt}
            case "ExecuteST":
                return isinstance(row.output, dict) and row.output.get("errCode") == returned
            case _:
                expected = returned
    except ValidationError:
        return False
    return canonical_json(expected) == canonical_json(row.output)


def _same(one: str | None, other: str | None) -> bool:
    """Whether two JSON texts say the same."""
    return one == other or canonical_json(_value(one)) == canonical_json(_value(other))


def _value(text: str | None) -> Any:
    """The JSON value, or the text itself where it is none."""
    try:
        return orjson.loads(text or "null")
    except orjson.JSONDecodeError:
        return text

"""What readers of a run get to see."""

from typing import Annotated, Any, Literal

from pydantic import Field

from steps.contracts.base import JsonObject, Millis, Wire
from steps.contracts.intent import RecipeRef

DurableStatus = Literal["queued", "running", "waiting_input", "succeeded", "failed", "canceled", "retries_exceeded", "repairing"]
HeaderStatus = Literal["PENDING", "ENQUEUED", "SUCCESS", "ERROR", "CANCELLED", "WAITING_INPUT"]
RuntimeMode = Literal["api-shim", "inproc-worker"]

TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "canceled", "retries_exceeded"})


class ErrorMessage(Wire):
    message: str


ReasonCode = Literal[
    "person",
    "message",
    "event",
    "child",
    "timer",
    "delayed",
    "queued",
    "paused",
    "cap",
    "rate-limit",
    "no-worker",
    "worker-lost",
    "no-workflow",
]


class Reason(Wire):
    """Why a run is not at work. `since`, `until`, and the gate, workflow or worker that has to do with it: where known."""

    code: ReasonCode
    sentence: str
    since: Millis | None = None
    until: Millis | None = None
    gateKey: str | None = None
    workflowID: str | None = None
    workerID: str | None = None


class RunHeader(Wire):
    """A run at a glance. What is optional is left out when there is none; `reason` while a worker is on it and after its end."""

    runId: str | None = None
    workflowID: str
    status: HeaderStatus
    recipeRef: RecipeRef | None
    recipeHash: str | None
    intentHash: str | None
    workflowName: Literal["RunIntent", "ImproveRecipe"]
    createdAt: Millis
    updatedAt: Millis
    error: ErrorMessage | None = None
    traceId: str | None
    spanId: str | None
    traceBaseUrl: str | None = None
    nextAction: str | None
    lastStep: str | None
    retryCount: Annotated[int, Field(ge=0)] = 0
    topology: RuntimeMode
    runtimeMode: RuntimeMode
    ocMode: Literal["replay", "record", "live"]
    sbxMode: Literal["mock", "live"]
    sbxProvider: Literal["local", "e2b", "microsandbox"]
    appVersion: str
    ocStrictMode: bool
    claimScope: Literal["signoff", "demo", "live-smoke"]
    durableStatus: str
    workflowVersion: str | None
    subject: str | None = None
    queue: str | None = None
    priority: int | None = None
    queuePartitionKey: str | None = None
    reason: Reason | None = None


class StartedRunHeader(RunHeader):
    """The header as a start answers it."""

    isReplay: bool


class ArtifactRef(Wire):
    id: str
    workflowID: str
    stepID: str | None = None
    kind: str
    mime: str
    size: Annotated[int, Field(ge=0)]
    previewHint: str | None = None
    storageKey: str | None = None


StepStatus = Literal["ENQUEUED", "RUNNING", "WAITING", "SUCCESS", "ERROR", "CANCELLED", "TIMED_OUT"]
StepKind = Literal["step", "call", "gate", "child"]


class Attempt(Wire):
    """One attempt of a sandbox task. errCode: NONE when it went well; wallMs: how long its command ran."""

    attempt: Annotated[int, Field(ge=1)]
    errCode: str
    wallMs: float | None = None
    startedAt: Millis | None = None
    endedAt: Millis | None = None


class StepRow(Wire):
    """The latest attempt at a step, or something else that a run did.

    kind: `step` is one of the product's steps, `call` another recorded call, `gate` a question to a person, `child` a workflow that
    the run started (its id is the stepID). queuedAt, worker, parent: of a child; title, attempts: of a sandbox task, its command and
    how its attempts ended. seq: the journal's number of its latest change.
    """

    stepID: str
    name: str
    attempt: Annotated[int, Field(ge=1)]
    startedAt: Millis
    endedAt: Millis | None = None
    error: JsonObject | None = None
    artifactRefs: list[ArtifactRef]
    traceId: str | None
    spanId: str | None
    kind: StepKind = "step"
    status: StepStatus | None = None
    queuedAt: Millis | None = None
    worker: str | None = None
    parent: str | None = None
    title: str | None = None
    attempts: list[Attempt] | None = None
    seq: Annotated[int, Field(ge=0)] | None = None


class StepPage(Wire):
    """A part of all that a run did, oldest first. total: of all parts; cursor: where the run's live events go on from here."""

    steps: list[StepRow]
    total: Annotated[int, Field(ge=0)]
    cursor: str


class StepDetail(StepRow):
    """A row with what went in and what came out, where that is recorded."""

    input: Any = None
    output: Any = None


class PatchRow(Wire):
    """A file change of a run. `stepID` and `diff` (unified, of what the ledger holds) where the whole run is asked for."""

    patchIndex: Annotated[int, Field(ge=0)]
    targetPath: str
    preimageHash: str
    postimageHash: str
    diffHash: str
    appliedAt: Millis | None
    rolledBackAt: Millis | None
    createdAt: Millis
    stepID: str | None = None
    diff: str | None = None


class RunViewStep(Wire):
    stepId: str
    phase: str
    output: JsonObject | None = None
    startedAt: str | None = None
    finishedAt: str | None = None
    traceId: str | None
    spanId: str | None


class RunViewArtifact(Wire):
    kind: str
    uri: str | None = None
    inline: JsonObject | None = None
    sha256: str


class RunView(Wire):
    """A run as the older routes show it."""

    runId: str
    workflowId: str
    recipeRef: RecipeRef | None
    recipeHash: str | None
    intentHash: str | None
    status: DurableStatus
    steps: list[RunViewStep]
    artifacts: list[RunViewArtifact]
    traceId: str | None
    lastStep: str | None = None
    error: str | None = None
    retryCount: Annotated[int, Field(ge=0)]
    nextAction: str | None = None

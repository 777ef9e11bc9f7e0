"""What readers of a run get to see."""

from typing import Annotated, Literal

from pydantic import Field

from steps.contracts.base import JsonObject, Millis, Wire
from steps.contracts.intent import RecipeRef

DurableStatus = Literal["queued", "running", "waiting_input", "succeeded", "failed", "canceled", "retries_exceeded", "repairing"]
HeaderStatus = Literal["PENDING", "ENQUEUED", "SUCCESS", "ERROR", "CANCELLED", "WAITING_INPUT"]
RuntimeMode = Literal["api-shim", "inproc-worker"]

TERMINAL: frozenset[str] = frozenset({"succeeded", "failed", "canceled", "retries_exceeded"})


class ErrorMessage(Wire):
    message: str


class RunHeader(Wire):
    """A run at a glance. `error` and `traceBaseUrl` are left out when there is none."""

    workflowID: str
    status: HeaderStatus
    recipeRef: RecipeRef | None
    recipeHash: str | None
    intentHash: str | None
    workflowName: Literal["RunIntent"]
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
    sbxProvider: Literal["e2b", "microsandbox"]
    appVersion: str
    ocStrictMode: bool
    claimScope: Literal["signoff", "demo", "live-smoke"]
    durableStatus: str
    workflowVersion: str | None


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


class StepRow(Wire):
    """The latest attempt at a step."""

    stepID: str
    name: str
    attempt: Annotated[int, Field(ge=1)]
    startedAt: Millis
    endedAt: Millis | None = None
    error: JsonObject | None = None
    artifactRefs: list[ArtifactRef]
    traceId: str | None
    spanId: str | None


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

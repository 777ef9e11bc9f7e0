"""The small answers of the front door, and the body of a refusal. The larger ones are in steps.contracts."""

from typing import Any, Literal

from steps.contracts.base import JsonObject, Wire
from steps.contracts.recipe import ImportedVersion


class Ok(Wire):
    ok: Literal[True]


class Replied(Ok):
    """isReplay: the same answer was there before."""

    isReplay: bool


class IntentCreated(Wire):
    intentId: str


class IntentStarted(Wire):
    runId: str
    workflowId: str


class DrillStarted(Wire):
    accepted: Literal[True]
    workflowId: str


class SleepStarted(Wire):
    accepted: Literal[True]
    workflowID: str


class Marks(Wire):
    """How often each mark of the drill was made."""

    s1: int
    s2: int


class EventAccepted(Wire):
    accepted: Literal[True]


class RetryAccepted(Wire):
    """fromStep: the first step that has not been done."""

    accepted: Literal[True]
    newRunId: str
    fromStep: str


class PlanApproved(Wire):
    accepted: Literal[True]
    runId: str
    approvedAt: str


class BundleImported(Wire):
    id: str
    versions: list[ImportedVersion]


class SchemaError(Wire):
    """One place where a schema is not met, in the form of a JSON Schema error."""

    instancePath: str
    keyword: str
    message: str
    params: JsonObject


class Drift(Wire):
    """A field in which an existing run differs from the one that was asked for."""

    field: str
    existing: Any
    incoming: Any


class Refusal(Wire):
    """Why nothing was done. details: of a schema that is not met; drift: of a run with other particulars; status: of the run."""

    error: str
    code: Literal["queue_policy_violation"] | None = None
    details: list[SchemaError] | None = None
    drift: list[Drift] | None = None
    status: str | None = None

"""What operators ask and what they are shown: workflows of any kind, their steps, and what was done to them by whom."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from steps.contracts.base import Count, Millis, Name, Positive, Text, Wire
from steps.contracts.views import Reason

WorkflowState = Literal["PENDING", "SUCCESS", "ERROR", "MAX_RECOVERY_ATTEMPTS_EXCEEDED", "CANCELLED", "ENQUEUED"]
QueuedState = Literal["ENQUEUED", "PENDING"]
Op = Literal["cancel", "resume", "fork"]
WrittenOp = Op | Literal["retry"]

MOST_ROWS = 200
LONGEST_SLEEP_MS = 2**31 - 1


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return text


Said = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_not_blank)]
Limit = Annotated[int, Field(ge=1, le=MOST_ROWS)]
Cursor = Annotated[str, Field(min_length=1, max_length=1000)]


class WorkflowFilter(Wire):
    """Which workflows: of this name, queue, beginning of the id, and made from `after` on and before `before`."""

    name: str | None = None
    queueName: str | None = None
    id: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    after: Millis | None = None
    before: Millis | None = None


class ListWorkflowsQuery(WorkflowFilter):
    """cursor: the `x-cursor` of the page before."""

    status: WorkflowState | None = None
    cursor: Cursor | None = None
    limit: Limit = 20


class AuditQuery(Wire):
    """cursor: the `x-cursor` of the page before."""

    cursor: Cursor | None = None
    limit: Limit = 50


class QueueDepthQuery(Wire):
    queueName: str | None = None
    status: QueuedState | None = None
    limit: Limit = MOST_ROWS


class CancelWorkflowRequest(Wire):
    """actor, reason: who does this and why; kept with it for good."""

    actor: Said
    reason: Said


class ResumeWorkflowRequest(Wire):
    actor: Said
    reason: Said


class ForkWorkflowRequest(Wire):
    """stepN: the first record (function_id) that the fork makes anew. appVersion: whose workers take it, by default the original's."""

    stepN: Positive
    appVersion: Name | None = None
    actor: Said
    reason: Said


class RetryRequest(Wire):
    """actor, reason: who tries a run again and why; kept with it, if they are said."""

    actor: Said | None = None
    reason: Said | None = None


class SleepWorkflowRequest(Wire):
    """wf: the workflow's id. sleep: in milliseconds."""

    wf: Text
    sleep: Annotated[int, Field(ge=1, le=LONGEST_SLEEP_MS)] = 5000


class OpsWorkflow(Wire):
    """A workflow in one line. What it does not have is left out. subject: what it is for, if a run has to do with it. parked: it only
    waits, and no worker has it.
    """

    workflowID: str
    status: str
    workflowName: str
    workflowClassName: str
    queueName: str | None = None
    applicationVersion: str | None = None
    createdAt: Millis
    updatedAt: Millis | None = None
    subject: str | None = None
    parked: bool | None = None


class WorkflowCount(Wire):
    """How many workflows have a status, counted up to 10,000."""

    status: str
    workflowCount: Count


class OpsAction(Wire):
    """What was done to a workflow, when (ISO, UTC), by whom and why."""

    op: WrittenOp
    targetWorkflowID: str
    at: str
    actor: str
    reason: str
    forkedWorkflowID: str | None = None


class PossibleAction(Wire):
    """Whether an action would be accepted now; error: what it would be told. maxStep: the last record that a fork may begin with."""

    op: Op
    allowed: bool
    error: str | None = None
    maxStep: Count | None = None


class OpsWorkflowDetail(OpsWorkflow):
    """audit: what was done to it, newest first. reason: why it is not at work, while it should be. actions: what may be done to it."""

    reason: Reason | None = None
    audit: list[OpsAction]
    actions: list[PossibleAction] | None = None


class OpsError(Wire):
    name: str | None = None
    message: str


class OpsStep(Wire):
    """A record of a workflow's journal."""

    stepId: str
    functionId: Count
    status: Literal["PENDING", "SUCCESS", "ERROR"]
    startedAt: Millis | None = None
    completedAt: Millis | None = None
    error: OpsError | None = None


class OpsAccepted(Wire):
    """What became of an action. forkedWorkflowID: of a fork."""

    accepted: Literal[True]
    workflowID: str
    forkedWorkflowID: str | None = None


class QueueDepth(Wire):
    queueName: str
    status: QueuedState
    workflowCount: Count
    oldestCreatedAt: Millis | None
    newestCreatedAt: Millis | None

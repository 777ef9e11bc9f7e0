"""What each route takes and answers, for clients and for their tools: the source of the OpenAPI document.

The routes are in api.app, and a test holds the two tables together. 400 and 500 may come from anywhere, so no entry lists them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from api.answers import (
    BundleImported,
    DrillStarted,
    EventAccepted,
    IntentCreated,
    IntentStarted,
    Marks,
    Ok,
    PlanApproved,
    Replied,
    RetryAccepted,
    SleepStarted,
)
from api.gates import HitlGateGetQuery, HitlInteractionsQuery
from api.inbox import HitlInboxQuery
from api.recipes import PromotionQuery
from api.runs import StoredRunRequest
from api.session import Session, SignIn
from api.streams import StreamQuery
from api.timeline import StepsQuery
from steps.contracts.base import Text, Wire
from steps.contracts.flow import Flow
from steps.contracts.gate import (
    ExternalEvent,
    GateKey,
    GateReply,
    GateView,
    InboxRow,
    InteractionRow,
    PlanApprovalRequest,
    RunEvent,
)
from steps.contracts.improvement import ImprovementView, ImproveRequest
from steps.contracts.intent import Intent, RunRequest, RunStartRequest
from steps.contracts.ops import (
    AuditQuery,
    CancelWorkflowRequest,
    ForkWorkflowRequest,
    ListWorkflowsQuery,
    OpsAccepted,
    OpsStep,
    OpsWorkflow,
    OpsWorkflowDetail,
    QueueDepth,
    QueueDepthQuery,
    ResumeWorkflowRequest,
    RetryRequest,
    SleepWorkflowRequest,
    WorkflowCount,
    WorkflowFilter,
)
from steps.contracts.proof import EvalRow, ProofCard, Throughput
from steps.contracts.queues import (
    AuditRow,
    PartitionsQuery,
    PartitionView,
    PauseRequest,
    PauseWorkerRequest,
    QueueView,
    WorkerView,
)
from steps.contracts.recipe import (
    CandidateRequest,
    PromotedVersion,
    PromoteRequest,
    PromotionView,
    RecipeBundle,
    RecipeExportRequest,
    RecipeSpec,
    RecipeSummary,
    VersionStatus,
    VersionSummary,
    VersionView,
)
from steps.contracts.signoff import SignoffBoard
from steps.contracts.views import PatchRow, RunHeader, RunView, StartedRunHeader, StepDetail, StepPage, StepRow


@dataclass(frozen=True, slots=True)
class Media:
    """An answer that is not JSON of a known shape."""

    type: str
    means: str


@dataclass(frozen=True, slots=True)
class Operation:
    """One route. answers: by status, the type of the JSON body, or a Media. also: refusals besides 400 and 500."""

    tag: str
    summary: str
    answers: Mapping[int, Any]
    also: tuple[int, ...] = ()
    query: type[Wire] | None = None
    body: type[Wire] | None = None
    deprecated: bool = False
    #: What path parameters must look like, where they are not just text.
    path: Mapping[str, Any] = field(default_factory=dict[str, Any])


class DrillQuery(Wire):
    """wf: the drill's id."""

    wf: Text


class EventsQuery(Wire):
    """after: a cursor, to go on behind it. A `last-event-id` header goes before it."""

    after: str | None = None


class ExportedBundle(Wire):
    """No versions: there is no such recipe."""

    id: str
    versions: list[RecipeSpec]


START = {201: StartedRunHeader, 200: StartedRunHeader}
GATE = {"gate_key": GateKey}
APPROVE = Operation(
    "Older clients",
    "Approve the run's plan, before or while it is asked for.",
    {202: PlanApproved},
    (404, 409, 410),
    body=PlanApprovalRequest,
    deprecated=True,
)
LATE = Media("application/x-ndjson", "The values, a line of JSON each, as they come.")
EVENTS = Media("text/event-stream", "Server-sent events, as they happen.")

OPERATIONS: Mapping[tuple[str, str], Operation] = {
    ("GET", "/healthz"): Operation("Service", "Whether the process serves.", {200: Ok}),
    ("GET", "/openapi.json"): Operation("Service", "This document.", {200: dict[str, Any]}),
    ("GET", "/docs"): Operation("Service", "This document, for people.", {200: Media("text/html", "A page.")}),
    # Who asks
    ("GET", "/api/session"): Operation("Service", "Who asks, and what they may do.", {200: Session}),
    ("POST", "/api/session"): Operation(
        "Service", "Sign in with a token: a cookie that scripts cannot read holds it from then on.", {200: Session}, body=SignIn
    ),
    ("DELETE", "/api/session"): Operation("Service", "Sign out: forget the cookie.", {200: Ok}),
    # Intents and runs
    ("POST", "/api/intents"): Operation("Runs", "Store an intent without running it.", {201: IntentCreated}, body=Intent),
    ("POST", "/intents"): Operation("Older clients", "Store an intent without running it.", {201: IntentCreated}, body=Intent),
    ("POST", "/api/run"): Operation(
        "Runs",
        "Start a run of a recipe: 201 for a fresh one, 200 for one that was started before with the same particulars.",
        START,
        (404, 409),
        body=RunStartRequest,
    ),
    ("POST", "/api/runs"): Operation("Runs", "Start a run of a stored intent.", START, (404, 409), body=StoredRunRequest),
    ("GET", "/api/runs/{wid}"): Operation("Runs", "A run at a glance.", {200: RunHeader}, (404,)),
    ("GET", "/api/runs/{wid}/steps"): Operation(
        "Runs",
        "The latest attempt at each step; with offset or limit a part of everything that the run did.",
        {200: list[StepRow] | StepPage},
        (404,),
        query=StepsQuery,
    ),
    ("GET", "/api/runs/{wid}/steps/{step_id}"): Operation(
        "Runs", "One step, with what went in and what came out.", {200: StepDetail}, (404,)
    ),
    ("GET", "/api/runs/{wid}/steps/{step_id}/patches"): Operation(
        "Runs", "The file changes of a step, in order.", {200: list[PatchRow]}, (404,)
    ),
    ("GET", "/api/runs/{wid}/patches"): Operation(
        "Runs", "All file changes of a run, with their diffs.", {200: list[PatchRow]}, (404,)
    ),
    ("GET", "/api/runs/{wid}/proofs"): Operation(
        "Runs", "What can be claimed of a run, each with its evidence.", {200: list[ProofCard]}
    ),
    ("GET", "/api/runs/{wid}/eval"): Operation(
        "Runs", "What the checks of the run's recipe say about what it left.", {200: list[EvalRow]}, (404,)
    ),
    ("GET", "/api/runs/{wid}/repro"): Operation(
        "Runs", "Everything that is recorded about a run, in canonical JSON.", {200: dict[str, Any]}, (404,)
    ),
    ("POST", "/api/runs/{wid}/improve"): Operation(
        "Recipes",
        "Begin to improve the recipe of a run that failed, or find what is under way.",
        {202: ImprovementView},
        (404, 409),
        body=ImproveRequest,
    ),
    ("GET", "/api/runs/{wid}/improvements"): Operation(
        "Recipes",
        "From a failure to the rerun: the improvements that this run has to do with, the newest first.",
        {200: list[ImprovementView]},
        (404,),
    ),
    ("GET", "/api/runs/{wid}/stream"): Operation(
        "Runs", "Everything that the run does, live.", {200: EVENTS}, (404,), query=EventsQuery
    ),
    ("GET", "/api/ops/stream"): Operation("Operations", "A hint whenever something may have changed.", {200: EVENTS}),
    ("GET", "/api/runs/{wid}/stream/{key}"): Operation(
        "Runs", "A stream of the run, from its start until it is closed.", {200: LATE}, (404,), query=StreamQuery
    ),
    ("GET", "/api/artifacts/{uri}"): Operation(
        "Runs", "An artifact by its address.", {200: Media("*/*", "Its content, as its own media type.")}, (404,)
    ),
    # Gates
    ("GET", "/api/runs/{wid}/gates"): Operation("Gates", "The run's gates, oldest first.", {200: list[GateView]}),
    ("GET", "/api/runs/{wid}/gates/{gate_key}"): Operation(
        "Gates",
        "One gate, once it is settled or as it is after timeoutS seconds.",
        {200: GateView},
        (404,),
        query=HitlGateGetQuery,
        path=GATE,
    ),
    ("POST", "/api/runs/{wid}/gates/{gate_key}/reply"): Operation(
        "Gates", "Answer a gate, once for each dedupeKey.", {200: Replied}, (404, 409), body=GateReply, path=GATE
    ),
    ("GET", "/api/runs/{wid}/interactions"): Operation(
        "Gates", "The ledger of answers, oldest first.", {200: list[InteractionRow]}, query=HitlInteractionsQuery
    ),
    ("POST", "/api/events/hitl"): Operation(
        "Gates", "Answer a gate from outside, by workflow and topic.", {200: Ok}, (404, 409), body=ExternalEvent
    ),
    ("GET", "/api/hitl/inbox"): Operation(
        "Gates", "Every question that waits for an answer, the most urgent first.", {200: list[InboxRow]}, query=HitlInboxQuery
    ),
    # Recipes
    ("GET", "/api/recipes"): Operation("Recipes", "Each recipe with its latest version.", {200: list[RecipeSummary]}),
    ("GET", "/api/recipes/{recipe_id}/versions"): Operation(
        "Recipes", "The versions of a recipe, latest first.", {200: list[VersionSummary]}
    ),
    ("GET", "/api/recipes/{recipe_id}/versions/{v}"): Operation("Recipes", "A version, whole.", {200: VersionView}, (404,)),
    ("GET", "/api/recipes/{recipe_id}/improvements"): Operation(
        "Recipes", "The improvements of a recipe, the newest first.", {200: list[ImprovementView]}
    ),
    ("POST", "/api/recipes/import"): Operation(
        "Recipes", "Import the versions of a bundle as drafts: all, or none.", {201: BundleImported}, (409,), body=RecipeBundle
    ),
    ("POST", "/api/recipes/export"): Operation(
        "Recipes", "All versions of a recipe as a bundle, in canonical JSON.", {200: ExportedBundle}, body=RecipeExportRequest
    ),
    ("POST", "/api/recipes/{recipe_id}/versions/{v}/candidate"): Operation(
        "Recipes", "Make a draft a candidate.", {200: VersionStatus}, (404, 409), body=CandidateRequest
    ),
    ("POST", "/api/recipes/{recipe_id}/versions/{v}/promote"): Operation(
        "Recipes",
        "Begin to promote a candidate by its fixtures, or find what is under way (202); make a stable version active again (200).",
        {202: PromotedVersion, 200: PromotedVersion},
        (404, 409),
        body=PromoteRequest,
    ),
    ("GET", "/api/recipes/{recipe_id}/versions/{v}/promotion"): Operation(
        "Recipes",
        "The newest promotion of a version, once it has ended or as it is after timeoutS seconds.",
        {200: PromotionView},
        (404,),
        query=PromotionQuery,
    ),
    # Operators
    ("GET", "/api/ops/wf"): Operation(
        "Operations", "Workflows of any kind, the newest first.", {200: list[OpsWorkflow]}, query=ListWorkflowsQuery
    ),
    ("GET", "/api/ops/counts"): Operation(
        "Operations", "How many workflows there are in each state.", {200: list[WorkflowCount]}, query=WorkflowFilter
    ),
    ("GET", "/api/ops/wf/{wid}"): Operation(
        "Operations",
        "A workflow, what may be done to it, and what operators did to it, newest first.",
        {200: OpsWorkflowDetail},
        (404,),
    ),
    ("GET", "/api/ops/wf/{wid}/steps"): Operation("Operations", "A workflow's journal.", {200: list[OpsStep]}, (404,)),
    ("POST", "/api/ops/wf/{wid}/cancel"): Operation(
        "Operations", "End a workflow, with its children.", {202: OpsAccepted}, (404, 409), body=CancelWorkflowRequest
    ),
    ("POST", "/api/ops/wf/{wid}/resume"): Operation(
        "Operations", "Let a cancelled workflow go on.", {202: OpsAccepted}, (404, 409), body=ResumeWorkflowRequest
    ),
    ("POST", "/api/ops/wf/{wid}/fork"): Operation(
        "Operations", "Start a copy from one record on.", {202: OpsAccepted}, (404, 409), body=ForkWorkflowRequest
    ),
    ("GET", "/api/ops/queue-depth"): Operation(
        "Operations", "How much is queued and at work, by queue.", {200: list[QueueDepth]}, query=QueueDepthQuery
    ),
    ("GET", "/api/ops/queues"): Operation(
        "Operations", "Every queue: what waits, what is at work, its limits and pauses.", {200: list[QueueView]}
    ),
    ("GET", "/api/ops/queues/{queue}/partitions"): Operation(
        "Operations",
        "The partitions of a queue that have work or something of their own.",
        {200: list[PartitionView]},
        (404,),
        query=PartitionsQuery,
    ),
    ("POST", "/api/ops/queues/{queue}/pause"): Operation(
        "Operations",
        "Let nothing be taken from a queue, or from a partition.",
        {200: QueueView | PartitionView},
        (404,),
        body=PauseRequest,
    ),
    ("POST", "/api/ops/queues/{queue}/resume"): Operation(
        "Operations", "Take a pause back.", {200: QueueView | PartitionView}, (404, 409), body=PauseRequest
    ),
    ("GET", "/api/ops/workers"): Operation(
        "Operations", "The worker processes that are alive, the oldest first.", {200: list[WorkerView]}
    ),
    ("POST", "/api/ops/workers/{worker}/pause"): Operation(
        "Operations", "Let a worker take nothing more.", {200: WorkerView}, (404,), body=PauseWorkerRequest
    ),
    ("POST", "/api/ops/workers/{worker}/resume"): Operation(
        "Operations", "Let a worker take work again.", {200: WorkerView}, (404,), body=PauseWorkerRequest
    ),
    ("GET", "/api/ops/audit"): Operation(
        "Operations",
        "What operators did to workflows, queues and workers, the newest first.",
        {200: list[AuditRow]},
        query=AuditQuery,
    ),
    ("GET", "/api/ops/flow"): Operation("Operations", "Depth, rate, limits, and what is done once only.", {200: Flow}),
    ("POST", "/api/ops/sleep"): Operation(
        "The crash drill", "Start a durable sleep.", {202: SleepStarted}, (409,), query=SleepWorkflowRequest
    ),
    ("GET", "/api/ops/throughput"): Operation("Operations", "The throughput board.", {200: Throughput}),
    ("GET", "/api/ops/signoff"): Operation("Operations", "The sign-off board.", {200: SignoffBoard}),
    # Older clients
    ("POST", "/intents/{intent_id}/run"): Operation(
        "Older clients",
        "Start a run of a stored intent.",
        {202: IntentStarted},
        (404, 409, 410),
        body=RunRequest,
        deprecated=True,
    ),
    ("GET", "/runs/{wid}"): Operation("Older clients", "A run whole.", {200: RunView}, (404,)),
    ("POST", "/runs/{wid}/retry"): Operation(
        "Older clients",
        "Try a failed run again, from its first step that is not done.",
        {202: RetryAccepted},
        (404, 409),
        body=RetryRequest,
    ),
    ("POST", "/runs/{wid}/events"): Operation(
        "Older clients", "Answer the run's latest gate.", {202: EventAccepted}, (404, 409), body=RunEvent
    ),
    ("POST", "/runs/{wid}/approve-plan"): APPROVE,
    ("POST", "/api/runs/{wid}/approve-plan"): APPROVE,
    # The kill -9 drill
    ("POST", "/crashdemo"): Operation(
        "The crash drill",
        "Start the drill: a mark, a durable sleep, a second mark.",
        {202: DrillStarted},
        (409,),
        query=DrillQuery,
    ),
    ("GET", "/marks"): Operation("The crash drill", "How often each mark was made.", {200: Marks}, query=DrillQuery),
    ("POST", "/slowstep"): Operation(
        "The crash drill",
        "Start a workflow with a slow step between two marks.",
        {202: DrillStarted},
        (409,),
        query=SleepWorkflowRequest,
    ),
    ("GET", "/slowmarks"): Operation("The crash drill", "How often each of its marks was made.", {200: Marks}, query=DrillQuery),
}

"""Questions to people and their answers."""

from typing import Annotated, Literal

from pydantic import Field

from steps.contracts.base import Hash, JsonObject, Millis, Text, Wire

GATE_KEY_PATTERN = r"^[a-z0-9][a-z0-9:_-]{0,127}$"
TOPIC_PATTERN = r"^(human|sys):[a-z0-9][a-z0-9:_-]{0,127}$"

GateKey = Annotated[str, Field(pattern=GATE_KEY_PATTERN)]
Topic = Annotated[str, Field(pattern=TOPIC_PATTERN, max_length=132)]
DedupeKey = Annotated[str, Field(min_length=1, max_length=256)]
# Who an answer comes from. These three are the only list of origins: the ledger's CHECK in schema.sql repeats Origin, and a test
# holds the two together.
ReplyOrigin = Literal["manual", "api-shim", "webhook", "webhook-ci", "external", "unknown"]
EventOrigin = Literal[ReplyOrigin, "engine-dbos"]
Origin = Literal[EventOrigin, "legacy-event", "poller-ci", "legacy-approve"]
#: What a run answers itself.
OWN_ORIGIN: Origin = "engine-dbos"
GateState = Literal["PENDING", "RECEIVED", "TIMED_OUT", "RESOLVED"]


class GateReply(Wire):
    payload: JsonObject
    dedupeKey: DedupeKey
    origin: ReplyOrigin


class ExternalEvent(Wire):
    workflowId: Text
    gateKey: GateKey
    topic: Topic
    payload: JsonObject
    dedupeKey: DedupeKey
    origin: EventOrigin


class RunEvent(Wire):
    type: str
    payload: JsonObject


class PlanApprovalRequest(Wire):
    approvedBy: Text
    notes: str | None = None


class GatePrompt(Wire):
    """What the run asks, as it stands in the gate's prompt event."""

    schemaVersion: Annotated[int, Field(ge=1)]
    formSchema: JsonObject
    ttlS: Annotated[int, Field(ge=1, le=86_400)]
    createdAt: Millis
    deadlineAt: Millis
    uiHints: JsonObject | None = None
    defaults: JsonObject | None = None


class GateResult(Wire):
    """What came of it, as it stands in the gate's result event."""

    schemaVersion: Annotated[int, Field(ge=1)]
    state: Literal["RECEIVED", "TIMED_OUT"]
    payload: JsonObject | None = None
    payloadHash: Hash | None = None
    at: Millis | None = None


class GateView(Wire):
    workflowID: str
    gateKey: GateKey
    topic: Topic
    state: GateState
    prompt: GatePrompt
    result: GateResult | None
    origin: Origin | None
    payloadHash: Hash | None
    createdAt: Millis
    deadlineAt: Millis


class InteractionRow(Wire):
    workflowID: str
    gateKey: GateKey
    topic: Topic
    dedupeKey: DedupeKey
    payloadHash: Hash
    origin: Origin
    createdAt: Millis


class InboxRow(Wire):
    workflowID: str
    gateKey: GateKey
    topic: Topic
    deadline: Millis | None
    slaStatus: Literal["NORMAL", "WARNING", "CRITICAL"]
    escalationWorkflowID: str | None
    mismatchRisk: bool
    createdAt: Millis
    subject: str | None = None

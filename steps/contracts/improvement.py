"""How a recipe gets better: what is asked, what the agents answer, and the chain from a failure to the rerun that goes well."""

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from steps.contracts.base import JsonObject, Millis, Name, Wire
from steps.contracts.ops import Said
from steps.contracts.plan import without_prose

ImprovementStatus = Literal["under_way", "published", "rejected", "failed", "canceled"]

RunStatus = Literal["queued", "running", "waiting_input", "repairing", "succeeded", "failed", "canceled", "retries_exceeded"]

MOST_OPERATIONS = 40


class ImproveRequest(Wire):
    """actor, reason: who asks and why. version: what the new version shall be called; by default the next one that is free."""

    actor: Said
    reason: Said
    version: Name | None = None


class Postmortem(Wire):
    """Answer of the plan agent about a failure. cause: a code, such as CMD_NONZERO or budget:maxFanout."""

    cause: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,100}$")]
    step: Annotated[str, Field(max_length=100)] | None = None
    summary: Annotated[str, Field(min_length=1, max_length=2000)]
    evidence: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=20)]


class PatchOperation(Wire):
    """A change of one place in a recipe's JSON, named by a JSON pointer. A removal has no value."""

    op: Literal["add", "replace", "remove"]
    path: Annotated[str, Field(min_length=2, max_length=500)]
    value: Any = None

    @model_validator(mode="after")
    def _has_a_value_or_not(self) -> Self:
        if ("value" in self.model_fields_set) == (self.op == "remove"):
            raise ValueError("must have a value if it adds or replaces, and none if it removes")
        return self


class RecipePatch(Wire):
    """Answer of the build agent: what to change in the recipe. No operations: it knows of none, and the summary says so."""

    summary: Annotated[str, Field(min_length=1, max_length=2000)]
    operations: Annotated[list[PatchOperation], Field(max_length=MOST_OPERATIONS)]


class ImprovementView(Wire):
    """One turn of the wheel: the run that failed, the improvement (a run of its own), the version it made, and the rerun.

    toV: from the draft on. postmortem: the address of an artifact. error: why it was not published, or not rerun.
    """

    workflowID: str
    runId: str
    status: ImprovementStatus
    actor: str
    reason: str
    recipeId: str
    fromV: str
    toV: str | None
    toStatus: Literal["draft", "candidate", "stable"] | None
    failedWorkflowID: str
    failure: str | None
    postmortem: str | None
    promotionWorkflowID: str | None
    rerunWorkflowID: str | None
    rerunStatus: RunStatus | None
    error: str | None
    createdAt: Millis
    endedAt: Millis | None


POSTMORTEM_SCHEMA: JsonObject = without_prose(Postmortem.model_json_schema())
RECIPE_PATCH_SCHEMA: JsonObject = without_prose(RecipePatch.model_json_schema())

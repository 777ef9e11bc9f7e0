"""What the coding agent must answer: the plan, the build, and the envelope both come in."""

from typing import Annotated, Any

from pydantic import ConfigDict, Field

from steps.contracts.base import JsonObject, Wire

_FileText = Annotated[str, Field(max_length=200_000)]


class PatchPlanEntry(Wire):
    """A file that the plan wants changed, with its whole new content."""

    targetPath: Annotated[str, Field(min_length=1, max_length=1024)]
    postimageContent: _FileText
    diffText: _FileText


class Plan(Wire):
    """Answer of the plan agent. It proposes; what would be executed ('patch') is not its to give."""

    goal: str
    design: Annotated[list[str], Field(max_length=25)]
    files: Annotated[list[str], Field(max_length=30)]
    risks: Annotated[list[str], Field(max_length=15)]
    tests: Annotated[list[str], Field(max_length=100)]
    patchPlan: Annotated[list[PatchPlanEntry], Field(max_length=20)] = Field(default_factory=list)


class BuildPatch(Wire):
    path: str
    diff: Annotated[str, Field(max_length=20_000)]


class Build(Wire):
    """Answer of the build agent: patches, and what to run in the sandbox."""

    patch: Annotated[list[BuildPatch], Field(max_length=30)]
    tests: Annotated[list[str], Field(max_length=100)]
    test_command: str


class ToolCall(Wire):
    name: str
    args: JsonObject


class Usage(Wire):
    total_tokens: Annotated[int, Field(ge=0)]


class OCOutput(Wire):
    """The envelope of an agent's answer. Open: the agent may add keys of its own."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    prompt: str
    toolcalls: list[ToolCall]
    responses: list[Any]
    diffs: list[Any]
    structured: JsonObject | None = None
    usage: Usage | None = None
    raw_response: str | None = None


def without_prose(schema: Any) -> Any:
    """The schema without titles and descriptions, so that its hash, a part of every call's key, hangs on its
    meaning alone.
    """
    if isinstance(schema, list):
        return [without_prose(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: without_prose(item)
        for key, item in schema.items()
        if not (key in ("title", "description") and isinstance(item, str))
    }


PLAN_SCHEMA: JsonObject = without_prose(Plan.model_json_schema())
BUILD_SCHEMA: JsonObject = without_prose(Build.model_json_schema())

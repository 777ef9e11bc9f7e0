"""The parts of OpenCode's documents that we look at, read with care: a server of another version may leave anything out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from steps.contracts.base import JsonObject
from steps.opencode_server.rules import ANSWER_TOOL, Rule


@dataclass(frozen=True, slots=True)
class ToolUse:
    name: str
    arguments: JsonObject


@dataclass(frozen=True, slots=True)
class Message:
    """One step of an agent's answer. answers: the message that it answers. structured: None where the agent gave none."""

    id: str
    answers: str
    completed: bool
    structured: JsonObject | None
    error: JsonObject | None
    text: str
    tools: tuple[ToolUse, ...]
    tokens: int
    cost: float
    model: str


@dataclass(frozen=True, slots=True)
class Session:
    id: str
    version: str
    has_parent: bool
    rules: tuple[Rule, ...]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a session ("" for the server as a whole). part: of a message, where it is about one."""

    kind: str
    session_id: str
    status: JsonObject
    part: JsonObject


def message_of(document: Any) -> Message:
    whole = mapping(document)
    info, parts = mapping(whole.get("info")), [mapping(part) for part in sequence(whole.get("parts"))]
    structured = info.get("structured")
    error = info.get("error")
    return Message(
        id=str(info.get("id", "")),
        answers=str(info.get("parentID", "")),
        completed=mapping(info.get("time")).get("completed") is not None,
        structured=cast(JsonObject, structured) if isinstance(structured, dict) else None,
        error=cast(JsonObject, error) if isinstance(error, dict) else None,
        text="\n".join(str(part.get("text", "")) for part in parts if part.get("type") == "text"),
        tools=tuple(tool_use(part) for part in parts if part.get("type") == "tool"),
        tokens=_whole_number(mapping(info.get("tokens")).get("total")),
        cost=_number(info.get("cost")),
        model=f"{info.get('providerID', '')}/{info.get('modelID', '')}",
    )


def session_of(document: Any) -> Session:
    whole = mapping(document)
    return Session(
        id=str(whole.get("id", "")),
        version=str(whole.get("version", "")),
        has_parent=whole.get("parentID") is not None,
        rules=rules_of(whole.get("permission")),
    )


def rules_of(document: Any) -> tuple[Rule, ...]:
    found = [mapping(rule) for rule in sequence(document)]
    return tuple(Rule(str(r.get("permission", "")), str(r.get("pattern", "")), str(r.get("action", ""))) for r in found)


def event_of(document: Any) -> Event:
    whole = mapping(document)
    about = mapping(whole.get("properties"))
    part = mapping(about.get("part"))
    session = about.get("sessionID") or part.get("sessionID") or mapping(about.get("info")).get("sessionID") or ""
    return Event(str(whole.get("type", "")), str(session), mapping(about.get("status")), part)


def tool_use(part: JsonObject) -> ToolUse:
    return ToolUse(str(part.get("tool", "")), mapping(mapping(part.get("state")).get("input")))


def is_answer(tool: ToolUse) -> bool:
    return tool.name == ANSWER_TOOL


def mapping(found: Any) -> JsonObject:
    """The found object, or an empty one for whatever else is there."""
    return cast(JsonObject, found) if isinstance(found, Mapping) else {}


def sequence(found: Any) -> Sequence[Any]:
    return cast("Sequence[Any]", found) if isinstance(found, list) else ()


def _whole_number(found: Any) -> int:
    return found if isinstance(found, int) and not isinstance(found, bool) and found >= 0 else 0


def _number(found: Any) -> float:
    return float(found) if isinstance(found, (int, float)) and not isinstance(found, bool) else 0.0

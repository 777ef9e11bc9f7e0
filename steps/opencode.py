"""The port to the coding agent, and the adapters that need no agent: replay and record.

A request asks one agent for one JSON answer. In replay the answer is a stored fixture or, without one, what the step itself
would produce; in record it is stored as a fixture. The live adapter speaks to an OpenCode server. What holds for every adapter
(one answer for one op_key, tools allowed, answer valid, ledger) is steps/agent.py, so an adapter only asks.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, cast, runtime_checkable

from engine import TerminalError
from steps.canonical import sha256_text
from steps.contracts.base import JsonObject, parse
from steps.contracts.plan import OCOutput
from steps.errors import InvalidInput
from steps.identity import oc_fixture_key, op_key, schema_hash

AgentName = Literal["plan", "build"]
FIXTURE_SEED = 0


@dataclass(frozen=True, slots=True)
class AgentRequest:
    """One question to one agent.

    subject: what the answer depends on, the key of its fixture. produce: the answer that a replay gives without a fixture, and usage
    what it says that this took. max_tokens: how many the run's calls may use, all together.
    """

    run_id: str
    step_id: str
    attempt: int
    agent: AgentName
    prompt: str
    schema: JsonObject
    schema_version: int
    subject: JsonObject
    produce: Callable[[], JsonObject] = field(repr=False)
    usage: JsonObject | None = None
    max_tokens: int | None = None

    @property
    def op_key(self) -> str:
        return op_key(self.run_id, self.step_id, self.attempt, schema_hash(self.schema), sha256_text(self.prompt))

    @property
    def fixture_key(self) -> str:
        return oc_fixture_key(self.subject, self.schema_version, FIXTURE_SEED)


class OpenCode(Protocol):
    """Asks an agent. A key `session_id` in the reply names the conversation in the ledger."""

    async def ask(self, request: AgentRequest) -> OCOutput:
        """The agent's answer, not yet checked. Raises TerminalError when asking again is useless."""
        ...


@runtime_checkable
class OutsideOpenCode(OpenCode, Protocol):
    """Asks somebody outside, who is paid: what is going to be asked is in the ledger before."""

    def session_of(self, request: AgentRequest) -> str:
        """The conversation in which it is asked first."""
        ...

    async def abandon(self, op_key: str) -> bool:
        """Stop whatever is still being answered under this key. Whether nothing of it is at work any more."""
        ...


class OpenCodeNotConfigured(Exception):
    """The settings ask for a live agent, and there is none that may be asked."""


class AgentFailed(TerminalError):
    """A call that came to no answer. reply: what is known of it, for the ledger; it is never served as an answer."""

    def __init__(self, message: str, *, name: str, data: Any = None, reply: OCOutput) -> None:
        super().__init__(message, name=name, data=data)
        self.reply = reply


def rehearsal(constraints: JsonObject, part: Literal["plan", "build", "usage", "sandbox"]) -> JsonObject | None:
    """What the intent itself says of a replayed run, in constraints.testHooks.replay.<part>."""
    found = constraints
    for name in ("testHooks", "replay", part):
        inner: Any = found.get(name)
        if not isinstance(inner, dict):
            return None
        found = cast(JsonObject, inner)
    return found


def rehearsed(constraints: JsonObject, part: Literal["plan", "build"], answer: JsonObject) -> JsonObject:
    """A produced answer with the keys that the intent itself sets for it."""
    return answer | (rehearsal(constraints, part) or {})


def produced(request: AgentRequest) -> OCOutput:
    structured = request.produce()
    said = {"prompt": request.prompt, "toolcalls": [], "responses": [structured], "diffs": [], "structured": structured}
    if request.usage is not None:
        said["usage"] = request.usage
    try:
        return parse(OCOutput, said)
    except InvalidInput as error:
        raise TerminalError(f"the rehearsed answer is none: {error.message}", name="structured_output_invalid") from error


class ReplayOpenCode:
    """Answers from fixtures, `<key>.json` in a folder, and otherwise from the request's own producer."""

    def __init__(self, fixtures: Path | None = None) -> None:
        self._fixtures = fixtures

    async def ask(self, request: AgentRequest) -> OCOutput:
        stored = await asyncio.to_thread(self._read, request.fixture_key)
        return produced(request) if stored is None else stored

    def _read(self, key: str) -> OCOutput | None:
        if self._fixtures is None:
            return None
        path = self._fixtures / f"{key}.json"
        try:
            return parse(OCOutput, json.loads(path.read_bytes()))
        except FileNotFoundError:
            return None
        except (ValueError, InvalidInput) as error:
            raise TerminalError(f"fixture {path.name} is not an agent's answer: {error}", name="oc_fixture_invalid") from error


class RecordOpenCode:
    """Asks another adapter (by default the producer) and stores each answer as a fixture."""

    def __init__(self, fixtures: Path, inner: OpenCode | None = None) -> None:
        self._fixtures = fixtures
        self._inner = inner

    async def ask(self, request: AgentRequest) -> OCOutput:
        reply = produced(request) if self._inner is None else await self._inner.ask(request)
        await asyncio.to_thread(self._write, request.fixture_key, reply)
        return reply

    def _write(self, key: str, reply: OCOutput) -> None:
        self._fixtures.mkdir(parents=True, exist_ok=True)
        draft = self._fixtures / f".{key}.draft"
        draft.write_text(json.dumps(reply.document(), indent=2, sort_keys=True, ensure_ascii=False) + "\n")
        draft.replace(self._fixtures / f"{key}.json")

"""The port to the coding agent, over a real OpenCode server.

A question's names on the server follow from its op_key, so that asking again after a crash finds the answer there. Each question has a
session of its own: the first, one for each answer that did not fit its schema, and one for a question that had to be stopped.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import structlog

from steps.contracts.base import JsonObject, parse
from steps.contracts.plan import OCOutput
from steps.forms import detail
from steps.json_schema import TooMuch, failures
from steps.opencode import AgentFailed, AgentName, AgentRequest, produced
from steps.opencode_server.client import OpenCodeClient, Server, connected
from steps.opencode_server.faults import Fault, Faulty
from steps.opencode_server.replies import Message, is_answer
from steps.opencode_server.rules import deny_all, message_id, require_version, session_id
from steps.opencode_server.turn import MOST_LOOKED_AT, Turn, come_to_rest, take
from steps.opencode_server.watchdog import Patience

MOST_INVALID = 2
MOST_STALLED = 1
MOST_COMPLAINTS = 5
#: What a question that had to be stopped is put again for, once, and what it is called when it had to be stopped again.
STALLS = {"oc_stall": "oc_timeout_terminal", "oc_runaway": "oc_runaway"}
AGENTS: Sequence[AgentName] = ("plan", "build")
PERMITTED = '{"*": "deny", "StructuredOutput": "allow"}'
NO_STRUCTURE = "oc_no_structure"

log = structlog.get_logger("steps.opencode")


@dataclass(slots=True)
class _Call:
    """What happened in one call so far. turns: how each session ended."""

    request: AgentRequest
    invalid: int = 0
    stalled: int = 0
    repeats: int = 0
    complaint: str | None = None
    version: str = ""
    turns: list[JsonObject] = field(default_factory=list[JsonObject])
    last: Message | None = None
    steps: dict[str, Message] = field(default_factory=dict[str, Message])

    @property
    def turn(self) -> Turn:
        op_key, request = self.request.op_key, self.request
        return Turn(
            session_id=session_id(op_key, self.invalid, self.stalled),
            message_id=message_id(op_key, self.invalid, self.stalled),
            agent=request.agent,
            prompt=self.prompt,
            schema=request.schema,
            title=f"holdfast {request.step_id} op_key={op_key}",
            metadata={"op_key": op_key, "run": request.run_id, "step": request.step_id, "attempt": str(request.attempt)},
        )

    @property
    def prompt(self) -> str:
        parts = [self.request.prompt]
        if self.complaint is not None:
            parts.append(f"An earlier answer did not fit the schema: {self.complaint}. Give one that does.")
        if self.stalled:
            parts.append("An earlier attempt took too long. Tighten the scope: do the least that answers the question.")
        return "\n\n".join(parts)

    def saw(self, steps: list[Message]) -> None:
        self.steps |= {step.id: step for step in steps}
        self.last = steps[0] if steps else None

    def ended(self, outcome: str) -> None:
        self.turns.append({"session_id": self.turn.session_id, "outcome": outcome})

    def reply(self) -> OCOutput:
        """The ledger's account of the call, whether it came to an answer or not."""
        last = self.last
        used = [tool for step in self.steps.values() for tool in step.tools if not is_answer(tool)]
        said: JsonObject = {
            "prompt": self.prompt,
            "toolcalls": [{"name": tool.name, "args": tool.arguments} for tool in used],
            "responses": [turn["outcome"] for turn in self.turns],
            "diffs": [],
            "usage": {"total_tokens": sum(step.tokens for step in self.steps.values())},
            "cost": sum(step.cost for step in self.steps.values()),
            "session_id": self.turn.session_id,
            "message_id": self.turn.message_id,
            "server_version": self.version,
            "turns": self.turns,
        }
        if last is not None:
            said |= {"model": last.model, "raw_response": last.text}
            said |= {} if last.structured is None else {"structured": last.structured}
        return parse(OCOutput, said)


class LiveOpenCode:
    """Asks the agents `plan` and `build` of an OpenCode server.

    strict: without a server there is no answer. Otherwise one is made up, as in replay, and says so (`made_up`); that is for
    rehearsals only.
    """

    def __init__(self, server: Server, patience: Patience | None = None, *, strict: bool = True) -> None:
        self._server = server
        self._patience = patience or Patience()
        self._strict = strict

    def session_of(self, request: AgentRequest) -> str:
        """The first session in which it is asked."""
        return session_id(request.op_key, 0, 0)

    async def ask(self, request: AgentRequest) -> OCOutput:
        """The agent's answer, valid by its schema. Raises AgentFailed, with what is known of the call."""
        call = _Call(request)
        try:
            async with connected(self._server) as client:
                try:
                    call.version = await _require_use(client, self._patience.up_s, [request.agent])
                except Faulty as trouble:
                    if trouble.fault.name != "oc_live_unavailable" or self._strict:
                        raise
                    return self._made_up(request, trouble.fault)
                return await self._answer(client, call)
        except Faulty as trouble:
            raise _failure(call, trouble.fault) from trouble

    async def ready(self, within_s: float | None = None) -> str:
        """The server's version, once it is known to be of use. Raises Faulty."""
        patience = self._patience if within_s is None else replace(self._patience, up_s=within_s)
        async with connected(self._server) as client:
            return await _require_use(client, patience.up_s, AGENTS)

    async def abandon(self, op_key: str) -> bool:
        """Stop whatever is still asked under this op_key. Whether nothing of it is at work any more."""
        names = [
            session_id(op_key, invalid, stalled) for invalid in range(MOST_INVALID + 1) for stalled in range(MOST_STALLED + 1)
        ]
        try:
            async with connected(self._server) as client:
                busy = await client.busy()
                ends = [await come_to_rest(client, one, self._patience.settle_s) for one in names if one in busy]
        except Faulty:
            return False
        return all(ends)

    async def _answer(self, client: OpenCodeClient, call: _Call) -> OCOutput:
        """Ask until there is an answer that fits, as often as is reasonable. Raises Faulty."""
        while True:
            try:
                done = await take(client, call.turn, self._patience)
            except Faulty as trouble:
                await self._look_back(client, call)
                call.ended(trouble.fault.name)
                await self._after(client, call, trouble.fault)
                continue
            call.saw(list(done.steps))
            wrong = complaint_about(done.last.structured, call.request.schema)
            call.ended("invalid" if wrong else "answered")
            if wrong is None:
                return call.reply()
            _again(call, wrong)

    async def _after(self, client: OpenCodeClient, call: _Call, fault: Fault) -> None:
        """Prepare to ask again after a fault, or raise it."""
        if fault.name == NO_STRUCTURE:
            _again(call, "it was not handed in by the tool for answers")
        elif fault.name in STALLS:
            await self._take_back(client, call)
            if call.stalled == MOST_STALLED:
                raise Faulty(replace(fault, name=STALLS[fault.name]))
            call.stalled += 1
        elif fault.retriable and call.repeats < self._patience.most_repeats:
            pause_s = self._patience.back_off_s * 2**call.repeats
            call.repeats += 1
            await asyncio.sleep(max(pause_s, fault.retry_after_s or 0.0))
            call.version = await _require_use(client, self._patience.up_s, [call.request.agent])
        else:
            raise Faulty(fault)

    async def _take_back(self, client: OpenCodeClient, call: _Call) -> None:
        try:
            await client.revert(call.turn.session_id, call.turn.message_id)
        except Faulty as trouble:  # it is at rest, and nothing was permitted in it
            log.warning("a stopped session was not reverted", session=call.turn.session_id, reason=trouble.fault.message)

    async def _look_back(self, client: OpenCodeClient, call: _Call) -> None:
        """What a turn that failed has used; as far as the server still says so."""
        try:
            call.saw(await client.steps_back(call.turn.session_id, MOST_LOOKED_AT))
        except Faulty:
            call.last = None

    def _made_up(self, request: AgentRequest, fault: Fault) -> OCOutput:
        log.warning("no OpenCode server, the answer is made up", step=request.step_id, run=request.run_id, reason=fault.message)
        return parse(OCOutput, produced(request).document() | {"made_up": f"{fault.name}: {fault.message}"})


async def _require_use(client: OpenCodeClient, within_s: float, agents: Iterable[str]) -> str:
    """The server's version, if it is up, of a version that we know, has a model, and has agents that it permits nothing."""
    version = await client.health(within_s)
    require_version(version)
    if not await client.models():
        raise Faulty(Fault("oc_bad_config", "the server has no model; its configuration must name a provider"))
    there = await client.agents()
    for name in agents:
        if name not in there:
            raise Faulty(Fault("oc_bad_config", f"the server has no agent {name}; its configuration must define it"))
        if not deny_all(there[name]):
            raise Faulty(Fault("oc_permissions", f"the agent {name} may do more than answer; permit it {PERMITTED} and no more"))
    return version


def _again(call: _Call, complaint: str) -> None:
    if call.invalid == MOST_INVALID:
        raise Faulty(Fault("structured_output_invalid", f"structured output: {complaint}, {call.invalid + 1} times over"))
    call.invalid += 1
    call.complaint = complaint


def complaint_about(answer: JsonObject | None, schema: JsonObject) -> str | None:
    """What is wrong with an answer, for whoever is to give another; None if it fits. The server itself does not look."""
    try:
        wrong = failures(schema, answer, most=MOST_COMPLAINTS)
    except TooMuch as error:
        return f"it can't be looked through: {error}"
    if not wrong:
        return None
    details = [detail(one, "answer") for one in wrong]
    return "; ".join(f"{one['instancePath'].removeprefix('/')} {one['message']}" for one in details)


def _failure(call: _Call, fault: Fault) -> AgentFailed:
    reply = call.reply()
    data = {"session": call.turn.session_id, "turns": call.turns}
    if fault.name == "tool_denied":
        data |= {"tool": next((tool.name for tool in reply.toolcalls), None), "agent": call.request.agent}
    message = f"{fault.name}:{call.request.step_id}:{fault.message}"
    return AgentFailed(message, name=fault.name, data=data, reply=reply)

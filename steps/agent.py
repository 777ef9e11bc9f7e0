"""One seam for every call to the coding agent: asked once for an op_key, within the agent's tools, valid, and in the ledger.

The op_key names the run, the step, the attempt, the answer's schema and the prompt. A call whose op_key has a good row in
app.opencode_calls is answered from it; a row that holds an error, or only the question, is no answer. The ledger row rides with the
step's record. Before somebody outside is asked, it is there as `asked`; a live adapter names its session after the op_key, so a crash
between the agent's answer and that record finds the answer on the server. Secrets are hidden in what comes back before anybody uses or
stores it, so what is stored is what was used.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import LiteralString, TypeVar, cast

from psycopg.types.json import Jsonb

from engine import Rider, TerminalError, ride
from steps.budgets import check_tokens
from steps.canonical import sha256_text
from steps.contracts.base import JsonObject, Wire, parse
from steps.contracts.plan import OCOutput
from steps.documents import compact
from steps.errors import InvalidInput
from steps.identity import schema_hash
from steps.opencode import AgentFailed, AgentRequest, OutsideOpenCode
from steps.ports import ports

Answer = TypeVar("Answer", bound=Wire)

_READ_TOOLS = frozenset({"read", "grep", "glob", "ls", "skill"})
ALLOWED_TOOLS: Mapping[str, frozenset[str]] = {
    "plan": _READ_TOOLS,
    "build": _READ_TOOLS | {"edit", "write", "bash", "patch"},
}

RECORDED_CALL: LiteralString = "select response from app.opencode_calls where op_key = %s and state = 'answered'"

#: Written on its own and at once: what it announces may be paid for although its step is never recorded.
ASKED: LiteralString = """
    insert into app.opencode_calls (id, run_id, step_id, request, response, session_id, agent, schema_hash, prompt, op_key, state)
    values (%(op_key)s, %(run_id)s, %(step_id)s, %(request)s, '{}', %(session_id)s, %(agent)s, %(schema_hash)s, %(prompt)s,
            %(op_key)s, 'asked')
    on conflict on constraint opencode_calls_op_key_unique do nothing
"""

#: A call that failed has used its tokens too.
TOKENS: LiteralString = """
    select coalesce(sum((c.response #>> '{usage,total_tokens}')::bigint), 0)::bigint as total
      from app.opencode_calls c
     where c.run_id = %s and c.op_key <> %s
"""

# A row without an answer gives way; one with an answer stays.
OPENCODE_CALL = Rider("""
    insert into app.opencode_calls (id, run_id, step_id, request, response, diff, session_id, agent, schema_hash, prompt,
                                    structured, raw_response, tool_calls, duration_ms, error, op_key, state)
    select n.op_key, n.run_id, n.step_id, n.request, n.response, n.diff, n.session_id, n.agent, n.schema_hash, n.prompt,
           n.structured, n.raw_response, n.tool_calls, n.duration_ms, n.error, n.op_key,
           case when n.error is null then 'answered' else 'failed' end
      from json_to_recordset(%s) as n (op_key text, run_id text, step_id text, request jsonb, response jsonb, diff jsonb,
                                       session_id text, agent text, schema_hash text, prompt text, structured jsonb,
                                       raw_response text, tool_calls jsonb, duration_ms int, error jsonb)
    on conflict on constraint opencode_calls_op_key_unique do update
       set response = excluded.response, diff = excluded.diff, session_id = excluded.session_id,
           structured = excluded.structured, raw_response = excluded.raw_response, tool_calls = excluded.tool_calls,
           duration_ms = excluded.duration_ms, error = excluded.error, state = excluded.state
     where opencode_calls.state <> 'answered'
""")


async def ask_agent(request: AgentRequest, answer: type[Answer]) -> tuple[OCOutput, Answer]:
    """The agent's reply and, from it, the answer in its shape.

    Raises TerminalError: `tool_denied`, `child_session_denied`, `structured_output_invalid`, `BudgetExceeded` before or after the
    call when the run has used up its tokens, or what the adapter says.
    """
    forbid_child_sessions(request.subject)
    used = await tokens_used(request)
    check_tokens(request.max_tokens, used)
    reply = await recorded_reply(request.op_key)
    if reply is not None:
        return within(request, used, reply), checked_answer(reply, answer)
    await announce(request)
    clock = asyncio.get_running_loop().time
    asked_at_s = clock()
    try:
        reply = hidden(await ports().opencode.ask(request))
        check_tools(request.agent, reply)
        structured = checked_answer(reply, answer)
    except TerminalError as error:
        if isinstance(error, AgentFailed):
            reply = hidden(error.reply)
        failure = ports().redaction.document({"name": error.name, "message": str(error)})
        ride(OPENCODE_CALL, ledger_row(request, reply, clock() - asked_at_s, failure), keep=True)
        raise TerminalError(failure["message"], name=error.name, data=ports().redaction.document(error.data)) from error
    ride(OPENCODE_CALL, ledger_row(request, reply, clock() - asked_at_s, None), keep=True)
    return within(request, used, reply), structured


async def announce(request: AgentRequest) -> None:
    """Write down that somebody outside is going to be asked, if so."""
    opencode = ports().opencode
    if isinstance(opencode, OutsideOpenCode):
        row = ledger_row(request, None, 0, None) | {"session_id": opencode.session_of(request)}
        await ports().write(ASKED, row | {"request": Jsonb(row["request"])})


def hidden(reply: OCOutput) -> OCOutput:
    """The reply without secrets."""
    return OCOutput.model_validate(ports().redaction.document(reply.document()))


def within(request: AgentRequest, used: int, reply: OCOutput) -> OCOutput:
    """The reply, if the run may use the tokens that it took."""
    check_tokens(request.max_tokens, used + (reply.usage.total_tokens if reply.usage else 0))
    return reply


async def tokens_used(request: AgentRequest) -> int:
    """By the other calls of the run, whichever attempt they were made for."""
    if request.max_tokens is None:
        return 0
    found = await ports().read(_Tokens, TOKENS, request.run_id, request.op_key)
    return found.total if found else 0


@dataclass(frozen=True, slots=True)
class _Tokens:
    total: int


async def recorded_reply(key: str) -> OCOutput | None:
    call = await ports().read(_Recorded, RECORDED_CALL, key)
    return None if call is None else OCOutput.model_validate(call.response)


@dataclass(frozen=True, slots=True)
class _Recorded:
    response: JsonObject


def check_tools(agent: str, reply: OCOutput) -> None:
    """Every tool that was called must be one of the agent's, letter by letter."""
    allowed = ALLOWED_TOOLS.get(agent, frozenset())  # an unknown agent has no tools
    for call in reply.toolcalls:
        if call.name not in allowed:
            raise TerminalError(
                f"tool-denied: {call.name} for agent {agent}",
                name="tool_denied",
                data={"tool": call.name, "agent": agent},
            )


def checked_answer(reply: OCOutput, answer: type[Answer]) -> Answer:
    if reply.structured is None:
        raise structured_output_error("the agent gave no structured answer", reply)
    try:
        return parse(answer, reply.structured)
    except InvalidInput as error:
        raise structured_output_error(error.message, reply) from error


def structured_output_error(message: str, reply: OCOutput) -> TerminalError:
    raw = reply.raw_response or ""
    return TerminalError(
        f"structured output: {message}",
        name="structured_output_invalid",
        data={"structured": reply.structured, "raw": raw[:4000]},
    )


def forbid_child_sessions(value: object) -> None:
    """Sessions stand alone. Refuses a key that names a parent session, however it is written, at any depth."""
    if isinstance(value, dict):
        for key, item in cast("dict[str, object]", value).items():
            if "".join(c for c in str(key).lower() if c.isalnum()) in ("parentid", "parentsessionid"):
                raise TerminalError(f"child sessions are not allowed: remove {key!r}", name="child_session_denied")
            forbid_child_sessions(item)
    elif isinstance(value, (list, tuple)):
        for item in cast("list[object]", value):
            forbid_child_sessions(item)


def ledger_row(request: AgentRequest, reply: OCOutput | None, took_s: float, error: JsonObject | None) -> JsonObject:
    """Enough to rebuild the call without asking anybody."""
    document = {} if reply is None else compact(reply)
    prompt = ports().redaction.text(request.prompt)
    return {
        "op_key": request.op_key,
        "run_id": request.run_id,
        "step_id": request.step_id,
        "request": {
            "agent": request.agent,
            "attempt": request.attempt,
            "prompt": prompt,
            "schema": request.schema,
            "schemaVersion": request.schema_version,
            "promptHash": sha256_text(request.prompt),
        },
        "response": document,
        "diff": document.get("diffs"),
        "session_id": document.get("session_id") or f"replay-{request.run_id}",
        "agent": request.agent,
        "schema_hash": schema_hash(request.schema),
        "prompt": prompt,
        "structured": document.get("structured"),
        "raw_response": document.get("raw_response"),
        "tool_calls": document.get("toolcalls"),
        "duration_ms": round(took_s * 1000),
        "error": error,
    }

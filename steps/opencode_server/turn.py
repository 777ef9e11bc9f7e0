"""One question to one agent in a session of its own, asked once: found again if it was asked before, watched, and never left running."""

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from steps.contracts.base import JsonObject
from steps.opencode_server.client import OpenCodeClient
from steps.opencode_server.faults import Fault, Faulty, fault_of
from steps.opencode_server.replies import Message
from steps.opencode_server.rules import DENY_ALL, deny_all, is_allowed
from steps.opencode_server.watchdog import Patience, Watchdog

PAUSE_S = 0.05
#: The watchdog ends a turn; the client's own timeout is for when it does not.
OVERTIME_S = 5.0
#: As many steps of an answer are looked at.
MOST_LOOKED_AT = 20


@dataclass(frozen=True, slots=True)
class Turn:
    """What is asked, and under which names."""

    session_id: str
    message_id: str
    agent: str
    prompt: str
    schema: JsonObject
    title: str
    metadata: dict[str, str]


@dataclass(frozen=True, slots=True)
class Done:
    """What came of a turn. steps: of the answer, the last first."""

    last: Message
    steps: tuple[Message, ...]

    @property
    def tokens(self) -> int:
        return sum(step.tokens for step in self.steps)


async def take(client: OpenCodeClient, turn: Turn, patience: Patience) -> Done:
    """The turn's answer: the one that is on the server already, or a new one. Raises Faulty."""
    await _open(client, turn)
    found = await client.steps_back(turn.session_id, 1)
    if not (found and _is_paid(found[0], turn)):
        await _ask(client, turn, patience)
    steps = await client.steps_back(turn.session_id, MOST_LOOKED_AT)
    if not steps:
        raise Faulty(Fault("oc_no_answer", "the server has no answer in the session", retriable=True))
    done = Done(steps[0], tuple(steps))
    _audit(done, turn)
    return done


def _is_paid(last: Message, turn: Turn) -> bool:
    """Whether the model has answered already, even if not with what was asked for. What failed otherwise may be asked again."""
    if last.answers != turn.message_id or not last.completed:
        return False
    if last.error is not None:
        return last.error.get("name") == "StructuredOutputError"
    return last.structured is not None


async def _open(client: OpenCodeClient, turn: Turn) -> None:
    """Sees to it that the session is ours alone and permits nothing."""
    session = await client.open_session(turn.session_id, turn.agent, turn.title, turn.metadata)
    if session.id != turn.session_id:
        raise Faulty(Fault("oc_bad_config", "the server gives the session another id"))
    if session.has_parent:
        raise Faulty(Fault("child_session_denied", "the server made it a child of another session"))
    if not deny_all(session.rules) or not set(session.rules) <= set(DENY_ALL):
        raise Faulty(
            Fault("oc_permissions", "the server does not keep to the session's rules, which permit nothing but an answer")
        )


def _audit(done: Done, turn: Turn) -> None:
    """No step of the answer may have used a tool, however its name is written; and an answer must be there."""
    for step in done.steps:
        for tool in step.tools:
            if not is_allowed(tool.name):
                raise Faulty(Fault("tool_denied", f"tool-denied: {tool.name} for agent {turn.agent}"))
    if done.last.error is not None:
        raise Faulty(fault_of(done.last.error))
    if done.last.structured is None:
        raise Faulty(Fault("oc_no_answer", "the server says that it is done and gives no answer", retriable=True))


async def _ask(client: OpenCodeClient, turn: Turn, patience: Patience) -> None:
    """Put the question and wait until it is answered. However this ends, the session is at rest afterwards."""
    dog = Watchdog(turn.session_id, turn.agent, patience)
    looking = asyncio.Event()
    watching = asyncio.create_task(_watch(client, dog, looking))
    asking: asyncio.Task[Message] | None = None
    answered = False
    try:
        await _first(watching, asyncio.create_task(looking.wait()))
        timeout_s = patience.turn_s + OVERTIME_S
        asking = asyncio.create_task(
            client.prompt(turn.session_id, turn.message_id, turn.agent, turn.prompt, turn.schema, timeout_s)
        )
        await _first(watching, asking)
        answered = True
    finally:
        ours = [task for task in (watching, asking) if task is not None]
        await _to_the_end(_end(ours, client, turn.session_id, patience, answered=answered))


async def _first(watching: "asyncio.Task[Fault]", other: "asyncio.Task[Any]") -> None:
    """Wait for the other, unless the watchdog finds a fault before."""
    try:
        await asyncio.wait({watching, other}, return_when=asyncio.FIRST_COMPLETED)
        if other.done():
            other.result()
        else:
            raise Faulty(watching.result())
    finally:
        other.cancel()


async def _watch(client: OpenCodeClient, dog: Watchdog, looking: asyncio.Event) -> Fault:
    """Follow the events until there is a reason to stop. A stream that breaks off is taken up again."""
    while True:
        try:
            async with client.events() as events:
                while True:
                    async with asyncio.timeout(dog.next_look_s()):  # wait_for may lose a cancellation
                        event = await anext(events, None)
                    looking.set()
                    if event is None:
                        break
                    if fault := dog.hear(event):
                        return fault
        except Faulty as trouble:
            if not looking.is_set():
                return trouble.fault
        except TimeoutError:
            pass
        if fault := dog.due():
            return fault
        await asyncio.sleep(PAUSE_S)


async def _end(
    tasks: "list[asyncio.Task[Any]]", client: OpenCodeClient, session: str, patience: Patience, *, answered: bool
) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await come_to_rest(client, session, patience.settle_s, abort_first=not answered)


async def come_to_rest(client: OpenCodeClient, session: str, within_s: float, *, abort_first: bool = True) -> bool:
    """Abort the session until the server says that it is idle. A server that is gone runs nothing. Whether it is at rest."""
    with suppress(Faulty, TimeoutError):
        async with asyncio.timeout(within_s):
            if abort_first:
                await client.abort(session)
                await asyncio.sleep(PAUSE_S)  # a question that was still on its way has arrived by now
            while session in await client.busy():
                await client.abort(session)
                await asyncio.sleep(PAUSE_S)
            return True
    return False


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Also when we are cancelled meanwhile."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise

"""Looks on while an agent answers, and says when it is time to stop it.

A server can be silent for ever, ask its model again and again, or go round in circles when a model's stream breaks off; and a tool that
it should not have could be called in a step that the final answer does not show. All of that stands in the server's events.
"""

import time
from dataclasses import dataclass, field

from steps.opencode_server.faults import Fault
from steps.opencode_server.replies import Event, ToolUse, tool_use
from steps.opencode_server.rules import is_allowed

QUESTIONS = frozenset({"permission.asked", "permission.updated", "question.asked"})


@dataclass(frozen=True, slots=True)
class Patience:
    """How long we wait for what.

    turn_s: for an answer. silence_s: for the next sign of life. up_s: for the server. most_steps: steps of one answer.
    most_retries: how often the server may ask its model again. most_repeats: how often one call may put a question again because of
    troubles that pass, first after back_off_s, then after twice as long each time. settle_s: for a session to come to rest.
    """

    turn_s: float = 300.0
    silence_s: float = 60.0
    up_s: float = 20.0
    most_steps: int = 4
    most_retries: int = 5
    most_repeats: int = 3
    back_off_s: float = 1.0
    settle_s: float = 10.0


@dataclass(slots=True)
class Watchdog:
    """What was seen of one session since it was asked."""

    session_id: str
    agent: str
    patience: Patience
    began: float = field(default_factory=time.monotonic)
    heard: float = field(default_factory=time.monotonic)
    tools: list[ToolUse] = field(default_factory=list[ToolUse])
    _steps: set[str] = field(default_factory=set[str])

    def hear(self, event: Event) -> Fault | None:
        """Why to stop now, if there is a reason in this event."""
        if event.session_id != self.session_id:
            return None
        self.heard = time.monotonic()
        if event.kind in QUESTIONS:
            return Fault("tool_denied", "the agent asks for a permission")
        if event.status.get("type") == "retry":
            return self._of_retry(event)
        if event.part.get("type") == "tool":
            return self._of_tool(event)
        if event.part.get("type") == "step-start":
            self._steps.add(str(event.part.get("id", "")))
            if len(self._steps) > self.patience.most_steps:
                return Fault("oc_runaway", f"the agent began more than {self.patience.most_steps} steps")
        return None

    def due(self) -> Fault | None:
        """Why to stop now, if too much time has passed."""
        now = time.monotonic()
        if now - self.began >= self.patience.turn_s:
            return Fault("oc_stall", f"no answer in {self.patience.turn_s:g} s")
        if now - self.heard >= self.patience.silence_s:
            return Fault("oc_stall", f"no sign of life for {self.patience.silence_s:g} s")
        return None

    def next_look_s(self) -> float:
        """How long to wait for an event before `due` is to be asked."""
        now = time.monotonic()
        left = min(self.began + self.patience.turn_s, self.heard + self.patience.silence_s) - now
        return max(left, 0.0) + 0.001

    def _of_retry(self, event: Event) -> Fault | None:
        attempt, next_ms = event.status.get("attempt"), event.status.get("next")
        said = str(event.status.get("message", ""))[:300]
        if isinstance(next_ms, (int, float)):
            wait_s = next_ms / 1000 - time.time()
            if time.monotonic() + wait_s > self.began + self.patience.turn_s:
                return Fault("oc_provider", f"the model's provider wants a longer wait than we have: {said}", retriable=True)
            self.heard += max(wait_s, 0.0)  # it has said how long it is going to be silent
        if isinstance(attempt, int) and attempt > self.patience.most_retries:
            return Fault("oc_provider", f"the model's provider failed {attempt} times: {said}", retriable=True)
        return None

    def _of_tool(self, event: Event) -> Fault | None:
        used = tool_use(event.part)
        if is_allowed(used.name):
            return None
        self.tools.append(used)
        return Fault("tool_denied", f"tool-denied: {used.name} for agent {self.agent}")

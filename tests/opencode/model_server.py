"""A stand-in for a language model: speaks the OpenAI-compatible protocol on the loopback, and says what a test wants said.

What it is to say is a function from what it was asked to one of the moves below, so that a test can read its own script.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "stand-in-1"
ANSWER_TOOL = "StructuredOutput"


@dataclass(frozen=True, slots=True)
class Asked:
    """One request to the model. number: the how manyth, from 1. prompt: what its user said last."""

    number: int
    prompt: str
    tools: tuple[str, ...]
    schema: Mapping[str, Any]
    body: Mapping[str, Any] = field(repr=False)

    @property
    def is_for_plan(self) -> bool:
        return "design" in self.schema.get("properties", {})


@dataclass(frozen=True, slots=True)
class Answer:
    """Gives this as the structured answer."""

    value: Any
    after_s: float = 0


@dataclass(frozen=True, slots=True)
class Call:
    """Calls a tool, whether it was offered or not."""

    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Text:
    """Says something, and calls no tool."""

    text: str


@dataclass(frozen=True, slots=True)
class Refuse:
    """Answers with an HTTP error."""

    status: int
    message: str = "no"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Truncated:
    """Begins to talk, and ends the stream without saying why."""


@dataclass(frozen=True, slots=True)
class Silence:
    """Begins to talk, and then says nothing until the server is closed or the client goes away."""


Move = Answer | Call | Text | Refuse | Truncated | Silence
Script = Callable[[Asked], Move]


def plan(goal: str = "demo", **more: Any) -> dict[str, Any]:
    return {"goal": goal, "design": ["one step"], "files": [], "risks": [], "tests": ["true"], **more}


def build(**more: Any) -> dict[str, Any]:
    return {"patch": [], "tests": ["true"], "test_command": "true", **more}


def as_asked(asked: Asked) -> Move:
    """A plan to whom wants a plan, else a build."""
    return Answer(plan() if asked.is_for_plan else build())


class ModelServer:
    """What was asked so far is in `asked`; `script` may be changed at any time."""

    def __init__(self, script: Script = as_asked) -> None:
        self.script = script
        self.asked: list[Asked] = []
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/v1"

    def reset(self, script: Script = as_asked) -> None:
        self.script = script
        self.asked.clear()

    def close(self) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take(self, body: Mapping[str, Any]) -> tuple[Asked, Move]:
        functions = [tool["function"] for tool in body.get("tools", [])]
        schema = next((one["parameters"] for one in functions if one["name"] == ANSWER_TOOL), {})
        with self._lock:
            asked = Asked(len(self.asked) + 1, last_prompt(body), tuple(one["name"] for one in functions), schema, body)
            self.asked.append(asked)
            return asked, self.script(asked)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_POST(self) -> None:
                self.close_connection = True
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                asked, move = server._take(body)
                try:
                    self._say(asked, move)
                except (BrokenPipeError, ConnectionResetError):
                    pass  # whoever asked does not want to know any more

            def _say(self, asked: Asked, move: Move) -> None:
                if isinstance(move, Refuse):
                    self._head(move.status, "application/json", move.headers)
                    self.wfile.write(json.dumps({"error": {"message": move.message, "type": "stand_in"}}).encode())
                    return
                self._head(200, "text/event-stream", {})
                match move:
                    case Answer(value, after_s):
                        time.sleep(after_s)
                        self._call(ANSWER_TOOL, value)
                    case Call(tool, arguments):
                        self._call(tool, arguments)
                    case Text(text):
                        self._chunk({"content": text})
                        self._finish("stop")
                    case Truncated():
                        self._chunk({"content": "And then"})
                    case Silence():
                        self._chunk({"content": "Well"})
                        while not server._closing.wait(0.2):
                            self.wfile.write(b": still here\n\n")
                            self.wfile.flush()

            def _head(self, status: int, kind: str, headers: Mapping[str, str]) -> None:
                self.send_response(status)
                for name, value in {"content-type": kind, "connection": "close", **headers}.items():
                    self.send_header(name, value)
                self.end_headers()

            def _call(self, tool: str, arguments: Any) -> None:
                called = {"name": tool, "arguments": json.dumps(arguments)}
                self._chunk({"tool_calls": [{"index": 0, "id": f"call_{tool}", "type": "function", "function": called}]})
                self._finish("tool_calls")

            def _finish(self, reason: str) -> None:
                self._chunk({}, reason)
                self._event({"usage": {"prompt_tokens": 100, "completion_tokens": 20, "total_tokens": 120}, "choices": []})
                self.wfile.write(b"data: [DONE]\n\n")

            def _chunk(self, delta: Mapping[str, Any], reason: str | None = None) -> None:
                self._event({"choices": [{"index": 0, "delta": {"role": "assistant", **delta}, "finish_reason": reason}]})

            def _event(self, part: Mapping[str, Any]) -> None:
                whole = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": MODEL, **part}
                self.wfile.write(f"data: {json.dumps(whole)}\n\n".encode())
                self.wfile.flush()

        return Handler


def last_prompt(body: Mapping[str, Any]) -> str:
    """What the user said last, as text."""
    said = [message["content"] for message in body.get("messages", []) if message.get("role") == "user"]
    if not said:
        return ""
    return said[-1] if isinstance(said[-1], str) else "\n".join(part.get("text", "") for part in said[-1])


@contextmanager
def model_server(script: Script = as_asked) -> Iterator[ModelServer]:
    server = ModelServer(script)
    try:
        yield server
    finally:
        server.close()

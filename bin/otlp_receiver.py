"""A collector for drills and tests: takes OTLP over HTTP on a free port of this machine and keeps what it was sent."""

import gzip
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

Values = dict[str, str | int | float | bool]


@dataclass(frozen=True, slots=True)
class ReceivedSpan:
    """links: (trace id, span id) of other spans. service: who sent it."""

    name: str
    trace_id: str
    span_id: str
    parent_id: str
    links: tuple[tuple[str, str], ...]
    failed: bool
    attributes: Values
    service: Values


@dataclass(frozen=True, slots=True)
class ReceivedLog:
    body: str
    severity: str
    trace_id: str
    span_id: str
    attributes: Values
    service: Values


class Receiver:
    """Listens while its block lasts. `spans` and `logs` fill up meanwhile, and stay."""

    def __init__(self) -> None:
        self.spans: list[ReceivedSpan] = []
        self.logs: list[ReceivedLog] = []
        self.paths: list[str] = []
        handler = type("Handler", (_Handler,), {"receiver": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True, name="otlp receiver")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def take(self, path: str, body: bytes) -> None:
        self.paths.append(path)
        if path.endswith("/traces"):
            self.spans += spans_in(ExportTraceServiceRequest.FromString(body))
        else:
            self.logs += logs_in(ExportLogsServiceRequest.FromString(body))


class _Handler(BaseHTTPRequestHandler):
    receiver: Receiver
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        self.receiver.take(self.path, body)
        self.send_response(200)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


def spans_in(request: Any) -> Iterable[ReceivedSpan]:
    for sender in request.resource_spans:
        service = values(sender.resource.attributes)
        for scope in sender.scope_spans:
            for span in scope.spans:
                yield ReceivedSpan(
                    span.name,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    tuple((link.trace_id.hex(), link.span_id.hex()) for link in span.links),
                    span.status.code == 2,
                    values(span.attributes),
                    service,
                )


def logs_in(request: Any) -> Iterable[ReceivedLog]:
    for sender in request.resource_logs:
        service = values(sender.resource.attributes)
        for scope in sender.scope_logs:
            for said in scope.log_records:
                yield ReceivedLog(
                    said.body.string_value,
                    said.severity_text,
                    said.trace_id.hex(),
                    said.span_id.hex(),
                    values(said.attributes),
                    service,
                )


def values(pairs: Any) -> Values:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in pairs}

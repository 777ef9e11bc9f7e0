"""Spans and log records by OTLP over HTTP, to every endpoint that the settings name.

Each endpoint has a queue of its own and a thread that sends from it in batches: nobody waits for a collector, and what a collector can't
take in time is dropped, the oldest first. This module loads the packages of OpenTelemetry, so import it only when it is wanted.
"""

import logging
import os
import socket
import threading
import time
import uuid
from typing import Any, Self

from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk._logs import ReadWriteLogRecord
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags, set_span_in_context

from bin.logs import event_of
from bin.settings import Settings
from bin.watch import Span

REQUEST_TIMEOUT_S = 5.0  # of one attempt to deliver a batch, its retries included
PAUSE_MS = 1000  # between batches that are not full
BATCH = 512
QUEUE = 8192
CLOSE_WITHIN_S = 5.0

SCOPE = InstrumentationScope("holdfast")
KINDS = {"server": SpanKind.SERVER, "consumer": SpanKind.CONSUMER, "internal": SpanKind.INTERNAL}


class Telemetry:
    """Sends while its block lasts; at the end what is left, for a few seconds at most."""

    def __init__(self, settings: Settings, role: str) -> None:
        self._resource = resource(settings, role)
        to_spans = [OTLPSpanExporter(endpoint=url, timeout=REQUEST_TIMEOUT_S) for url in settings.traces_endpoints]
        to_logs = [OTLPLogExporter(endpoint=url, timeout=REQUEST_TIMEOUT_S) for url in settings.logs_endpoints]
        self._exporters = [*to_spans, *to_logs]
        self._spans = [BatchSpanProcessor(each, QUEUE, PAUSE_MS, BATCH) for each in to_spans]
        self._logs = [BatchLogRecordProcessor(each, PAUSE_MS, BATCH, max_queue_size=QUEUE) for each in to_logs]
        self._handler = _Handler(self)

    def __enter__(self) -> Self:
        logging.getLogger().addHandler(self._handler)
        return self

    def __exit__(self, *_: object) -> None:
        logging.getLogger().removeHandler(self._handler)
        self.close()

    def send(self, span: Span) -> None:
        readable = ReadableSpan(
            name=span.name,
            context=_context(span.trace_id, span.span_id),
            parent=None if span.parent_id is None else _context(span.trace_id, span.parent_id),
            resource=self._resource,
            attributes=span.attributes,
            links=[] if span.link is None else [Link(_context(span.link.trace_id, span.link.span_id))],
            kind=KINDS[span.kind],
            status=Status(StatusCode.ERROR if span.failed else StatusCode.UNSET),
            start_time=span.began_ns,
            end_time=span.ended_ns,
            instrumentation_scope=SCOPE,
        )
        for processor in self._spans:
            processor.on_end(readable)

    def send_log(self, record: logging.LogRecord) -> None:
        event = event_of(record)
        body = str(event.pop("event", ""))
        for told_otherwise in ("timestamp", "level"):
            event.pop(told_otherwise, None)
        trace_id, span_id = event.pop("trace_id", None), event.pop("span_id", None)
        place = _context(trace_id, span_id) if trace_id and span_id else None
        said = LogRecord(
            timestamp=int(record.created * 1e9),
            context=set_span_in_context(NonRecordingSpan(place)) if place else None,
            severity_text=record.levelname,
            severity_number=SeverityNumber(min(record.levelno // 10 * 4 + 1, 24)),
            body=body,
            attributes={name: _plain(value) for name, value in event.items()},
        )
        for processor in self._logs:
            processor.on_emit(ReadWriteLogRecord(said, self._resource, SCOPE))

    def close(self, within_s: float = CLOSE_WITHIN_S) -> None:
        """Send what is left; give up after `within_s`."""
        deadline = time.monotonic() + within_s
        ending = [threading.Thread(target=each.shutdown, daemon=True) for each in (*self._spans, *self._logs)]
        for thread in ending:
            thread.start()
        for thread, exporter in zip(ending, self._exporters, strict=True):
            thread.join(max(0.0, deadline - time.monotonic()))
            if thread.is_alive():
                exporter.shutdown()  # it fails from here on, also in the middle of its retries


class _Handler(logging.Handler):
    def __init__(self, telemetry: Telemetry) -> None:
        super().__init__()
        self._telemetry = telemetry

    def emit(self, record: logging.LogRecord) -> None:
        if not record.name.startswith("opentelemetry"):  # a failure to send is nothing to send
            self._telemetry.send_log(record)


def resource(settings: Settings, role: str) -> Resource:
    """Who we are. What the settings say wins."""
    return Resource.create(
        {
            "service.version": settings.app_version,
            "service.instance.id": str(uuid.uuid4()),
            "host.name": socket.gethostname(),
            "process.pid": os.getpid(),
            "holdfast.role": role,
            **settings.resource_attributes,
            "service.name": settings.service_name,
        }
    )


def _context(trace_id: str, span_id: str) -> SpanContext:
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=False, trace_flags=TraceFlags(TraceFlags.SAMPLED))


def _plain(value: Any) -> str | int | float | bool:
    return value if isinstance(value, str | int | float | bool) else str(value)

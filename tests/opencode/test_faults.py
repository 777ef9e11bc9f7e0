"""What a server says when something is wrong, and what we make of it: the whole table."""

from typing import Any

import httpx
import pytest

from steps.opencode_server.faults import BadReply, fault_of

JSON = "application/json"


def api_error(status: int | None, retryable: bool, **headers: str) -> dict[str, Any]:
    data = {"message": "no", "isRetryable": retryable, "responseHeaders": {k.replace("_", "-"): v for k, v in headers.items()}}
    return {"name": "APIError", "data": data | ({} if status is None else {"statusCode": status})}


def named(name: str) -> dict[str, Any]:
    return {"name": name, "data": {"message": "no"}}


@pytest.mark.parametrize(
    ("said", "name", "retriable"),
    [
        (httpx.ConnectError("refused"), "oc_live_unavailable", True),
        (httpx.ReadTimeout("slow"), "oc_live_unavailable", True),
        (httpx.RemoteProtocolError("gone"), "oc_live_unavailable", True),
        (httpx.UnsupportedProtocol("ftp"), "oc_bad_config", False),
        (httpx.InvalidURL("what"), "oc_bad_config", False),
        (BadReply(200, "text/html; charset=utf-8", None), "oc_live_unavailable", True),
        (BadReply(404, "text/html", None), "oc_gone", True),
        (BadReply(418, "text/plain", None), "oc_live_unavailable", True),
        (BadReply(502, "text/html", None), "oc_live_unavailable", True),
        (BadReply(503, JSON, {}), "oc_live_unavailable", True),
        (BadReply(401, "", None), "oc_auth", False),
        (BadReply(403, JSON, {}), "oc_auth", False),
        (BadReply(400, JSON, {"name": "BadRequest", "data": {"message": "Expected"}}), "oc_bad_request", False),
        (BadReply(404, JSON, {"name": "NotFoundError"}), "oc_gone", True),
        (BadReply(409, JSON, {"name": "SessionBusyError"}), "oc_busy", True),
        (BadReply(422, JSON, {}), "oc_bad_request", False),
        (BadReply(500, JSON, {"name": "UnknownError", "data": {"message": "Unexpected"}}), "oc_bad_config", False),
        (api_error(401, False), "oc_auth", False),
        (api_error(403, False), "oc_auth", False),
        (api_error(429, True), "oc_rate_limited", True),
        (api_error(500, True), "oc_provider", True),
        (api_error(400, False), "oc_provider", False),
        (api_error(None, True), "oc_provider", True),
        (named("ProviderAuthError"), "oc_auth", False),
        (named("MessageAbortedError"), "oc_aborted", True),
        (named("StructuredOutputError"), "oc_no_structure", False),
        (named("ContextOverflowError"), "oc_context_overflow", False),
        (named("ContentFilterError"), "oc_content_filter", False),
        (named("MessageOutputLengthError"), "oc_output_length", False),
        (named("UnknownError"), "oc_provider", False),
        ({}, "oc_provider", False),
        ({"name": "APIError", "data": "text"}, "oc_provider", False),
    ],
)
def test_every_trouble_has_a_name_and_a_verdict(said: Any, name: str, retriable: bool) -> None:
    fault = fault_of(said)
    assert (fault.name, fault.retriable) == (name, retriable)
    assert fault.message
    assert len(fault.message) < 700


@pytest.mark.parametrize(("given", "waits"), [("7", 7.0), ("0.5", 0.5), ("3600", 60.0), ("-1", 0.0), ("Wed, 21 Oct 2026", None)])
def test_a_provider_may_say_how_long_to_wait_within_reason(given: str, waits: float | None) -> None:
    assert fault_of(api_error(429, True, retry_after=given)).retry_after_s == waits


def test_a_long_story_is_cut() -> None:
    assert len(fault_of({"name": "UnknownError", "data": {"message": "x" * 10_000}}).message) < 600

"""What an OpenCode server says when something is wrong, as one of few named faults.

A model's failure comes back as a good HTTP answer with an error in it, a broken server as a web page, and a server that is not there as
an exception of the client. `fault_of` knows them all, and nothing else decides whether asking again is of any use.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

MOST_WAIT_S = 60.0
LONGEST_TEXT = 500


@dataclass(frozen=True, slots=True)
class Fault:
    """name: how the step's failure is called. retriable: whether the same question may be put again. retry_after_s: not before."""

    name: str
    message: str
    retriable: bool = False
    retry_after_s: float | None = None


class Faulty(Exception):
    """A call that came to nothing, and why."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.name}: {fault.message}")
        self.fault = fault


@dataclass(frozen=True, slots=True)
class BadReply:
    """An HTTP answer that is none of OpenCode's good ones."""

    status: int
    content_type: str
    body: Any


#: The errors that an answer can carry, by their name: ours, and whether to ask again. APIError is looked at more closely.
ANSWER_ERRORS: Mapping[str, tuple[str, bool]] = {
    "ProviderAuthError": ("oc_auth", False),
    "MessageAbortedError": ("oc_aborted", True),
    "StructuredOutputError": ("oc_no_structure", False),
    "ContextOverflowError": ("oc_context_overflow", False),
    "ContentFilterError": ("oc_content_filter", False),
    "MessageOutputLengthError": ("oc_output_length", False),
}
#: What the server says of itself by a status. 500 comes for an agent or a model that it does not know.
STATUSES: Mapping[int, tuple[str, bool, str]] = {
    400: ("oc_bad_request", False, "the server does not understand the request"),
    401: ("oc_auth", False, "the server wants another user name or password"),
    403: ("oc_auth", False, "the server refuses this user"),
    404: ("oc_gone", True, "the session is not there"),
    409: ("oc_busy", True, "the session is busy"),
    500: ("oc_bad_config", False, "the server failed; does it know the agent's model and its provider?"),
}


def fault_of(said: Exception | BadReply | Mapping[str, Any]) -> Fault:
    """The fault in what came back: an exception of the client, an HTTP answer, or the error inside of an answer."""
    if isinstance(said, Exception):
        return _of_exception(said)
    if isinstance(said, BadReply):
        return _of_reply(said)
    return _of_answer(said)


def _of_exception(error: Exception) -> Fault:
    text = str(error) or type(error).__name__
    if isinstance(error, (httpx.InvalidURL, httpx.UnsupportedProtocol, httpx.TooManyRedirects)):
        return Fault("oc_bad_config", f"the server's address is of no use: {text}")
    return Fault("oc_live_unavailable", f"the server does not answer: {text}", retriable=True)


def _of_reply(reply: BadReply) -> Fault:
    is_json = reply.content_type.partition(";")[0].strip() == "application/json"
    if reply.status < 400 or (reply.status not in STATUSES and not is_json):
        return Fault(
            "oc_live_unavailable",
            f"what answers is no OpenCode server (status {reply.status}, {reply.content_type or 'no'} content)",
            True,
        )
    if reply.status >= 502:
        return Fault("oc_live_unavailable", f"the server is not ready (status {reply.status})", True)
    name, retriable, text = STATUSES.get(
        reply.status, ("oc_bad_request", False, f"the server answers with status {reply.status}")
    )
    said = _data(reply.body).get("message")
    return Fault(name, f"{text}: {_short(said)}" if said else text, retriable)


def _of_answer(error: Mapping[str, Any]) -> Fault:
    name, data = str(error.get("name") or "an error without name"), _data(error)
    said = _short(data.get("message") or name)
    if name == "APIError":
        return _of_provider(data, said)
    if name in ANSWER_ERRORS:
        ours, retriable = ANSWER_ERRORS[name]
        return Fault(ours, said, retriable)
    return Fault("oc_provider", f"{name}: {said}" if said != name else name)


def _of_provider(data: Mapping[str, Any], said: str) -> Fault:
    status = data.get("statusCode")
    if status in (401, 403):
        return Fault("oc_auth", f"the model's provider refuses our key: {said}")
    if status == 429:
        return Fault("oc_rate_limited", f"the model's provider wants us to wait: {said}", True, _retry_after_s(data))
    where = f"the model's provider fails (status {status})" if status else "the model's provider fails"
    return Fault("oc_provider", f"{where}: {said}", data.get("isRetryable") is True, _retry_after_s(data))


def _retry_after_s(data: Mapping[str, Any]) -> float | None:
    headers = data.get("responseHeaders")
    given = headers.get("retry-after") if isinstance(headers, dict) else None
    try:
        return None if given is None else min(max(float(given), 0.0), MOST_WAIT_S)
    except ValueError:  # a date
        return None


def _data(document: Any) -> Mapping[str, Any]:
    found = document.get("data") if isinstance(document, dict) else None
    return found if isinstance(found, dict) else {}


def _short(said: Any) -> str:
    text = " ".join(str(said).split())
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"

"""How a command ended, as the wire carries it."""

from typing import NamedTuple

from steps.contracts.base import JsonObject
from steps.contracts.sandbox import ErrCode, Metrics, SBXReq, SBXRes
from steps.sandboxes.capture import storable
from steps.sandboxes.collect import Collected
from steps.sandboxes.trouble import Trouble

TIMED_OUT = 124
KILLED = 137


class Outcome(NamedTuple):
    exit: int
    err_code: ErrCode
    metrics: Metrics


class Output(NamedTuple):
    """What a command printed, as text that can be stored, and how many bytes were thrown away."""

    text: str
    dropped: int


def answer(
    request: SBXReq, provider: str, ref: str, outcome: Outcome, stdout: Output, stderr: Output, left: Collected, told: JsonObject
) -> SBXRes:
    """told: what this provider says of the sandbox besides; it stands in `raw`."""
    said = stderr.text
    if outcome.err_code == "TIMEOUT":
        said += f"[killed: it ran longer than {request.timeoutMs} ms]\n"
    return SBXRes(
        exit=outcome.exit,
        stdout=stdout.text,
        stderr=said,
        filesOut=left.files,
        metrics=outcome.metrics,
        sandboxRef=ref,
        errCode=outcome.err_code,
        taskKey=request.taskKey,
        raw={
            "provider": provider,
            "cmd": request.cmd,
            **told,
            "cut": {"stdout": stdout.dropped, "stderr": stderr.dropped},
            "skipped": left.skipped,
        },
    )


def not_run(request: SBXReq, provider: str, ref: str, trouble: Trouble) -> SBXRes:
    """The answer when the sandbox was at fault. It is recorded nowhere: the next attempt tries again, unless `raw.permanent`."""
    raw: JsonObject = {"provider": provider, "cmd": storable(request.cmd)}
    if trouble.permanent:
        raw["permanent"] = True
    return SBXRes(
        exit=1,
        stdout="",
        stderr=f"{storable(str(trouble))}\n",
        filesOut=[],
        metrics=Metrics(wallMs=0, cpuMs=0, memPeakMB=0),
        sandboxRef=ref,
        errCode=trouble.err_code,
        taskKey=request.taskKey,
        raw=raw,
    )

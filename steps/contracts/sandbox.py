"""One command in a sandbox: the request and its result."""

from typing import Annotated, Literal

from pydantic import Field

from steps.contracts.base import Hash, JsonObject, Millis, Text, Wire

ErrCode = Literal["NONE", "BOOT_FAIL", "CMD_NONZERO", "TIMEOUT", "OOM", "NET_FAIL", "UPLOAD_FAIL", "DOWNLOAD_FAIL"]
# The sandbox's own troubles: worth another try. The others are the command's, and would come again.
RETRYABLE: frozenset[ErrCode] = frozenset({"BOOT_FAIL", "NET_FAIL", "UPLOAD_FAIL", "DOWNLOAD_FAIL"})

DEFAULT_ENV_REF = "local-node-24"


class FileIn(Wire):
    path: Text
    inline: str | None = None
    uri: str | None = None


class FileOut(Wire):
    path: Text
    sha256: Hash
    inline: str | None = None
    uri: str | None = None


class SBXLimits(Wire):
    cpu: Annotated[float, Field(gt=0)] = 1
    memMB: Annotated[int, Field(ge=1)] = 512


class SBXReq(Wire):
    envRef: Text
    cmd: Text
    filesIn: list[FileIn]
    env: dict[str, str]
    timeoutMs: Annotated[int, Field(ge=1)]
    limits: SBXLimits
    net: bool
    taskKey: Text
    templateId: str | None = None
    templateKey: str | None = None
    depsHash: str | None = None
    workdir: str | None = None


class Metrics(Wire):
    """What the command used. bootMs is how long the sandbox took to start, where the provider tells."""

    wallMs: Annotated[float, Field(ge=0)]
    cpuMs: Annotated[float, Field(ge=0)]
    memPeakMB: Annotated[float, Field(ge=0)]
    bootMs: Millis | None = None


class SBXRes(Wire):
    exit: int
    stdout: str
    stderr: str
    filesOut: list[FileOut]
    metrics: Metrics
    sandboxRef: str
    errCode: ErrCode
    taskKey: Text
    artifactIndexRef: str | None = None
    raw: JsonObject | None = None

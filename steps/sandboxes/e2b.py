"""Sandboxes by E2B, through its own package, which is loaded only here.

A sandbox is found by its metadata: `app` and `env` say whose it is, `name` and `key` for which command. It is created under its name as
idempotency key, with a body that depends on the command alone, so that a creation whose answer was lost is not made twice. It has no
network unless the request wants one, and the service ends it when its time is over.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from steps.contracts.sandbox import ErrCode, SBXReq
from steps.sandbox import SandboxNotConfigured
from steps.sandboxes.guest import MAX_RESULT_BYTES
from steps.sandboxes.remote import Label, Machine, Tell
from steps.sandboxes.trouble import Trouble

if TYPE_CHECKING:
    from e2b import AsyncSandbox, SandboxInfo

APP = "holdfast"
START_S = 30.0
MAX_LISTED = 1000
#: Answers that come again however often one asks.
REFUSALS = frozenset({400, 401, 402, 403, 404, 405, 413, 422})


class E2B:
    """The E2B service under an API key. env: tells this installation from others that use the same account. connection: what the
    package takes besides, such as `api_url`. Raises SandboxNotConfigured without a key or without the package.
    """

    provider = "e2b"

    def __init__(self, api_key: str | None, env: str, **connection: Any) -> None:
        if not api_key:
            raise SandboxNotConfigured("SBX_PROVIDER=e2b: E2B_API_KEY is not set")
        try:
            import e2b
        except ImportError:
            raise SandboxNotConfigured(
                "SBX_PROVIDER=e2b: the package e2b is not installed; install requirements-e2b.lock"
            ) from None
        self._sandbox = e2b.AsyncSandbox
        self._query = e2b.SandboxQuery
        self._states = [e2b.SandboxState.RUNNING, e2b.SandboxState.PAUSED]
        self._env = env
        self._api: dict[str, Any] = {"api_key": api_key, **connection}

    async def find(self, name: str) -> Machine | None:
        for found in await self._listed({"name": name}):
            if found.state == "running":
                return E2BMachine(await self._sandbox.connect(found.sandbox_id, **self._api))
        return None

    async def make(self, name: str, key: str, request: SBXReq, ttl_s: int) -> Machine:
        made = await self._sandbox.create(
            template=request.templateId or request.envRef,
            timeout=ttl_s,
            metadata={**self._owner(), "name": name, "key": key, "task": request.taskKey},
            allow_internet_access=request.net,
            lifecycle={"on_timeout": "kill"},
            idempotency_key=name,
            **self._api,
        )
        return E2BMachine(made)

    async def labelled(self) -> Sequence[Label]:
        return [E2BLabel(found, self) for found in await self._listed({})]

    async def kill(self, sandbox_id: str) -> None:
        await self._sandbox.kill(sandbox_id, **self._api)

    def trouble(self, error: Exception, doing: ErrCode) -> Trouble:
        return trouble(error, doing)

    def _owner(self) -> dict[str, str]:
        return {"app": APP, "env": self._env}

    async def _listed(self, metadata: Mapping[str, str]) -> "list[SandboxInfo]":
        pages = self._sandbox.list(self._query(metadata={**self._owner(), **metadata}, state=self._states), **self._api)
        found: list[SandboxInfo] = []
        while pages.has_next and len(found) < MAX_LISTED:
            found += await pages.next_items()
        return found


@dataclass(frozen=True, slots=True)
class E2BLabel:
    info: "SandboxInfo"
    service: E2B

    @property
    def key(self) -> str:
        return self.info.metadata.get("key", "")

    async def kill(self) -> None:
        await self.service.kill(self.info.sandbox_id)


class E2BMachine:
    """One sandbox."""

    def __init__(self, sandbox: "AsyncSandbox") -> None:
        self._sandbox = sandbox

    @property
    def ref(self) -> str:
        return f"e2b:{self._sandbox.sandbox_id}"

    async def write(self, path: str, content: bytes) -> None:
        await self._sandbox.files.write(path, content, use_octet_stream=True)

    async def read(self, path: str) -> bytes | None:
        from e2b import FileNotFoundException

        content = bytearray()
        try:
            async for chunk in await self._sandbox.files.read(path, format="stream"):
                content += chunk
                if len(content) > MAX_RESULT_BYTES:  # the command may have written what it likes
                    raise Trouble("DOWNLOAD_FAIL", f"{path} has more than {MAX_RESULT_BYTES} bytes", gone=True)
        except FileNotFoundException:
            return None
        return bytes(content)

    async def exists(self, path: str) -> bool:
        return await self._sandbox.files.exists(path)

    async def run(self, line: str, env: Mapping[str, str], tell: Tell) -> None:
        from e2b import CommandExitException

        running = await self._sandbox.commands.run(
            line,
            background=True,
            envs=dict(env),
            on_stdout=lambda text: tell("stdout", text),
            on_stderr=lambda text: tell("stderr", text),
            timeout=0,
            request_timeout=START_S,
            retain_output=False,
        )
        try:
            await running.wait()
        except CommandExitException:
            pass  # what it means stands in the record
        except asyncio.CancelledError:
            await running.disconnect()
            raise

    async def busy(self) -> bool:
        return await self._sandbox.commands.list() != []

    async def kill(self) -> None:
        await self._sandbox.kill()


def trouble(error: Exception, doing: ErrCode) -> Trouble:
    """What an error of the package means. The order matters: some of its classes are kinds of others, and some of none."""
    import e2b

    reason = f"E2B: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
    match error:
        case Trouble():
            return error
        case e2b.AuthenticationException() | e2b.InvalidArgumentException():
            return Trouble(doing, reason, permanent=True)
        case e2b.SandboxNotRunningException() | e2b.SandboxNotFoundException():
            return Trouble(doing, reason, gone=True)
        case e2b.NotEnoughSpaceException():
            return Trouble(doing, reason, gone=True)
        case e2b.RateLimitException() | e2b.SandboxUnreachableException() | e2b.TimeoutException():
            return Trouble(doing, reason)
        case e2b.SandboxException(status_code=int(status)) if status in REFUSALS:
            return Trouble(doing, reason, permanent=True)
        case _:  # among them a service that is busy, a slow answer, a stream that broke off: nobody knows what came of it
            return Trouble(doing, reason)

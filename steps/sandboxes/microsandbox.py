"""Sandboxes by microsandbox: a small virtual machine a command, on the worker's own machine, through its own package.

A machine is found by its name. It is detached, so that it outlives a worker that dies, and the runtime ends it when its time is over.
Its image is the request's template, or `envRef`, as an OCI reference; the machine must be able to pull it, or have it.
"""

import asyncio
import codecs
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from steps.contracts.sandbox import ErrCode, SBXReq
from steps.sandbox import SandboxNotConfigured
from steps.sandboxes.guest import MAX_RESULT_BYTES
from steps.sandboxes.remote import Label, Machine, Tell
from steps.sandboxes.trouble import Trouble

APP = "holdfast"
PREFIX = "holdfast-"
PROBE_S = 60.0
PROBE_IMAGE = "debian:bookworm-slim"
PERMANENT = frozenset(
    {"runtime-not-installed", "runtime-incomplete", "invalid-config", "image-not-found", "unsupported-operation"}
)
GONE = frozenset({"sandbox-not-found", "sandbox-not-running", "sandbox-replaced"})


class Microsandbox:
    """Machines of this computer. env: tells this installation from others on it. module: the package, for tests. Raises
    SandboxNotConfigured without the package.
    """

    provider = "microsandbox"

    def __init__(self, env: str, module: Any = None) -> None:
        self._env = env
        self._module = module or load()

    async def find(self, name: str) -> Machine | None:
        try:
            handle = await self._module.Sandbox.get(PREFIX + name)
        except Exception as error:
            if code_of(error) == "sandbox-not-found":
                return None
            raise
        if str(handle.status) != "running":
            await handle.remove()
            return None
        return MicroMachine(await handle.connect(), PREFIX + name, self)

    async def make(self, name: str, key: str, request: SBXReq, ttl_s: int) -> Machine:
        network = self._module.Network
        options: dict[str, Any] = {
            "image": request.templateId or request.envRef,
            "memory": request.limits.memMB,
            "cpus": max(1, round(request.limits.cpu)),
            "network": network.allow_all() if request.net else network.none(),
            "labels": {"app": APP, "env": self._env, "key": key, "task": request.taskKey},
            "max_duration": float(ttl_s),
            "detached": True,
        }
        try:
            made = await self._module.Sandbox.create(PREFIX + name, **options)
        except Exception as error:
            if code_of(error) == "sandbox-already-exists" and (found := await self.find(name)):
                return found
            raise
        return MicroMachine(made, PREFIX + name, self)

    async def labelled(self) -> Sequence[Label]:
        found: list[Label] = []
        cursor: str | None = None
        while True:
            page = await self._module.Sandbox.list_with(labels={"app": APP, "env": self._env}, cursor=cursor)
            found += [
                MicroLabel(handle.name, handle.config().get("labels", {}).get("key", ""), self) for handle in page.sandboxes
            ]
            cursor = page.next_cursor
            if cursor is None:
                return found

    async def end(self, name: str) -> None:
        """Kills a machine and forgets it. Fine if there is none."""
        for act in ("kill", "remove"):
            try:
                handle = await self._module.Sandbox.get(name)
                await getattr(handle, act)()
            except Exception as error:
                if code_of(error) not in GONE:
                    raise

    def trouble(self, error: Exception, doing: ErrCode) -> Trouble:
        return trouble(error, doing)

    async def boot_trouble(self) -> str | None:
        """Why no machine boots on this computer; None if one did. That there is /dev/kvm does not say that it works."""
        if not os.access("/dev/kvm", os.R_OK | os.W_OK):
            return "there is no /dev/kvm that this process may use"
        name = f"{PREFIX}probe-{os.getpid()}"
        try:
            async with asyncio.timeout(PROBE_S):
                sandbox = await self._module.Sandbox.create(name, image=PROBE_IMAGE, memory=256, ephemeral=True)
                answer = await sandbox.exec("/bin/true")
        except Exception as error:
            return f"no machine boots here: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
        finally:
            try:
                await self.end(name)
            except Exception:
                pass  # what is told is why it did not boot
        return None if answer.exit_code == 0 else f"a machine boots, but /bin/true ends with {answer.exit_code}"


def load() -> Any:
    try:
        import microsandbox  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise SandboxNotConfigured(
            "SBX_PROVIDER=microsandbox: the package microsandbox is not installed; install microsandbox>=0.7,<0.8"
        ) from None
    return microsandbox


@dataclass(frozen=True, slots=True)
class MicroLabel:
    name: str
    key: str
    service: Microsandbox

    async def kill(self) -> None:
        await self.service.end(self.name)


class MicroMachine:
    """One machine."""

    def __init__(self, sandbox: Any, name: str, service: Microsandbox) -> None:
        self._sandbox = sandbox
        self._name = name
        self._service = service

    @property
    def ref(self) -> str:
        return f"microsandbox:{self._name}"

    async def write(self, path: str, content: bytes) -> None:
        folder = os.path.dirname(path)
        made = await self._sandbox.exec("mkdir", ["-p", folder])
        if made.exit_code != 0:
            raise Trouble("UPLOAD_FAIL", f"{folder} cannot be made in the sandbox")
        await self._sandbox.fs.write(path, content)

    async def read(self, path: str) -> bytes | None:
        content = bytearray()
        try:
            async for chunk in await self._sandbox.fs.read_stream(path):
                content += chunk
                if len(content) > MAX_RESULT_BYTES:  # the command may have written what it likes
                    raise Trouble("DOWNLOAD_FAIL", f"{path} has more than {MAX_RESULT_BYTES} bytes", gone=True)
        except Exception as error:
            if code_of(error) == "path-not-found":
                return None
            raise
        return bytes(content)

    async def exists(self, path: str) -> bool:
        return bool(await self._sandbox.fs.exists(path))

    async def run(self, line: str, env: Mapping[str, str], tell: Tell) -> None:
        job = await self._sandbox.exec_detached("/bin/bash", ["-l", "-c", line], env=dict(env))
        kinds: tuple[Literal["stdout", "stderr"], ...] = ("stdout", "stderr")
        decoders = {kind: codecs.getincrementaldecoder("utf-8")(errors="replace") for kind in kinds}
        attached = await job.attach(read_only=True)
        try:
            async for event in attached:
                if event.type == "completed":
                    return
                if event.type == "output" and (kind := event.value.source) in decoders:
                    tell(kind, decoders[kind].decode(event.value.data))
        finally:
            await attached.detach()

    async def busy(self) -> bool:
        return bool((await self._sandbox.list_jobs()).items)

    async def kill(self) -> None:
        await self._service.end(self._name)


def code_of(error: Exception) -> str | None:
    code = getattr(error, "code", None)
    return code if isinstance(code, str) else None


def trouble(error: Exception, doing: ErrCode) -> Trouble:
    """What an error of the package means, by the code that it carries."""
    if isinstance(error, Trouble):
        return error
    reason = f"microsandbox: {type(error).__name__}: {' '.join(str(error).split())[:500]}"
    return Trouble(doing, reason, permanent=code_of(error) in PERMANENT, gone=code_of(error) in GONE)

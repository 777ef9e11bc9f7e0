"""A fake of the microsandbox package, as far as it is used: names, signatures and error codes are those of its 0.7.

Commands really run, by bubblewrap, in a folder for each machine; where a real machine has a kernel of its own, these have ours.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tests.sandbox.e2b_server import HOME, boxed


class Failure(Exception):
    """One of the package's errors, told apart by its code."""

    def __init__(self, code: str, message: str = "ordered to fail") -> None:
        super().__init__(message)
        self.code = code


@dataclass
class Machine:
    name: str
    home: Path
    options: dict[str, Any]
    status: str = "running"
    jobs: "list[Job]" = field(default_factory=list)

    @property
    def net(self) -> bool:
        return self.options["network"] == "all"

    # As a handle ----------------------------------------------------------------------------------------------------

    async def connect(self) -> "Machine":
        return self

    def config(self) -> dict[str, Any]:
        return {"labels": self.options["labels"]}

    async def kill(self) -> None:
        if self.status != "running":
            raise Failure("sandbox-not-running")
        self.status = "stopped"
        for job in self.jobs:
            if job.child.returncode is None:
                job.child.kill()
        await asyncio.gather(*(job.pumping for job in self.jobs))

    async def remove(self) -> None:
        Fake.machines.pop(self.name, None)

    # As a sandbox ---------------------------------------------------------------------------------------------------

    @property
    def fs(self) -> "Machine":
        return self

    def path(self, guest: str) -> Path:
        if self.status != "running":
            raise Failure("sandbox-not-running")
        return self.home / guest.removeprefix(f"{HOME}/")

    async def write(self, path: str, data: bytes) -> None:
        self.path(path).write_bytes(data)

    async def exists(self, path: str) -> bool:
        return self.path(path).exists()

    async def read_stream(self, path: str) -> AsyncIterator[bytes]:
        if not self.path(path).exists():
            raise Failure("path-not-found")
        content = self.path(path).read_bytes()

        async def chunks() -> AsyncIterator[bytes]:
            for begin in range(0, len(content), 65536):
                yield content[begin : begin + 65536]

        return chunks()

    async def exec(self, cmd: str, args: list[str] | None = None) -> Any:
        job = await self.exec_detached(cmd, args or [], env={})
        await job.pumping
        return SimpleNamespace(exit_code=job.child.returncode)

    async def exec_detached(self, cmd: str, args: list[str], *, env: Mapping[str, str]) -> "Job":
        self.path("")
        config = {"cmd": cmd, "args": args, "envs": dict(env)}
        pipe = asyncio.subprocess.PIPE
        child = await asyncio.create_subprocess_exec(
            *boxed(self.home, self.net, config), stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
        )
        job = Job(child)
        self.jobs.append(job)
        return job

    async def list_jobs(self) -> Any:
        return SimpleNamespace(items=[job for job in self.jobs if not job.pumping.done()])


class Job:
    def __init__(self, child: asyncio.subprocess.Process) -> None:
        self.child = child
        self.events: asyncio.Queue[Any] = asyncio.Queue()
        self.pumping = asyncio.create_task(self._pump())

    async def _pump(self) -> None:
        async def pump(source: str, pipe: asyncio.StreamReader | None) -> None:
            assert pipe is not None
            while data := await pipe.read(65536):
                self.events.put_nowait(SimpleNamespace(type="output", value=SimpleNamespace(source=source, data=data)))

        await asyncio.gather(pump("stdout", self.child.stdout), pump("stderr", self.child.stderr))
        await self.child.wait()
        self.events.put_nowait(SimpleNamespace(type="completed", value=None))

    async def attach(self, *, read_only: bool) -> "Job":
        assert read_only
        return self

    async def detach(self) -> None:
        pass

    async def __aiter__(self) -> AsyncIterator[Any]:
        while True:
            yield await self.events.get()


class Fake:
    """The module. `folder` is where machines are kept."""

    machines: "dict[str, Machine]" = {}  # noqa: RUF012  # one for the process, as the package's own
    folder = Path()
    boot_fails: str | None = None

    class Network:
        @staticmethod
        def none() -> str:
            return "none"

        @staticmethod
        def allow_all() -> str:
            return "all"

    class Sandbox:
        @staticmethod
        async def create(name: str, **options: Any) -> Machine:
            if Fake.boot_fails:
                raise Failure(Fake.boot_fails)
            if name in Fake.machines:
                raise Failure("sandbox-already-exists")
            home = Fake.folder / name
            os.makedirs(home, exist_ok=True)
            machine = Fake.machines[name] = Machine(name, home, {"network": "none", "labels": {}, **options})
            return machine

        @staticmethod
        async def get(name: str) -> Machine:
            if name not in Fake.machines:
                raise Failure("sandbox-not-found")
            return Fake.machines[name]

        @staticmethod
        async def list_with(*, labels: Mapping[str, str], cursor: str | None) -> Any:
            assert cursor is None
            found = [one for one in Fake.machines.values() if labels.items() <= one.options["labels"].items()]
            return SimpleNamespace(sandboxes=found, next_cursor=None)

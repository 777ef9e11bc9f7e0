"""DBOS's own client and command line as tests use them: the real ones, in processes of their own."""

import asyncio
import itertools
import json
import os
import subprocess
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

PROGRAM = Path(__file__).with_name("foreign.py")
PATIENCE_S = 30.0


class ForeignError(Exception):
    """What the client raised: the name of its type, its sentence, and the name and data of an error that a workflow ended with."""

    def __init__(self, type: str, message: str, name: str | None = None, data: Any = None) -> None:
        super().__init__(f"{type}: {message}")
        self.type = type
        self.message = message
        self.name = name
        self.data = data


class ForeignProcess:
    """Makes calls of `DBOSClient` in the environment that has it."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.programs = programs
        self.folder = folder
        self.environ = {
            name: value for name, value in os.environ.items() if not name.startswith(("DBOS", "PYTHON", "PG", "VIRTUAL"))
        }
        self._log = folder / "foreign.log"
        self._waiting: dict[int, Future[Any]] = {}
        self._numbers = itertools.count(1)
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [programs / "python", PROGRAM],
                cwd=folder,
                env=self.environ,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            stream.close()

    def ask(self, **request: Any) -> Future[Any]:
        """Send a request; its answer will be there, or a ForeignError."""
        number = next(self._numbers)
        answer = self._waiting[number] = Future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, **request}) + "\n")
        self._process.stdin.flush()
        return answer

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said: dict[str, Any] = json.loads(line)
            waiting = self._waiting.pop(said["id"])
            if "error" in said:
                waiting.set_exception(ForeignError(**said["error"]))
            else:
                waiting.set_result(said["value"])
        for waiting in self._waiting.values():
            waiting.set_exception(RuntimeError(f"the foreign process is gone: {self._log.read_text()[-2000:]}"))


class Dbos:
    """A client of one database, and the command line on it."""

    def __init__(self, process: ForeignProcess, url: str) -> None:
        self.url = url
        self._process = process

    async def call(self, call: str, /, *args: Any, client: dict[str, Any] | None = None, **kwargs: Any) -> Any:
        """What a method of the client returns, as JSON. `client`: options of the client; one is kept for each set of them."""
        answer = self._process.ask(url=self.url, client=client or {}, call=call, args=args, kwargs=kwargs)
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.wrap_future(answer)

    async def enqueue(self, workflow: str, /, *args: Any, client: dict[str, Any] | None = None, **options: Any) -> str:
        """Enqueue with portable serialization unless said otherwise; the workflow's id."""
        given = {"workflow_name": workflow, "queue_name": "default", "serialization_type": "portable", **options}
        return (await self.call("enqueue", given, *args, client=client))["workflow_id"]

    async def send(self, id: str, message: Any, topic: str | None = None, **options: Any) -> None:
        """Send with portable serialization unless said otherwise."""
        options.setdefault("serialization_type", "portable")
        await self.call("send", id, message, topic, **options)

    async def result(self, id: str) -> Any:
        return await self.call("get_result", id)

    async def listed(self, **filters: Any) -> list[str]:
        """The ids that list_workflows gives for these filters."""
        return [one["workflow_id"] for one in await self.call("list_workflows", **filters)]

    async def command(self, *arguments: str) -> str:
        """What `dbos …` prints. Raises ForeignError with what it says when it fails."""
        process = await asyncio.create_subprocess_exec(
            self._process.programs / "dbos", *arguments, "--sys-db-url", self.url,
            cwd=self._process.folder, env=self._process.environ,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(PATIENCE_S):
            printed, said = await process.communicate()
        if process.returncode:
            raise ForeignError(f"exit {process.returncode}", said.decode())
        return printed.decode()

    async def workflow(self, *arguments: str) -> Any:
        """What `dbos workflow …` prints, read as JSON; None if it prints nothing."""
        printed = await self.command("workflow", *arguments)
        return json.loads(printed) if printed.strip() else None

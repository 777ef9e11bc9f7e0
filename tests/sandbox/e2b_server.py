"""A stand-in for the E2B service, for its unmodified package: control plane and sandboxes on one loopback port.

`python -m tests.sandbox.e2b_server FOLDER` prints the port that it chose, and ends with its standard input. Commands really run, by
bubblewrap, in process namespaces of their own, with /home/user kept in FOLDER. What it does about idempotency, quotas and time limits
is by the package's own words; the live service may differ.

    POST /_fault   {"op", "times"?, "status"?, "after"?, "headers"?, "delay"?, "cut"?}   the next calls of `op` go wrong: are answered with
                   a status (`after`: although they were carried out), late, or (`cut`) a stream ends without an end
    GET  /_log     every call, or every one of ?op=: {"op", "status", "key"?, "body"?}
    GET  /_state   every sandbox that runs: {"id", "metadata", "net", "processes"}
"""

import asyncio
import base64
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

HOME = "/home/user"
Json = dict[str, Any]


@dataclass
class Process:
    pid: int
    config: Json
    child: asyncio.subprocess.Process
    listeners: "list[asyncio.Queue[Json | None]]" = field(default_factory=list)
    end: Json | None = None
    watching: "asyncio.Task[None] | None" = None

    def tell(self, event: Json) -> None:
        for listener in self.listeners:
            listener.put_nowait(event)


@dataclass
class Sandbox:
    id: str
    template: str
    metadata: Json
    net: bool
    home: Path
    ends_at: float
    started_at: float = field(default_factory=time.time)
    token: str = field(default_factory=lambda: secrets.token_hex(8))
    processes: dict[int, Process] = field(default_factory=dict)

    def document(self) -> Json:
        return {
            "sandboxID": self.id,
            "templateID": self.template,
            "clientID": "stand-in",
            "envdVersion": "0.6.4",
            "envdAccessToken": self.token,
            "domain": None,
        }

    def listed(self) -> Json:
        times = {"startedAt": moment(self.started_at), "endAt": moment(self.ends_at)}
        size = {"cpuCount": 2, "memoryMB": 512, "diskSizeMB": 1024}
        return {**self.document(), **times, **size, "state": "running", "metadata": self.metadata}

    async def kill(self) -> None:
        """Returns when none of its processes is left."""
        running = list(self.processes.values())
        for process in running:
            process.child.kill()
        await asyncio.gather(*(process.watching for process in running if process.watching is not None))


def moment(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


class Service:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sandboxes: dict[str, Sandbox] = {}
        self.created: dict[str, tuple[str, Json]] = {}
        self.faults: dict[str, list[Json]] = defaultdict(list)
        self.log: list[Json] = []
        self.next_pid = 100

    def app(self) -> Starlette:
        plain = [
            Route("/_fault", self.fault, methods=["POST", "DELETE"]),
            Route("/_log", self.logged),
            Route("/_state", self.state),
        ]
        calls = [
            ("create", "POST", "/v2/sandboxes", self.create),
            ("list", "GET", "/v2/sandboxes", self.list),
            ("connect", "POST", "/v2/sandboxes/{id}/connect", self.connect),
            ("info", "GET", "/sandboxes/{id}", self.info),
            ("kill", "DELETE", "/sandboxes/{id}", self.kill),
            ("timeout", "POST", "/sandboxes/{id}/timeout", self.set_timeout),
            ("health", "GET", "/health", self.health),
            ("write", "POST", "/files", self.write),
            ("read", "GET", "/files", self.read),
            ("stat", "POST", "/filesystem.Filesystem/Stat", self.stat),
            ("start", "POST", "/process.Process/Start", self.start),
            ("attach", "POST", "/process.Process/Connect", self.attach),
            ("processes", "POST", "/process.Process/List", self.processes),
            ("signal", "POST", "/process.Process/SendSignal", self.send_signal),
        ]
        return Starlette(
            routes=[*plain, *(Route(path, self.watched(op, call), methods=[method]) for op, method, path, call in calls)]
        )

    def watched(self, op: str, call: Any) -> Any:
        """The call, logged, and with what was ordered to go wrong."""

        async def endpoint(request: Request) -> Response:
            entry: Json = {"op": op, "key": request.headers.get("idempotency-key")}
            if op == "create":
                entry["body"] = json.loads(await request.body())
            self.log.append(entry)
            await self.expire()
            fault = self.faults[op][0] if self.faults[op] else None
            if fault is not None:
                fault["times"] -= 1
                if fault["times"] == 0:
                    self.faults[op].pop(0)
                await asyncio.sleep(fault.get("delay", 0))
                if "status" in fault:
                    if fault.get("after"):
                        await call(request)
                    entry["status"] = fault["status"]
                    body = {"code": fault["status"], "message": fault.get("message", "ordered to fail")}
                    return JSONResponse(body, fault["status"], fault.get("headers"))
            if op not in ("create", "list", "connect", "info", "kill", "timeout") and self.of(request) is None:
                entry["status"] = 502
                return self.not_found(op)
            response: Response = await (call(request, cut=fault["cut"]) if fault and "cut" in fault else call(request))
            entry["status"] = response.status_code
            return response

        return endpoint

    def of(self, request: Request) -> Sandbox | None:
        return self.sandboxes.get(request.headers.get("e2b-sandbox-id", ""))

    def not_found(self, op: str) -> Response:
        text = "The sandbox was not found"
        if op in ("start", "attach"):
            error = {"error": {"code": "unavailable", "message": text}}
            return Response(framed(error, last=True), media_type="application/connect+json")
        return JSONResponse({"code": "unavailable", "message": text}, 502 if op in ("health", "read", "write") else 503)

    async def expire(self) -> None:
        for one in [one for one in self.sandboxes.values() if one.ends_at < time.time()]:
            del self.sandboxes[one.id]
            await one.kill()

    # The control plane ----------------------------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        if not request.headers.get("x-api-key"):
            return JSONResponse({"code": 401, "message": "no key"}, 401)
        body: Json = json.loads(await request.body())
        key = request.headers.get("idempotency-key")
        if key in self.created:
            id, first = self.created[key]
            if first != body:
                return JSONResponse({"code": 409, "error_code": "idempotency_request_mismatch", "message": "another body"}, 409)
            if id in self.sandboxes:
                return JSONResponse(self.sandboxes[id].document(), 201)
        if body["templateID"] == "no-such-template":
            return JSONResponse({"code": 404, "message": "template 'no-such-template' not found"}, 404)
        id = f"i{secrets.token_hex(10)}"
        home = self.folder / id
        home.mkdir(parents=True)
        ends_at = time.time() + body.get("timeout", 15)
        net = body.get("allow_internet_access", body.get("allowInternetAccess", True))
        self.sandboxes[id] = Sandbox(id, body["templateID"], body.get("metadata") or {}, net, home, ends_at)
        if key is not None:
            self.created[key] = id, body
        return JSONResponse(self.sandboxes[id].document(), 201)

    async def list(self, request: Request) -> Response:
        wanted = {unquote(name): unquote(value) for name, value in parse_qsl(request.query_params.get("metadata", ""))}
        found = [one.listed() for one in self.sandboxes.values() if wanted.items() <= one.metadata.items()]
        begin, size = int(request.query_params.get("nextToken", "0")), int(request.query_params.get("limit", "100"))
        more = {"x-next-token": str(begin + size)} if len(found) > begin + size else None
        return JSONResponse(found[begin : begin + size], headers=more)

    async def connect(self, request: Request) -> Response:
        found = self.sandboxes.get(request.path_params["id"])
        return JSONResponse(found.document()) if found else missing()

    async def info(self, request: Request) -> Response:
        found = self.sandboxes.get(request.path_params["id"])
        return JSONResponse(found.listed()) if found else missing()

    async def kill(self, request: Request) -> Response:
        found = self.sandboxes.pop(request.path_params["id"], None)
        if found is None:
            return missing()
        await found.kill()
        return Response(status_code=204)

    async def set_timeout(self, request: Request) -> Response:
        found = self.sandboxes.get(request.path_params["id"])
        if found is None:
            return missing()
        found.ends_at = time.time() + (await request.json())["timeout"]
        return Response(status_code=204)

    # One sandbox ----------------------------------------------------------------------------------------------------

    async def health(self, request: Request) -> Response:
        return Response(status_code=204)

    def path_in(self, request: Request, path: str) -> Path:
        sandbox = self.of(request)
        assert sandbox is not None
        assert path.startswith(f"{HOME}/"), path
        return sandbox.home / path.removeprefix(f"{HOME}/")

    async def write(self, request: Request) -> Response:
        guest = request.query_params["path"]
        path = self.path_in(request, guest)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(await request.body())
        return JSONResponse([{"name": path.name, "type": "file", "path": guest}])

    async def read(self, request: Request) -> Response:
        path = self.path_in(request, request.query_params["path"])
        if not path.is_file():
            return JSONResponse({"code": 404, "message": "no such file"}, 404)
        return Response(path.read_bytes(), media_type="application/octet-stream")

    async def stat(self, request: Request) -> Response:
        guest: str = (await request.json())["path"]
        path = self.path_in(request, guest)
        if not path.exists():
            return JSONResponse({"code": "not_found", "message": "no such file"}, 404)
        kind = "FILE_TYPE_DIRECTORY" if path.is_dir() else "FILE_TYPE_FILE"
        return JSONResponse({"entry": {"name": path.name, "type": kind, "path": guest}})

    async def start(self, request: Request, cut: int | None = None) -> Response:
        sandbox = self.of(request)
        assert sandbox is not None
        config: Json = json.loads((await request.body())[5:])["process"]
        self.next_pid += 1
        child = await asyncio.create_subprocess_exec(
            *boxed(sandbox.home, sandbox.net, config),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            start_new_session=True,
        )
        process = sandbox.processes[self.next_pid] = Process(self.next_pid, config, child)
        stream = self.stream(process, cut)
        process.watching = asyncio.create_task(self.watch(sandbox, process))
        return StreamingResponse(stream, media_type="application/connect+json")

    async def attach(self, request: Request) -> Response:
        sandbox = self.of(request)
        assert sandbox is not None
        process = sandbox.processes.get(json.loads((await request.body())[5:])["process"]["pid"])
        if process is None:
            error = {"error": {"code": "not_found", "message": "no such process"}}
            return Response(framed(error, last=True), media_type="application/connect+json")
        return StreamingResponse(self.stream(process, None), media_type="application/connect+json")

    def stream(self, process: Process, cut: int | None) -> AsyncIterator[bytes]:
        """The process's events from now on. cut: it ends without an end after so many."""
        events: asyncio.Queue[Json | None] = asyncio.Queue()
        events.put_nowait({"start": {"pid": process.pid}})
        if process.end is None:
            process.listeners.append(events)
        else:
            events.put_nowait(process.end)
            events.put_nowait(None)

        async def frames() -> AsyncIterator[bytes]:
            told = 0
            while (event := await events.get()) is not None:
                if cut is not None and told >= cut:
                    return
                told += 1
                yield framed({"event": event})
            yield framed({}, last=True)

        return frames()

    async def watch(self, sandbox: Sandbox, process: Process) -> None:
        """Passes on what it prints, whether or not anybody listens, until its end."""
        assert process.child.stdout is not None
        assert process.child.stderr is not None

        async def pass_on(kind: str, pipe: asyncio.StreamReader) -> None:
            while data := await pipe.read(65536):
                process.tell({"data": {kind: base64.b64encode(data).decode()}})

        await asyncio.gather(pass_on("stdout", process.child.stdout), pass_on("stderr", process.child.stderr))
        code = await process.child.wait()
        end: Json = {"exited": code >= 0, "status": f"exit status {code}", **({"exitCode": code} if code else {})}
        if code < 0:
            end |= {"exitCode": -1, "error": f"signal: {signal.Signals(-code).name}"}
        process.end = {"end": end}
        sandbox.processes.pop(process.pid, None)
        for listener in process.listeners:
            listener.put_nowait(process.end)
            listener.put_nowait(None)

    async def processes(self, request: Request) -> Response:
        sandbox = self.of(request)
        assert sandbox is not None
        return JSONResponse({"processes": [{"pid": one.pid, "config": one.config} for one in sandbox.processes.values()]})

    async def send_signal(self, request: Request) -> Response:
        sandbox = self.of(request)
        assert sandbox is not None
        process = sandbox.processes.get((await request.json())["process"]["pid"])
        if process is None:
            return JSONResponse({"code": "not_found", "message": "no such process"}, 404)
        process.child.kill()
        return JSONResponse({})

    # For tests ------------------------------------------------------------------------------------------------------

    async def fault(self, request: Request) -> Response:
        if request.method == "DELETE":
            self.faults.clear()
            return Response(status_code=204)
        fault: Json = await request.json()
        self.faults[fault["op"]].append({"times": 1, **fault})
        return Response(status_code=204)

    async def logged(self, request: Request) -> Response:
        return JSONResponse([call for call in self.log if call["op"] == request.query_params.get("op", call["op"])])

    async def state(self, request: Request) -> Response:
        await self.expire()
        return JSONResponse(
            [
                {"id": one.id, "metadata": one.metadata, "net": one.net, "processes": len(one.processes), "endsAt": one.ends_at}
                for one in self.sandboxes.values()
            ]
        )


def missing() -> Response:
    return JSONResponse({"code": 404, "message": "sandbox not found"}, 404)


def framed(message: Json, *, last: bool = False) -> bytes:
    body = json.dumps(message).encode()
    return bytes([2 if last else 0]) + len(body).to_bytes(4, "big") + body


def boxed(home: Path, net: bool, config: Json) -> list[str]:
    """The command line that runs a process in a sandbox's home, in namespaces of its own."""
    options = ["--unshare-all", *(["--share-net"] if net else []), "--unshare-user", "--uid", "1000", "--gid", "1000"]
    options += ["--cap-drop", "ALL", "--die-with-parent", "--ro-bind", "/usr", "/usr", "--proc", "/proc", "--dev", "/dev"]
    for name in ("bin", "lib", "lib64", "sbin"):
        if os.path.islink(f"/{name}"):
            options += ["--symlink", f"usr/{name}", f"/{name}"]
    options += ["--tmpfs", "/tmp", "--bind", str(home), HOME, "--chdir", config.get("cwd", HOME), "--clearenv"]
    env = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": HOME, "LANG": "C.UTF-8", **config.get("envs", {})}
    for name, value in env.items():
        options += ["--setenv", name, value]
    return ["bwrap", *options, config["cmd"], *config.get("args", [])]


async def main(folder: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    service = Service(Path(folder))
    server = uvicorn.Server(uvicorn.Config(service.app(), log_level="error", lifespan="off", timeout_graceful_shutdown=1))
    print(listener.getsockname()[1], flush=True)
    loop = asyncio.get_running_loop()
    loop.add_reader(0, lambda: setattr(server, "should_exit", True) if not os.read(0, 1) else None)
    await server.serve([listener])
    for sandbox in service.sandboxes.values():
        await sandbox.kill()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))

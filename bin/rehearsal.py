"""A service with something to show whose work takes the time that work takes: agents think, tests run, a sandbox fails to boot once.

The service's own rehearsals answer at once, which makes a poor picture of a timeline. All in this process, in a thread of its own.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import orjson
import uvloop

from api.app import create_app
from bin.evidence import origin
from bin.own_server import surroundings
from bin.queue_limits import declare_queues
from bin.roles import api_config, ports
from bin.serving import Stopping, address_of, listen, serve
from bin.settings import Settings, read_settings
from engine import Engine
from steps.contracts.plan import OCOutput
from steps.contracts.sandbox import SBXReq, SBXRes
from steps.opencode import AgentRequest, ReplayOpenCode
from steps.ports import configure
from steps.sandbox import MockSandbox, OnOutput, mock_result
from steps.signoff import PF_TILES, PROOF_TILES
from steps.worker import QUEUES, workflows

UP_S = 30.0
THINKING_S = {"plan": 1.4, "build": 2.2}
#: How long each suite takes; another command takes a second.
SUITE_S = {
    "unit": 2.1,
    "api": 3.4,
    "ledger": 1.7,
    "migrations": 4.6,
    "webhooks": 2.8,
    "reports": 1.2,
    "currency": 0.8,
    "smoke": 3.9,
}
BOOTS_ONLY_AGAIN = "ledger"
LOAD_TESTS = {"smoke": (38.2, 71.0, 19.4, 250), "ramp": (121.7, 240.9, 54.1, 400), "soak": (96.3, 310.5, 41.8, 250)}


class ThinkingAgent(ReplayOpenCode):
    async def ask(self, request: AgentRequest) -> OCOutput:
        await asyncio.sleep(THINKING_S[request.agent])
        return await super().ask(request)


class BusySandbox(MockSandbox):
    async def run(self, request: SBXReq, *, attempt: int, key: str, on_output: OnOutput | None = None) -> SBXRes:
        suite = request.cmd.split()[-1]
        if suite == BOOTS_ONLY_AGAIN and attempt == 1:
            await asyncio.sleep(0.6)
            return mock_result(request, 1, "BOOT_FAIL", stderr="the sandbox did not boot\n")
        await asyncio.sleep(SUITE_S.get(suite, 1.0))
        return await super().run(request, attempt=attempt, key=key, on_output=on_output)


@contextmanager
def rehearsing(dsn: str, state: Path) -> Iterator[str]:
    """The address of an API with a worker beside it, for the length of the block."""
    settings = settings_of(dsn, state)
    stopping, told = Stopping(), Future[tuple[asyncio.AbstractEventLoop, str]]()
    thread = threading.Thread(target=lambda: _run(settings, dsn, stopping, told), daemon=True)
    thread.start()
    loop, base = told.result(UP_S)
    try:
        yield base
    finally:
        loop.call_soon_threadsafe(stopping.drain)
        thread.join(UP_S)


def settings_of(dsn: str, state: Path) -> Settings:
    """A release that somebody wants to sign off, and cannot yet."""
    state.mkdir(parents=True, exist_ok=True)
    about = origin(read_settings({}))
    leave_evidence(state / "signoff", about.commit or "", about.tree or "")
    leave_load_tests(state / "k6")
    release = {"DBOS__APPVERSION": "2026.11.3", "SIGNOFF_COMMIT": about.commit or "", "SIGNOFF_TREE": about.tree or ""}
    return read_settings(
        surroundings(dsn, state)
        | release
        | {"SIGNOFF_DIR": str(state / "signoff"), "CLAIM_SCOPE": "signoff", "OC_STRICT_MODE": "1"}
    )


def leave_evidence(folder: Path, commit: str, tree: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for age, name in enumerate((*PF_TILES, *PROOF_TILES)):
        if name == "pf-crashdemo":
            continue  # nobody has run it yet
        broken = name == "proof-queue-fairness"
        tile = {
            "verdict": "NO_GO" if broken else "GO",
            "reason": "1 of 4 tests failed: a small tenant waited 2.4 s" if broken else None,
            "evidenceRefs": [f"file:lanes/{name}.log", f"test:tests/{name.replace('-', '_')}.py"],
            "ts": int(time.time() * 1000) - (age + 1) * 7 * 60_000,
            "commit": commit,
            "tree": tree,
            "appVersion": "2026.11.3",
        }
        (folder / f"{name}.json").write_bytes(orjson.dumps(tile))


def leave_load_tests(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, (p95, p99, average, threshold) in LOAD_TESTS.items():
        held = {"ok": p95 < threshold}
        duration = {"values": {"p(95)": p95, "p(99)": p99, "avg": average}, "thresholds": {f"p(95)<{threshold}": held}}
        (folder / f"{name}-summary.json").write_bytes(orjson.dumps({"metrics": {"http_req_duration": duration}}))


def _run(settings: Settings, dsn: str, stopping: Stopping, told: "Future[tuple[asyncio.AbstractEventLoop, str]]") -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        try:
            runner.run(_serve(settings, dsn, stopping, told))
        except Exception as error:
            if told.done():
                raise
            told.set_exception(error)


async def _serve(settings: Settings, dsn: str, stopping: Stopping, told: "Future[tuple[asyncio.AbstractEventLoop, str]]") -> None:
    async with Engine.connect(dsn) as engine:
        workspace = settings.state_dir / "fixtures"
        configure(replace(ports(settings, engine), opencode=ThinkingAgent(workspace), sandbox=BusySandbox()))
        await declare_queues(engine, settings)
        worker = engine.worker(workflows(), queues=QUEUES, version=settings.app_version)
        working = asyncio.create_task(worker.run())
        listener = listen("PORT", "127.0.0.1", 0)
        told.set_result((asyncio.get_running_loop(), address_of(listener)))
        await serve(create_app(engine, api_config(settings, dsn), draining=stopping.draining), listener, stopping)
        worker.stop()
        await working

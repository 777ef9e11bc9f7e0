"""The live coding agent of a worker: where its server is, whether it is of use, and the end of what nobody waits for any more."""

import asyncio
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

import structlog

from bin import opencode_daemon
from bin.settings import Settings
from engine import Engine
from steps.opencode import OpenCodeNotConfigured
from steps.opencode_server.client import Server
from steps.opencode_server.faults import Faulty
from steps.opencode_server.live import LiveOpenCode
from steps.opencode_server.orphans import end_orphans
from steps.opencode_server.watchdog import Patience

UP_S = 20.0
SWEEP_EVERY_S = 30.0
LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})

log = structlog.get_logger("bin.opencode")


def folder_of(settings: Settings) -> Path:
    """Of the server that bin/oc-daemon runs."""
    return settings.state_dir.absolute() / "opencode"


def password_of(settings: Settings) -> str | None:
    """The server's password: the one that is set, else, for a server on this machine, that of bin/oc-daemon."""
    if settings.oc_server_password is not None or urlsplit(settings.oc_base_url).hostname not in LOOPBACK:
        return settings.oc_server_password
    return opencode_daemon.password_in(folder_of(settings))


def live_opencode(settings: Settings) -> LiveOpenCode:
    username = settings.oc_server_username or opencode_daemon.USERNAME
    server = Server(settings.oc_base_url, username, password_of(settings))
    turn_s = settings.oc_timeout_ms / 1000
    patience = Patience(turn_s=turn_s, silence_s=min(Patience().silence_s, turn_s))
    return LiveOpenCode(server, patience, strict=settings.oc_strict_mode)


async def require_opencode(settings: Settings, within_s: float = UP_S) -> None:
    """Wait for the server that the settings name. One that is not there is told in the log, or, in strict mode, not put up with; one
    that may not be asked never is. Raises OpenCodeNotConfigured.
    """
    try:
        version = await live_opencode(settings).ready(within_s)
        log.info("OpenCode is ready", url=settings.oc_base_url, version=version)
    except Faulty as trouble:
        fault = trouble.fault
        if fault.name != "oc_live_unavailable" or settings.oc_strict_mode:
            raise OpenCodeNotConfigured(f"{fault.name}: OC_BASE_URL={settings.oc_base_url}: {fault.message}") from trouble
        log.warning("no OpenCode server: until there is one, answers are made up", url=settings.oc_base_url, reason=fault.message)


async def sweep(engine: Engine, opencode: LiveOpenCode, until: asyncio.Event) -> None:
    """Now and then stop what is still being answered although its run has ended."""
    while not until.is_set():
        try:
            await end_orphans(engine.pool, opencode)
        except Exception as error:
            log.warning("orphaned calls of the coding agent were not looked for", reason=str(error))
        with suppress(TimeoutError):
            async with asyncio.timeout(SWEEP_EVERY_S):
                await until.wait()

"""bin/oc-daemon: an OpenCode server on this machine, for workers with OC_MODE=live.

    bin/oc-daemon up         install it by npm if need be, start it on OC_SERVER_PORT, and wait until it is healthy
    bin/oc-daemon health     whether it is up, of a version that we know, and permits its agents nothing but an answer
    bin/oc-daemon stop       end it, with all that it started

All three may be called again. OC_MODEL says which model it asks, as provider/model; OC_PROVIDER_KEY is that provider's key, and
OC_PROVIDER_URL its address if it is one that speaks OpenAI's protocol and that OpenCode does not know by name. Everything that it
keeps is in STATE_DIR/opencode.
"""

import argparse
import asyncio

from bin import opencode_daemon
from bin.live_opencode import folder_of
from bin.opencode_daemon import CannotRunOpenCode, Wanted
from bin.settings import Settings
from bin.variables import BadSetting
from bin.wiring import FAILED, complain, run
from steps.opencode_server.client import connected
from steps.opencode_server.faults import Faulty


def main(settings: Settings) -> int:
    parser = argparse.ArgumentParser(prog="bin/oc-daemon", description="An OpenCode server on this machine.")
    parser.add_argument("what", choices=["up", "health", "stop"])
    what = parser.parse_args().what
    try:
        return {"up": up, "health": health, "stop": stop}[what](settings)
    except CannotRunOpenCode as error:
        complain(error)
        return FAILED


def up(settings: Settings) -> int:
    if settings.oc_model is None:
        raise BadSetting("OC_MODEL: needed to start an OpenCode server; write it as provider/model")
    wanted = Wanted(
        folder=folder_of(settings),
        port=settings.oc_server_port,
        model=settings.oc_model,
        provider_url=settings.oc_provider_url,
        provider_key=settings.oc_provider_key,
        cors=settings.oc_server_cors,
    )
    there, started = opencode_daemon.up(wanted)
    word = "is up" if started else "was up already"
    print(
        f"OpenCode {word}: http://127.0.0.1:{there.port}, pid {there.pid}, log {opencode_daemon.log_of(wanted.folder, there.port)}"
    )
    return 0


def health(settings: Settings) -> int:
    folder = folder_of(settings)
    there = opencode_daemon.running(folder)
    port = there.port if there else settings.oc_server_port
    version = opencode_daemon.check(folder, port, within_s=0)
    print(
        f"OpenCode {version} is healthy: http://127.0.0.1:{port}, OpenAPI {description(settings, port)}; its agents may only answer"
    )
    return 0


def description(settings: Settings, port: int) -> str:
    """The version of OpenAPI in which it describes itself. Raises CannotRunOpenCode."""

    async def ask() -> str:
        async with connected(opencode_daemon.server_of(folder_of(settings), port)) as client:
            return await client.describe(settings.oc_doc_path)

    try:
        version = asyncio.run(ask())
    except Faulty as trouble:
        raise CannotRunOpenCode(
            f"the server does not describe itself at {settings.oc_doc_path}: {trouble.fault.message}"
        ) from None
    if not version.startswith("3.1."):
        raise CannotRunOpenCode(f"the server describes itself by OpenAPI {version or '(none)'}, not 3.1")
    return version


def stop(settings: Settings) -> int:
    print("OpenCode is stopped" if opencode_daemon.stop(folder_of(settings)) else "OpenCode was not running")
    return 0


if __name__ == "__main__":
    run(main)

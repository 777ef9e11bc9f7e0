"""A real OpenCode server with a stand-in for its model, for tests here and elsewhere.

    with stage(folder) as (opencode, model): ...

The program comes from npm, once for a checkout (.tmp/opencode). Where it can't be had, the test that asks for it is skipped with the
reason.
"""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from bin import opencode_daemon
from bin.opencode_daemon import CannotRunOpenCode, Running, Wanted
from bin.settings import ROOT
from steps.opencode_server.client import Server
from tests.opencode.model_server import MODEL, ModelServer, Script, as_asked, model_server

PACKAGES = ROOT / ".tmp" / "opencode"


@dataclass(slots=True)
class OpenCodeServer:
    """A running `opencode serve` that asks the stand-in."""

    wanted: Wanted
    process: Running

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.process.port}"

    @property
    def password(self) -> str:
        password = opencode_daemon.password_in(self.wanted.folder)
        assert password
        return password

    @property
    def server(self) -> Server:
        """For LiveOpenCode."""
        return Server(self.url, opencode_daemon.USERNAME, self.password)

    @property
    def settings(self) -> dict[str, str]:
        """For a worker's environment."""
        return {
            "OC_MODE": "live",
            "OC_STRICT_MODE": "true",
            "OC_BASE_URL": self.url,
            "OPENCODE_SERVER_USERNAME": opencode_daemon.USERNAME,
            "OPENCODE_SERVER_PASSWORD": self.password,
        }

    def kill(self) -> None:
        """Kill -9, with all that it holds in memory."""
        opencode_daemon.kill(self.process)

    def restart(self) -> None:
        """Start it again, on the same port and with the same data."""
        self.process, _ = opencode_daemon.up(self.wanted)


@contextmanager
def stage(folder: Path, script: Script = as_asked) -> Iterator[tuple[OpenCodeServer, ModelServer]]:
    """Both, for the length of the block. folder: for the server's own data; nothing else may be in it."""
    require_opencode()
    with model_server(script) as model:
        wanted = Wanted(
            folder=folder / "opencode",
            port=0,
            model=f"stand-in/{MODEL}",
            provider_url=model.url,
            provider_key="sk-stand-in-0123456789abcdef",
            packages=PACKAGES,
        )
        process, _ = opencode_daemon.up(wanted)
        fixed = replace(wanted, port=process.port)
        with ended_with_us(fixed.folder):
            try:
                yield OpenCodeServer(fixed, process), model
            finally:
                opencode_daemon.stop(fixed.folder)


@contextmanager
def ended_with_us(folder: Path) -> Iterator[None]:
    """A server outlives whoever started it. If the tests are killed, somebody else has to end it: a shell that hears us die."""
    when_we_die = """cat; kill -9 "-$(sed 's/.*"pid": \\([0-9]*\\).*/\\1/' "$1")" """
    command = ["sh", "-c", when_we_die, "sh", str(folder / "daemon.json")]
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=quiet, stderr=quiet, start_new_session=True):
        yield


def require_opencode() -> Path:
    """The program; skips the test where it can't be had."""
    try:
        return opencode_daemon.install(PACKAGES)
    except CannotRunOpenCode as error:
        pytest.skip(f"no OpenCode here: {error}")

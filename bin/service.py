"""Processes of the service for drills and the demo: started with ports of their own, killed or stopped, started again.

Each runs in a session of its own, so that a kill of its process group takes all that it started along, but not an embedded database,
which lives in yet another session. Its output goes to a file.
"""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from bin.settings import ROOT

UP_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0
UP = re.compile(r"^holdfast.* is up: (http://\S+?),", re.MULTILINE)


class ServiceFailed(Exception):
    """One sentence that names the process and its log."""


class ServiceProcess:
    """One process of the service: `bin.commands.<command>`, or another module, under the caller's environment plus `settings`.

    arguments: its command line. kept_up: what ends it by itself starts it again, as whoever runs services does; `deaths` counts it.
    """

    def __init__(
        self,
        command: str,
        log: Path,
        settings: Mapping[str, str],
        *,
        module: str | None = None,
        arguments: Sequence[str] = (),
        kept_up: bool = False,
    ) -> None:
        self.command = command
        self.deaths = 0
        self._kept_up = kept_up
        self._module = module or f"bin.commands.{command}"
        self._arguments = arguments
        self.log = log
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    @property
    def exit_code(self) -> int | None:
        """None while it lives, and before it was started."""
        return self._process.poll() if self._process else None

    def start(self) -> None:
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self._settings}
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self._module, *self._arguments],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def require_alive(self) -> None:
        """Raises ServiceFailed when it has ended by itself and is not kept up."""
        if self._process is None or self._process.poll() is None:
            return
        if self._kept_up:
            self.deaths += 1
            self.start()
            return
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        raise ServiceFailed(f"bin/{self.command} ended by itself: {' | '.join(lines[-3:])}; see {self.log}")

    def url(self) -> str:
        """Where its front door is, once it answers."""
        deadline = time.monotonic() + UP_TIMEOUT_S
        while time.monotonic() < deadline:
            if found := UP.search(self.log.read_text(errors="replace")):
                return found[1]
            self.require_alive()
            time.sleep(0.02)
        raise ServiceFailed(f"bin/{self.command} did not come up in {UP_TIMEOUT_S:.0f} s; see {self.log}")

    def kill(self) -> None:
        """Kill -9, the whole process group."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None

    def stop(self) -> None:
        """TERM, and kill what does not listen. Does nothing to a process that is not there."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

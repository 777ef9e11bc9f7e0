"""A virtual environment with the package dbos, as its lock file says, kept beside the state of the checkout."""

import os
import shutil
import subprocess
import sys
import venv
from hashlib import sha256
from pathlib import Path

from bin.environment import DROPPED, PIP_ENVIRONMENT, taking_turns
from bin.settings import ROOT

LOCK = Path(__file__).with_name("requirements.lock")
PATIENCE_S = 120
IMPATIENT = {
    "PIP_RETRIES": "1",
    "PIP_DEFAULT_TIMEOUT": "10",
    "UV_HTTP_TIMEOUT": "10",
}  # a machine without an index should know soon


class CannotInstall(Exception):
    """Why there is no such environment."""


def made() -> Path:
    """The folder with its programs, installed on first use. Raises CannotInstall."""
    state = Path(os.environ.get("STATE_DIR") or ROOT / ".state")
    key = sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    home = state.absolute() / f"dbos-client-{key}"
    done = home / "installed"
    if done.exists():
        return home / "bin"
    try:
        state.mkdir(parents=True, exist_ok=True)
        with taking_turns(state):
            if not done.exists():
                venv.create(home, clear=True, with_pip=False)
                _install(home)
                done.touch()
    except OSError as error:
        raise CannotInstall(f"cannot make {home}: {error}") from error
    return home / "bin"


def _install(home: Path) -> None:
    python = str(home / "bin" / "python")
    locked = ["install", "--quiet", "--require-hashes", "--no-deps", "-r", str(LOCK)]
    said = ["nothing was said"]
    uv = shutil.which("uv")
    if uv and _run([uv, "pip", *locked, "--no-config", "--python", python], said):
        return
    pip = [sys.executable, "-m", "pip", "--python", python]
    if not _run([*pip, "--version"], []):
        pip = [python, "-m", "pip"]
        if not _run([python, "-m", "ensurepip"], said):
            raise CannotInstall(f"neither pip nor ensurepip: {said[-1]}")
    if not _run([*pip, *locked], said):
        raise CannotInstall(f"the index does not give the locked packages: {said[-1]}")


def _run(command: list[str], said: list[str]) -> bool:
    """Whether it went well; the last line that it printed is appended."""
    environ = {name: value for name, value in os.environ.items() if name not in DROPPED} | PIP_ENVIRONMENT | IMPATIENT
    try:
        done = subprocess.run(
            command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except subprocess.TimeoutExpired:
        said.append(f"{command[0]} was not done after {PATIENCE_S} s")
        return False
    said.extend((done.stderr or done.stdout).strip().splitlines()[-1:])
    return done.returncode == 0

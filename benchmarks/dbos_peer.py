"""DBOS from the package index as a peer, at the best setting known for it, in a virtual environment of the benchmark's own.

Its best is: synchronous steps, 64 workflows at a time, a connection pool as large, a 20 ms poll, and the worker pinned to one core.
"""

import subprocess
import venv
from pathlib import Path

from benchmarks.processes import ROOT
from benchmarks.stretch import Peer

VERSION = "3.4.0"
SCRIPT = str(ROOT / "benchmarks" / "dbos_process.py")


class NoDbos(Exception):
    """DBOS could not be installed here; the message says what was tried."""


def install(state_dir: Path) -> Path:
    """The Python that has DBOS, made on first use; raises NoDbos when the package can't be had."""
    home = state_dir / f"dbos-{VERSION}"
    python, done = home / "bin" / "python", home / "installed"
    if done.exists():
        return python
    try:
        venv.create(home, with_pip=True, clear=True)
        asked = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"dbos=={VERSION}"]
        subprocess.run(asked, check=True, capture_output=True, text=True, timeout=300)
    except subprocess.CalledProcessError as error:
        raise NoDbos(f"pip could not install dbos=={VERSION}: {str(error.stderr).strip()[-300:]}") from error
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoDbos(f"no venv with dbos=={VERSION}: {error}") from error
    done.touch()
    return python


def dbos(state_dir: Path) -> Peer:
    python = str(install(state_dir))

    def run(role: str, dsn: str, *arguments: str) -> list[str]:
        return [python, SCRIPT, role, "--dsn", dsn, *arguments]

    def migrate(dsn: str) -> None:
        subprocess.run([str(Path(python).parent / "dbos"), "migrate", "--sys-db-url", dsn], check=True, capture_output=True)

    return Peer(
        name="dbos",
        database="bench_dbos",
        schema=b"",
        worker=lambda dsn, n, rider: run("worker", dsn, "--core", "0"),
        enqueue=lambda dsn, count, rider: run("enqueue", dsn, "--count", str(count)),
        backlog=lambda dsn, count, rider: run("backlog", dsn, "--count", str(count)),
        prepare=migrate,
    )

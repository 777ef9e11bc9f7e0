"""Drills as a person calls them, with files of their own."""

import os
import subprocess
import sys
from pathlib import Path

from bin.settings import ROOT


def played(name: str, state: Path, *words: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """bin/NAME with these arguments, at its end."""
    return subprocess.run(
        [sys.executable, "-P", "-m", f"bin.commands.{name}", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), "STATE_DIR": str(state)},
        capture_output=True,
        text=True,
        timeout=timeout_s,
    )

"""Makes the virtual environment of this checkout from its lock files.

Run by bin/bootstrap with the machine's own Python, so it uses the standard library alone. uv does the work where it is on PATH,
else pip. pip is told to install *into* the new environment from outside (`pip --python`), which needs neither ensurepip (Debian
ships it apart) nor leave from a Python that is managed by the system. A file lock makes two first uses take turns, and the copy of
each lock file that marks its set as installed is written last, so an installation that was killed is redone.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# A user's pip settings name indexes, which we want, but these would send the packages elsewhere or refuse to work.
PIP_ENVIRONMENT = {"PIP_USER": "0", "PIP_REQUIRE_VIRTUALENV": "0", "PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
DROPPED = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_PYTHON", "PYTHONHOME", "PYTHONPATH", "VIRTUAL_ENV", "CONDA_PREFIX")


class CannotInstall(Exception):
    """One sentence for the person at the terminal."""


def main(root: Path, sets: list[str]) -> int:
    try:
        with taking_turns(root):
            if missing := [name for name in sets if not is_installed(root, name)]:
                install(root, missing)
    except KeyboardInterrupt:
        return 130
    except CannotInstall as error:
        print(f"holdfast: {error}", file=sys.stderr)
        return 69
    except OSError as error:
        print(f"holdfast: cannot make {root / '.venv'}: {error.strerror}: {error.filename}", file=sys.stderr)
        return 73
    return 0


@contextmanager
def taking_turns(root: Path) -> Iterator[None]:
    """Locks the root folder itself: nothing to leave behind, and the kernel frees it however the holders die.

    Children inherit the lock, so that an installer whose parent was killed is waited for as well.
    """
    folder = os.open(root, os.O_RDONLY)
    os.set_inheritable(folder, True)
    try:
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another command that is making the environment")
            fcntl.flock(folder, fcntl.LOCK_EX)
        yield
    finally:
        os.close(folder)


def is_installed(root: Path, name: str) -> bool:
    return is_python_there(root) and contents(root / ".venv/locks" / f"{name}.lock") == contents(root / f"{name}.lock")


def is_python_there(root: Path) -> bool:
    return os.access(root / ".venv/bin/python", os.X_OK)


def contents(file: Path) -> bytes | None:
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return None


def install(root: Path, sets: list[str]) -> None:
    """Adds the sets to an environment that is up to date, else starts from nothing with all that it had."""
    venv = root / ".venv"
    present = [file.stem for file in sorted((venv / "locks").glob("*.lock"))]
    if not present or not all(is_installed(root, name) for name in present):
        sets = sorted({*sets, *(name for name in present if (root / f"{name}.lock").exists())})
        if venv.exists():
            shutil.rmtree(venv)
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    uv, started = shutil.which("uv"), time.monotonic()
    say(f"installing {', '.join(sets)} into {venv} with {'uv' if uv else 'pip'} (once; up to a minute)")
    locks = [argument for name in sets for argument in ("-r", str(root / f"{name}.lock"))]
    if not (uv and install_with_uv(uv, venv, locks)):
        install_with_pip(venv, locks)
    (venv / "locks").mkdir(exist_ok=True)
    for name in sets:
        shutil.copyfile(root / f"{name}.lock", venv / "locks" / f"{name}.lock")
    say(f"installed in {time.monotonic() - started:.0f} s")


def install_with_uv(uv: str, venv: Path, locks: list[str]) -> bool:
    command = [uv, "pip", "install", "--quiet", "--require-hashes", "--no-config", "--python", venv / "bin/python", *locks]
    if run(command):
        return True
    say("uv failed, trying pip")
    return False


def install_with_pip(venv: Path, locks: list[str]) -> None:
    inside = venv / "bin/python"
    install_locked = ["install", "-qq", "--require-hashes", "--no-deps", *locks]
    if run([sys.executable, "-c", "import pip"], quiet=True):
        pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", inside]
    elif run([inside, "-m", "ensurepip"], quiet=True):
        pip = [inside, "-m", "pip"]
    else:
        raise CannotInstall(f"{sys.executable} has no pip and no ensurepip, and uv is not on PATH: install one of the three")
    if not run([*pip, *install_locked]):
        raise CannotInstall("pip could not install the locked packages; its own words are above")


def run(command: list[str | Path], *, quiet: bool = False) -> bool:
    environment = {name: value for name, value in os.environ.items() if name not in DROPPED} | PIP_ENVIRONMENT
    output = subprocess.DEVNULL if quiet else sys.stderr
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output, close_fds=False)
    return done.returncode == 0


def say(text: str) -> None:
    print(f"holdfast: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(ROOT, sys.argv[1:]))

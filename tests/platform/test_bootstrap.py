"""The first use of a command: the environment is made once, whole, by whoever comes first, and used only when it is today's.

The checkout here is a copy with a lock of its own, and uv is a script that pretends; nothing is installed.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
SAYS = """
import os, sys
print(os.getcwd(), sys.argv[1:], sys.path[0])
"""
UV = """#!/bin/sh
echo "$@" >> "$0.calls"
while [ -e "$0.hold" ]; do sleep 0.01; done
[ ! -e "$0.fail" ]
"""


class Checkout:
    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "bin/commands").mkdir(parents=True)
        for name in ("bootstrap", "environment.py", "start"):
            shutil.copy(ROOT / "bin" / name, root / "bin" / name)
        for package in ("bin", "bin/commands"):
            (root / package / "__init__.py").touch()
        (root / "bin/commands/start.py").write_text(SAYS)
        (root / "requirements.lock").write_text("one==1\n")
        (root / "requirements-dev.lock").write_text("one==1\ntwo==2\n")
        self.uv = root.parent / "tools/uv"
        self.uv.parent.mkdir()
        self.uv.write_text(UV)
        self.uv.chmod(0o755)

    def begin(self, *command: str, cwd: Path | None = None, **environ: str) -> subprocess.Popen[str]:
        environ = {
            "PATH": f"{self.uv.parent}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHON": sys.executable,
            "SBX_MODE": "mock",
            **environ,
        }
        return subprocess.Popen(
            [str(self.root / "bin" / command[0]), *command[1:]],
            cwd=cwd or self.root.parent,
            env={**os.environ, **environ},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *command: str, cwd: Path | None = None, **environ: str) -> tuple[int, str, str]:
        process = self.begin(*command, cwd=cwd, **environ)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    def mark(self, name: str) -> Path:
        return self.uv.with_name(f"uv.{name}")

    def installations(self) -> list[str]:
        calls = self.mark("calls")
        return calls.read_text().splitlines() if calls.exists() else []

    def until_installing(self) -> None:
        deadline = time.monotonic() + 30
        while not self.installations():
            assert time.monotonic() < deadline, "nothing was ever installed"
            time.sleep(0.01)


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path / "a checkout")


def test_a_command_runs_where_the_caller_is_with_the_callers_words(checkout: Checkout, tmp_path: Path) -> None:
    elsewhere = tmp_path / "else where"
    elsewhere.mkdir()
    (elsewhere / "bin").mkdir()  # a folder of the same name must not be taken for ours
    (elsewhere / "bin/__init__.py").write_text("raise SystemExit('the wrong bin')")
    code, out, _ = checkout.run("start", "--out", "a b", "", cwd=elsewhere)
    assert (code, out) == (0, f"{elsewhere} ['--out', 'a b', ''] {checkout.root}\n")


def test_a_command_can_be_called_through_a_link(checkout: Checkout, tmp_path: Path) -> None:
    link = tmp_path / "go"
    link.symlink_to(checkout.root / "bin/start")
    checkout.run("start")
    assert subprocess.run([link], capture_output=True, text=True, check=True).stdout.endswith(f"{checkout.root}\n")


def test_the_first_use_installs_and_says_so_and_the_second_does_not(checkout: Checkout) -> None:
    code, _, err = checkout.run("start")
    assert code == 0
    assert err.startswith("holdfast: installing requirements into ")
    assert checkout.run("start")[2] == ""
    assert len(checkout.installations()) == 1
    assert "--require-hashes" in checkout.installations()[0]


def test_a_changed_lock_is_installed_anew(checkout: Checkout) -> None:
    checkout.run("start")
    (checkout.root / ".venv/of the old one").touch()
    (checkout.root / "requirements.lock").write_text("one==2\n")
    checkout.run("start")
    assert len(checkout.installations()) == 2
    assert not (checkout.root / ".venv/of the old one").exists()


def test_what_development_needs_is_added_when_it_is_asked_for(checkout: Checkout) -> None:
    checkout.run("start")
    (checkout.root / ".venv/of the same one").touch()
    assert checkout.run("bootstrap", "--dev", "bin.commands.start")[0] == 0
    assert "requirements-dev.lock" in checkout.installations()[1]
    assert "requirements.lock" not in checkout.installations()[1]
    assert (checkout.root / ".venv/of the same one").exists()


def test_live_sandboxes_bring_their_own_set(checkout: Checkout) -> None:
    (checkout.root / "requirements-e2b.lock").write_text("one==1\n")
    assert checkout.run("start", SBX_MODE="live")[0] == 0
    assert "requirements-e2b.lock" in checkout.installations()[0]


def test_two_first_uses_at_once_install_once(checkout: Checkout) -> None:
    checkout.mark("hold").touch()
    first = checkout.begin("start")
    checkout.until_installing()
    second = checkout.begin("start")
    assert second.stderr
    assert "waiting for another command" in second.stderr.readline()
    checkout.mark("hold").unlink()
    for process in (first, second):
        process.communicate(timeout=60)
        assert process.returncode == 0
    assert len(checkout.installations()) == 1


def test_an_installation_that_was_killed_is_never_used(checkout: Checkout) -> None:
    checkout.mark("hold").touch()
    first = checkout.begin("start")
    checkout.until_installing()
    first.send_signal(signal.SIGKILL)
    checkout.mark("hold").unlink()
    first.communicate(timeout=60)
    assert (checkout.root / ".venv/bin/python").exists()
    assert checkout.run("start")[0] == 0
    assert len(checkout.installations()) >= 1
    assert (checkout.root / ".venv/locks/requirements.lock").exists()


def test_a_failing_installer_leaves_nothing_that_is_used(checkout: Checkout) -> None:
    checkout.mark("fail").touch()
    code, out, err = checkout.run("start", PIP_NO_INDEX="1", PIP_FIND_LINKS="", PIP_EXTRA_INDEX_URL="")
    assert (code, out) == (69, "")
    assert "uv failed, trying pip" in err
    assert err.splitlines()[-1].startswith("holdfast: pip could not install")
    checkout.mark("fail").unlink()
    assert checkout.run("start")[0] == 0


def test_a_machine_without_python_is_told_what_is_missing(checkout: Checkout, tmp_path: Path) -> None:
    few = tmp_path / "few tools"
    few.mkdir()
    for tool in ("sh", "dirname", "readlink", "cmp"):
        (few / tool).symlink_to(str(shutil.which(tool)))
    code, _, err = checkout.run("start", PATH=str(few), PYTHON="")
    assert code == 69
    assert err.splitlines() == ["holdfast: needs Python 3.11 or newer with its venv module on PATH, or its path in PYTHON"]


@pytest.mark.parametrize("lock", ["requirements", "requirements-dev", "requirements-e2b"])
def test_a_lock_holds_names_versions_and_hashes_and_no_address(lock: str) -> None:
    for line in (ROOT / f"{lock}.lock").read_text().splitlines():
        text = line.strip().removesuffix(" \\")
        assert text.startswith("--hash=sha256:") or "==" in text.split(";")[0], line
        assert "//" not in text
        assert "@" not in text


def test_every_set_has_the_same_versions() -> None:
    def versions(name: str) -> set[str]:
        return {line.split(" ")[0] for line in (ROOT / f"{name}.lock").read_text().splitlines() if "==" in line.split(";")[0]}

    assert versions("requirements") < versions("requirements-e2b") < versions("requirements-dev")


def test_every_command_has_an_executable_stub_and_a_module() -> None:
    for module in (ROOT / "bin/commands").glob("[a-z]*.py"):
        stub = ROOT / "bin" / module.stem.replace("_", "-")
        assert os.access(stub, os.X_OK), stub
        assert f"bin.commands.{module.stem} " in stub.read_text()

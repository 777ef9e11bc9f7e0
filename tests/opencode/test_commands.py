"""bin/oc-daemon and bin/oc-live-smoke as a person meets them, and a worker's start with a live agent."""

import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

from bin import opencode_daemon
from bin.commands import oc_daemon, oc_live_smoke
from bin.live_opencode import live_opencode, password_of, require_opencode
from bin.opencode_daemon import CannotRunOpenCode, Wanted
from bin.settings import ROOT, Settings, read_settings
from bin.wiring import exit_code
from steps.opencode import OpenCodeNotConfigured
from tests.opencode.model_server import ModelServer, model_server
from tests.opencode.stage import PACKAGES, OpenCodeServer
from tests.opencode.stage import require_opencode as require_program

SECRETS = {"E2B_API_KEY": "e2b-very-secret", "DATABASE_URL": "postgresql://me:s3cret@db/shop"}


def called(command: str, *arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """As a process of its own."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OC_", "OPENCODE_", "STATE_DIR"))}
    return subprocess.run(
        [sys.executable, "-P", "-m", f"bin.commands.{command}", *arguments],
        env={**clean, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


@dataclass(frozen=True, slots=True)
class Said:
    code: int
    out: str
    err: str


Here = Callable[..., Said]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """A command in this process, which is quicker."""

    def call(module: ModuleType, *arguments: str, **environ: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["command", *arguments])
        code = exit_code(lambda: module.main(read_settings(environ)))
        said = capsys.readouterr()
        return Said(code, said.out, said.err)

    return call


def test_a_server_of_our_own_from_its_start_to_its_end(tmp_path: Path, here: Here) -> None:
    require_program()
    folder = tmp_path / "opencode"
    folder.mkdir()
    name = f"{opencode_daemon.package_name()}-{opencode_daemon.VERSION}"
    (folder / name).symlink_to(PACKAGES / name)  # so that it is not installed again
    with model_server() as model:
        given = {"STATE_DIR": str(tmp_path), "OC_SERVER_PORT": "0", "OC_MODEL": "stand-in/model-1", "OC_PROVIDER_URL": model.url}
        given |= {"OC_PROVIDER_KEY": "sk-secret-of-the-provider", **SECRETS}
        try:
            up = called("oc_daemon", "up", **given)
            assert up.returncode == 0, up.stderr
            found = re.fullmatch(r"OpenCode is up: (http://127.0.0.1:\d+), pid (\d+), log \S+\n", up.stdout)
            assert found
            assert here(oc_daemon, "up", **given).out.startswith(f"OpenCode was up already: {found[1]}, pid {found[2]},")
            other = here(oc_daemon, "up", **{**given, "OC_MODEL": "stand-in/model-2"})
            assert (other.code, other.err.rpartition(";")[2]) == (1, " stop it first\n")

            health = here(oc_daemon, "health", **given)
            assert re.fullmatch(
                rf"OpenCode 1\.18\.33 is healthy: {found[1]}, OpenAPI 3\.1\.\d+; its agents may only answer\n", health.out
            )
            smoke = here(oc_live_smoke, **given, OC_MODE="live", OC_STRICT_MODE="1", OC_BASE_URL=found[1])
            assert smoke.code == 0, smoke.err
            assert [line.split(",")[0] for line in smoke.out.splitlines()[1:]] == [
                "plan: a valid answer",
                "build: a valid answer",
            ]
            assert len(model.asked) == 2

            for private in ("password", "config.json"):
                assert stat.S_IMODE((folder / private).stat().st_mode) == 0o600
            assert "sk-secret" not in (folder / "config.json").read_text()
            environ = Path(f"/proc/{found[2]}/environ").read_text()
            assert not [secret for secret in ("e2b-very-secret", "s3cret", "DATABASE_URL", "E2B_") if secret in environ]
            assert f"HOME={folder}/home" in environ
        finally:
            stopped = here(oc_daemon, "stop", **given)
        assert (stopped.code, stopped.out) == (0, "OpenCode is stopped\n")
        assert not is_alive(int(found[2]))
        assert here(oc_daemon, "stop", **given).out == "OpenCode was not running\n"
        gone = here(oc_daemon, "health", **{**given, "OC_SERVER_PORT": found[1].rpartition(":")[2]})
        assert gone.code == 1
        assert gone.err.startswith("holdfast: the OpenCode server on port ")
        assert len(gone.err.splitlines()) == 1


def is_alive(pid: int) -> bool:
    """Not so if only its shell is left, for whoever started it to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def test_where_it_cannot_be_had_one_sentence_says_so(tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"STATE_DIR": str(tmp_path), "OC_MODEL": "a/b", "OC_PROVIDER_URL": "http://127.0.0.1:1"}
    monkeypatch.setenv("PATH", str(tmp_path))
    bare = here(oc_daemon, "up", **given)
    assert bare.code == 1
    assert bare.err == "holdfast: node and npm cannot be found; OpenCode is installed by npm, which comes with Node.js\n"
    assert not (tmp_path / "opencode" / "password").exists()
    assert here(oc_daemon, "up", STATE_DIR=str(tmp_path)).code == 2
    assert here(oc_daemon, "up", **{**given, "OC_PROVIDER_URL": "nowhere"}).err.startswith("holdfast: OC_PROVIDER_URL: invalid")


def test_a_model_is_named_with_its_provider(tmp_path: Path) -> None:
    for model in ("gpt", "/gpt", "openai/"):
        with pytest.raises(CannotRunOpenCode, match="provider/model"):
            opencode_daemon.configuration(Wanted(folder=tmp_path, port=0, model=model))


def test_a_provider_that_opencode_knows_needs_no_address(tmp_path: Path) -> None:
    told = opencode_daemon.configuration(Wanted(folder=tmp_path, port=0, model="anthropic/some/model", provider_key="k"))
    assert told["provider"] == {"anthropic": {"options": {"apiKey": "{env:HOLDFAST_PROVIDER_KEY}"}}}
    assert told["model"] == "anthropic/some/model"
    assert {agent["permission"]["*"] for agent in told["agent"].values()} == {"deny"}
    assert set(told["agent"]) == {"plan", "build"}


@pytest.mark.parametrize(
    ("environ", "code", "said"),
    [
        ({"OC_MODE": "replay"}, 0, "SKIP: OC_MODE is replay"),
        ({"OC_MODE": "replay", "OC_STRICT_MODE": "1"}, 1, "OC_MODE is replay, and OC_STRICT_MODE does not let that pass"),
        ({"OC_MODE": "live", "OC_BASE_URL": "http://127.0.0.1:1"}, 0, "SKIP: there is no OpenCode server at http://127.0.0.1:1"),
        ({"OC_MODE": "live", "OC_BASE_URL": "http://127.0.0.1:1", "OC_STRICT_MODE": "1"}, 1, "does not let that pass"),
    ],
)
def test_a_smoke_that_cannot_run_says_why_and_fails_only_if_strict(
    environ: dict[str, str], code: int, said: str, tmp_path: Path, here: Here, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(oc_live_smoke, "UP_S", 0)
    done = here(oc_live_smoke, STATE_DIR=str(tmp_path), **environ)
    assert done.code == code
    assert said in (done.err if code else done.out)


# A worker's start --------------------------------------------------------------------------------------------------------------------


def settings(opencode: OpenCodeServer | None = None, **more: object) -> Settings:
    given: dict[str, object] = {"oc_mode": "live", "oc_base_url": "http://127.0.0.1:1"}
    if opencode is not None:
        given |= {"oc_base_url": opencode.url, "oc_server_password": opencode.password}
    return Settings(**(given | more))  # type: ignore[arg-type]  # names of settings


async def test_a_strict_worker_does_not_start_without_its_server_and_another_says_so() -> None:
    with pytest.raises(OpenCodeNotConfigured, match="oc_live_unavailable: OC_BASE_URL="):
        await require_opencode(settings(oc_strict_mode=True), within_s=0)
    await require_opencode(settings(), within_s=0)


async def test_a_worker_starts_with_a_server_that_is_well_and_never_with_one_that_refuses_it(
    opencode: OpenCodeServer, model: ModelServer
) -> None:
    await require_opencode(settings(opencode, oc_strict_mode=True))
    with pytest.raises(OpenCodeNotConfigured, match="oc_auth: "):
        await require_opencode(settings(opencode, oc_server_password="wrong"))
    assert model.asked == []


def test_the_password_of_our_own_server_is_used_on_this_machine_alone(tmp_path: Path) -> None:
    (tmp_path / "opencode").mkdir()
    (tmp_path / "opencode" / "password").write_text("from-the-file")
    here = settings(state_dir=tmp_path, oc_base_url="http://localhost:4096")
    assert password_of(here) == "from-the-file"
    assert password_of(settings(state_dir=tmp_path, oc_base_url="http://agent.example:4096")) is None
    assert password_of(settings(state_dir=tmp_path, oc_server_password="set")) == "set"
    assert "from-the-file" not in repr(live_opencode(here)._server)

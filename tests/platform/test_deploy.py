"""The parts in docs/deploy: what they name exists, and they keep to what they say. Nothing here starts systemd or builds an image."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path

import pytest

from bin.own_server import surroundings
from bin.service import ServiceProcess
from bin.serving import GRACE_S
from bin.settings import ROOT, Settings
from bin.variables import names

DEPLOY = ROOT / "docs/deploy"
UNITS = ("holdfast-api.service", "holdfast-worker@.service")
INSTALLED = "/opt/holdfast"
IMAGE = DEPLOY / "Containerfile"

Unit = dict[str, list[str]]


def unit(name: str) -> Unit:
    """Its options, each with its values in order."""
    found: Unit = {}
    for line in (DEPLOY / name).read_text().splitlines():
        if line and not line.startswith(("#", "[")):
            option, _, value = line.partition("=")
            found.setdefault(option, []).append(value)
    return found


def settings_in(unit: Unit) -> Mapping[str, str]:
    pairs = (line.partition("=") for line in unit["Environment"])
    return {name: value for name, _, value in pairs}


# -- units ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", UNITS)
def test_systemd_takes_a_unit(name: str, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze is not installed")
    checkout = tmp_path / name.replace("@", "@10")  # with the commands of this checkout, which systemd looks for
    checkout.write_text((DEPLOY / name).read_text().replace(INSTALLED, str(ROOT)))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", checkout], capture_output=True, text=True, timeout=60)
    if "Failed to" in done.stderr and name not in done.stderr:
        pytest.skip(f"systemd-analyze does not work here: {done.stderr.splitlines()[0]}")
    said = [line for line in done.stderr.splitlines() if name.split("@")[0] in line and "DelegateSubgroup" not in line]
    assert (said, done.returncode) == ([], 0)


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_runs_a_command_that_there_is(name: str) -> None:
    (start,) = unit(name)["ExecStart"]
    (command,) = re.findall(rf"exec {INSTALLED}/(bin/\w+)'$", start)
    assert os.access(ROOT / command, os.X_OK)


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_is_held_in(name: str) -> None:
    found = unit(name)
    for option, value in {
        "NoNewPrivileges": "yes",
        "ProtectSystem": "strict",
        "ProtectHome": "yes",
        "PrivateTmp": "yes",
        "CapabilityBoundingSet": "",
        "User": "holdfast",
        "Restart": "always",
        "StateDirectory": "holdfast",
        "UMask": "0077",
    }.items():
        assert found[option] == [value], option
    assert found["LoadCredential"] == ["database-url:/etc/holdfast/database-url"]
    assert '"%d/database-url"' in found["ExecStart"][0]


@pytest.mark.parametrize("name", UNITS)
def test_a_unit_names_settings_that_there_are_and_no_secret(name: str) -> None:
    own = set(settings_in(unit(name)))
    ours = re.findall(r"^([A-Z_]+)=", (DEPLOY / "holdfast.env").read_text(), re.MULTILINE)
    assert own | set(ours) <= set(names(Settings)) - secrets()
    assert own.isdisjoint(ours), "what the unit sets itself is not to be set again"
    assert settings_in(unit(name))["STATE_DIR"] == f"/var/lib/{unit(name)['StateDirectory'][0]}"


def secrets() -> set[str]:
    return {one.metadata.get("env") or one.name.upper() for one in fields(Settings) if not one.repr}


def test_there_are_secrets_among_the_settings() -> None:
    assert {"DATABASE_URL", "DB_PASSWORD", "E2B_API_KEY"} <= secrets()


def test_units_have_time_to_drain() -> None:
    api, worker = (int(unit(name)["TimeoutStopSec"][0]) for name in UNITS)
    assert api > GRACE_S
    assert worker > Settings().sbx_default_timeout_ms / 1000
    assert [unit(name)["KillMode"] for name in UNITS] == [["mixed"], ["mixed"]]


def test_workers_have_ports_of_their_own() -> None:
    template = settings_in(unit(UNITS[1]))["ADMIN_PORT"]
    ports = {int(template.replace("%i", str(number))) for number in range(10, 100)}
    assert len(ports) == 90
    assert Settings().admin_port not in ports
    assert max(ports) < 65536


def test_a_worker_may_make_control_groups_for_its_sandboxes() -> None:
    found = unit(UNITS[1])
    assert found["Delegate"] == ["cpu memory pids"]
    assert found["DelegateSubgroup"] == ["worker"]
    # With any of these bubblewrap cannot work.
    assert {"RestrictNamespaces", "PrivateUsers", "ProtectKernelTunables", "ProtectControlGroups", "ProtectProc"}.isdisjoint(
        found
    )


# -- the image ------------------------------------------------------------------------------------------------------------------------


def instructions() -> Iterator[tuple[str, str]]:
    """What the file says, line by line, lines that go on put together."""
    text = re.sub(r"^#.*\n", "", IMAGE.read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    for line in filter(None, text.splitlines()):
        word, _, rest = line.partition(" ")
        yield word, " ".join(rest.split())


def all_of(word: str) -> list[str]:
    return [rest for one, rest in instructions() if one == word]


def copied() -> Iterator[tuple[list[str], str]]:
    """What of the checkout goes where, for each COPY that does not come from another stage."""
    for rest in all_of("COPY"):
        if not rest.startswith("--from="):
            *sources, target = rest.split()
            yield sources, target


def test_the_image_is_made_of_instructions_that_there_are() -> None:
    known = {"FROM", "WORKDIR", "COPY", "RUN", "ENV", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL", "HEALTHCHECK", "CMD"}
    assert {word for word, _ in instructions()} == known


def test_the_image_is_based_on_python_and_names_no_registry() -> None:
    assert all_of("FROM") == ["python:3.11-slim AS environment", "python:3.11-slim"]


def test_everything_that_is_copied_exists() -> None:
    assert [source for sources, _ in copied() for source in sources if not (ROOT / source.rstrip("/")).exists()] == []
    ignored = (DEPLOY / "Containerfile.dockerignore").read_text().split()
    assert {source.split("/")[0] for sources, _ in copied() for source in sources}.isdisjoint(ignored)


def test_packages_come_from_the_lock_with_hashes_and_from_nowhere_else() -> None:
    assert "python -I bin/environment.py requirements" in all_of("RUN")
    assert "--require-hashes" in (ROOT / "bin/environment.py").read_text()
    assert [rest for rest in all_of("RUN") if re.search(r"\b(pip|curl|wget|apt-get)\b", rest)] == []


def test_the_image_runs_as_nobody_special_and_holds_no_secret() -> None:
    assert all_of("USER")[-1] == "10001:10001"
    told = [word for word, _ in instructions()]
    assert told.index("USER") < told.index("CMD")
    given = set(re.findall(r"(\w+)=", " ".join(all_of("ENV"))))
    assert given - {"PYTHONDONTWRITEBYTECODE"} <= set(names(Settings)) - secrets()


def test_the_image_runs_commands_that_there_are_and_asks_how_they_are() -> None:
    (command,) = all_of("CMD")
    assert command == '["bin/api"]'
    assert os.access(ROOT / "bin/api", os.X_OK)
    (check,) = all_of("HEALTHCHECK")
    assert f"http://127.0.0.1:{Settings().admin_port}/healthz" in check
    assert all_of("EXPOSE") == [f"{Settings().port} {Settings().admin_port}"]
    for name in re.findall(r"\bbin/([a-z]+)\b(?!\.py)", IMAGE.read_text()):
        assert (ROOT / "bin" / name).is_file(), name


def lay_out(folder: Path) -> None:
    """What the COPY lines put together."""
    for sources, target in copied():
        for source in sources:
            here = ROOT / source
            if here.is_dir():
                shutil.copytree(here, folder / target, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
            else:
                place = folder / target
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(here, place)


def test_what_is_copied_is_all_that_an_api_needs(tmp_path: Path, database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(tmp_path)
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "api.log"
    monkeypatch.setattr("bin.service.ROOT", tmp_path)
    api = ServiceProcess("api", log, surroundings(database, tmp_path / "state"))
    api.start()
    try:
        assert api.url().startswith("http://127.0.0.1:")
    finally:
        api.stop()
    assert (tmp_path / "bin/commands/api.py").exists()


@pytest.mark.slow
def test_the_first_stage_makes_an_environment_in_which_the_commands_start(tmp_path: Path) -> None:
    lay_out(tmp_path)
    (made,) = [rest for rest in all_of("RUN") if "environment.py" in rest]
    subprocess.run(made.replace("python", sys.executable, 1), shell=True, cwd=tmp_path, check=True, timeout=600)
    told = subprocess.run([tmp_path / "bin/worker", "--help"], capture_output=True, text=True, check=True, timeout=60)
    assert "Executes workflows" in told.stdout

"""One service for all pages, started as a reader starts it, on a machine with nothing: `bin/start`."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.docs.session import clean_environment, make_checkout

NEEDED = ("bash", "curl", "jq")


@dataclass(frozen=True, slots=True)
class Service:
    """The running service: its folder, and the host and port of its two doors."""

    folder: Path
    door: str
    admin: str


@pytest.fixture(scope="session")
def terminal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder to type commands in."""
    for tool in NEEDED:
        if shutil.which(tool) is None:
            pytest.skip(f"the shell blocks of the pages need {tool}, which is not installed")
    folder = tmp_path_factory.mktemp("checkout")
    make_checkout(folder)
    return folder


@pytest.fixture(scope="session")
def service(terminal: Path) -> Iterator[Service]:
    log = terminal / "service.log"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [terminal / "bin/start"],
            cwd=terminal,
            env=clean_environment(terminal, PORT="0", ADMIN_PORT="0"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        told = process.stdout.readline()
        found = [word.rstrip(",;").removeprefix("http://") for word in told.split() if word.startswith("http://")]
        assert len(found) == 2, f"bin/start said {told!r}; its log ends with: {log.read_text()[-2000:]}"
        yield Service(terminal, *found)
    finally:
        process.terminate()
        try:
            process.wait(timeout=60)
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def shop(empty_database: str) -> str:
    """URL of an empty database, for the pages' `postgresql:///shop`."""
    parts = conninfo_to_dict(empty_database)
    name = str(parts.pop("dbname"))
    return f"postgresql:///{name}?" + "&".join(f"{key}={quoted(str(value))}" for key, value in parts.items())


def quoted(text: str) -> str:
    return "".join(letter if letter.isalnum() else f"%{ord(letter):02X}" for letter in text)

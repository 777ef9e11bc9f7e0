"""What these tests share: one real OpenCode server with a stand-in for its model, for the session."""

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from tests.opencode.model_server import ModelServer
from tests.opencode.stage import OpenCodeServer, stage

_numbers = count(1)


@pytest.fixture(scope="session")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OpenCodeServer, ModelServer]]:
    with stage(tmp_path_factory.mktemp("opencode")) as both:
        yield both


@pytest.fixture
def opencode(_stage: tuple[OpenCodeServer, ModelServer]) -> OpenCodeServer:
    return _stage[0]


@pytest.fixture
def model(_stage: tuple[OpenCodeServer, ModelServer]) -> ModelServer:
    """It answers as it is asked, until a test says otherwise."""
    _stage[1].reset()
    return _stage[1]


@pytest.fixture
def run_id() -> str:
    """A run that nobody asked for before, so that nothing is found on the server."""
    return f"run_{next(_numbers)}"


@pytest.fixture
def packages() -> Path:
    """Where the program is, for a server of a test's own."""
    from tests.opencode.stage import PACKAGES, require_opencode

    require_opencode()
    return PACKAGES

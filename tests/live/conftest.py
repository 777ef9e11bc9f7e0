"""One real OpenCode server with a stand-in for its model, for all live tests. Where one or the sandboxes can't be had, they are skipped."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.live.scene import Scene, scene
from tests.opencode.model_server import ModelServer
from tests.opencode.stage import OpenCodeServer, stage
from tests.sandbox.subjects import local


@pytest.fixture(scope="session")
def _stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[OpenCodeServer, ModelServer]]:
    with stage(tmp_path_factory.mktemp("opencode")) as both:
        yield both


@pytest.fixture
async def live(database: str, tmp_path: Path, _stage: tuple[OpenCodeServer, ModelServer]) -> AsyncIterator[Scene]:
    local(tmp_path / "probe")  # or the test is skipped
    opencode, model = _stage
    model.reset()
    async with scene(tmp_path / "state", database, opencode, model) as it:
        yield it

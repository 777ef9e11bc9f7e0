"""DBOS's own client, unmodified and in an environment of its own, on a database where our workers run.

The first run of these tests installs the package (tests/interop/environment.py); where it can't be had they are skipped.
"""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from engine import Engine
from tests.conftest import new_database
from tests.docs.conftest import url
from tests.engine.workshop import Workshop
from tests.interop import environment
from tests.interop.client import Dbos, ForeignProcess


@pytest.fixture(scope="session")
def programs() -> Path:
    """Where the programs of the foreign environment are."""
    try:
        return environment.made()
    except environment.CannotInstall as error:
        pytest.skip(f"DBOS's client is not there: {error}")


@pytest.fixture(scope="session")
def foreign(programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForeignProcess]:
    process = ForeignProcess(programs, tmp_path_factory.mktemp("foreign"))
    yield process
    process.close()


@pytest.fixture(scope="module")
def shop_database(foreign: ForeignProcess, server: str, template: str) -> Iterator[str]:
    """A database with the whole schema, one for all tests of a module."""
    with new_database(server, template) as dsn:
        yield dsn


@pytest.fixture
async def shop(shop_database: str) -> AsyncIterator[Workshop]:
    async with Engine.connect(shop_database) as engine:
        shop = Workshop(engine, shop_database)
        await shop.empty()
        try:
            yield shop
        finally:
            await shop.stop_all()


@pytest.fixture
def dbos(foreign: ForeignProcess, shop_database: str) -> Dbos:
    return Dbos(foreign, url(shop_database))

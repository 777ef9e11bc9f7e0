"""The engine alone, on a database that holds only its part of the schema: one database a file of tests, emptied for each test."""

from collections.abc import AsyncIterator, Iterator

import pytest

from engine import Engine
from tests.conftest import new_database
from tests.engine.workshop import Ledger, Trace, Workshop


@pytest.fixture(scope="module")
def shop_database(server: str, engine_template: str) -> Iterator[str]:
    with new_database(server, engine_template) as dsn:
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
def trace() -> Trace:
    return Trace()


@pytest.fixture
async def ledger(shop: Workshop) -> Ledger:
    ledger = Ledger(shop)
    await ledger.make()
    return ledger

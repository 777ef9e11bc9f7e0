"""Databases as the first version made them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bin.database import connect
from tests.conftest import new_database
from tests.upgrades.catalog import Catalog, catalog
from tests.upgrades.frozen import fill, make


@pytest.fixture(scope="session")
def new_catalog(server: str, template: str) -> Catalog:
    """That of a new database."""
    with new_database(server, template, direct=True) as dsn, connect(dsn, autocommit=True) as conn:
        return catalog(conn)


@pytest.fixture(scope="session")
def old_template(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Name of a database of version 1 with the rows of that time. Nobody may connect to it, or it can't be cloned."""
    with new_database(server, "template1", direct=True) as dsn:
        with connect(dsn, autocommit=True) as conn:
            make(conn, 1, tmp_path_factory.mktemp("frozen"))
            fill(conn, 1)
            name = conn.info.dbname
        yield name


@pytest.fixture
def old_database(server: str, old_template: str) -> Iterator[str]:
    with new_database(server, old_template) as dsn:
        yield dsn


@pytest.fixture
def bare_old_database(empty_database: str, tmp_path: Path) -> str:
    """Of version 1 too, right after its code had made it."""
    with connect(empty_database, autocommit=True) as conn:
        make(conn, 1, tmp_path)
    return empty_database

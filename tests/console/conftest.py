"""The console's page as the front door serves it: the fixtures of the front door's own tests."""

from tests.api.conftest import app, client, database, engine, rows

__all__ = ["app", "client", "database", "engine", "rows"]

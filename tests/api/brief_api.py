"""bin/api whose streams and long polls answer at once, as in a server that stops, so that a test need not wait for what will not happen."""

import asyncio

from starlette.applications import Starlette

from api.app import create_app
from api.config import Config
from bin import roles
from bin.commands.api import main
from bin.wiring import run
from engine import Engine

if __name__ == "__main__":
    stopping = asyncio.Event()
    stopping.set()

    def brief_app(engine: Engine, config: Config, *, draining: asyncio.Event | None = None) -> Starlette:
        return create_app(engine, config, draining=stopping)

    roles.create_app = brief_app
    run(main)

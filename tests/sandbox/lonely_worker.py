"""A process that runs one command in a sandbox, to be killed: `lonely_worker.py FOLDER KEY CMD [die-before-telling]`.

FOLDER is a local sandbox's, or the address of a stand-in for the E2B service.
"""

import asyncio
import os
import sys
from pathlib import Path

from steps.sandbox import Sandbox
from steps.sandboxes.conformance import request
from steps.sandboxes.local import LocalSandbox, groups_here
from tests.sandbox.e2b_service import E2BService


def sandbox(place: str) -> Sandbox:
    if place.startswith("http://"):
        return E2BService(place).sandbox()
    return LocalSandbox(Path(place), groups=groups_here())


async def main(place: str, key: str, cmd: str, *options: str) -> None:
    result = await sandbox(place).run(request(cmd), attempt=1, key=key)
    if "die-before-telling" in options:
        os._exit(9)
    print(result.model_dump_json(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

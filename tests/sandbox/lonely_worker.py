"""A process that runs one command in a local sandbox, to be killed: `lonely_worker.py FOLDER KEY CMD [die-before-telling]`."""

import asyncio
import os
import sys
from pathlib import Path

from steps.sandboxes.conformance import request
from steps.sandboxes.local import LocalSandbox, groups_here


async def main(folder: str, key: str, cmd: str, *options: str) -> None:
    result = await LocalSandbox(Path(folder), groups=groups_here()).run(request(cmd), attempt=1, key=key)
    if "die-before-telling" in options:
        os._exit(9)
    print(result.model_dump_json(), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))

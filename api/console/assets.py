"""The console's files, under an address that changes with their content.

All of them stand under `/static/<hash of all files>/`, so a browser may keep them for good, and modules find their neighbours without any
file being renamed or put together.
"""

import functools
import gzip
import hashlib
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from api.console.squeeze import squeezed
from api.http import Door
from steps.errors import NotFound

FOLDER = Path(__file__).with_name("static")
TYPES: Mapping[str, str] = {
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
}
HEADERS: Mapping[str, str] = {
    "cache-control": "public, max-age=31536000, immutable",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "vary": "accept-encoding",
}
#: The sheets, in their order; they are served as one.
SHEETS = ("tokens", "base", "components", "run", "boards")
SHEET = "css/console.css"
MAIN = "js/main.js"
#: A static import or re-export, as the modules and the libraries write them.
IMPORT = re.compile(r'(?:\bfrom|^import)\s*"(\.[^"]+)"', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Asset:
    content: bytes
    zipped: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class Assets:
    """Every file by its path below the folder. hash: of all of them."""

    files: Mapping[str, Asset]
    hash: str

    def modules(self, board: str) -> list[str]:
        """The modules that the page loads to show a board, in the order in which they are found; one that is missing is left out."""
        found: dict[str, None] = {}
        waiting = [MAIN, board]
        while waiting:
            path = waiting.pop(0)
            if path in self.files and path not in found:
                found[path] = None
                waiting += imports_of(path, self.files[path].content)
        return list(found)


def imports_of(path: str, content: bytes) -> list[str]:
    """The paths of the modules that a module can't do without."""
    folder = posixpath.dirname(path)
    return [posixpath.normpath(posixpath.join(folder, name)) for name in IMPORT.findall(content.decode())]


def served(name: str, content: bytes) -> bytes:
    """The file as browsers get it: our own modules squeezed, everything else as it is."""
    if not (name.startswith("js/") and name.endswith(".js")):
        return content
    return squeezed(content.decode()).encode()


@functools.cache
def assets() -> Assets:
    """What this process serves, read once."""
    paths = sorted(path for path in FOLDER.rglob("*") if path.suffix in TYPES)
    contents = {name: served(name, path.read_bytes()) for path in paths if (name := path.relative_to(FOLDER).as_posix())}
    contents[SHEET] = b"".join(contents.pop(f"css/{sheet}.css") for sheet in SHEETS)
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name}\0{len(content)}\0".encode() + content)
    files = {
        name: Asset(content, gzip.compress(content, 9, mtime=0), TYPES[Path(name).suffix]) for name, content in contents.items()
    }
    return Assets(files, digest.hexdigest()[:12])


async def get_asset(door: Door, request: Request) -> Response:
    """One file. Of another version of the console it is not there: its page is asked for anew."""
    known = assets()
    asset = known.files.get(request.path_params["path"]) if request.path_params["hash"] == known.hash else None
    if asset is None:
        raise NotFound("no such file of the console")
    if "gzip" in request.headers.get("accept-encoding", ""):
        return Response(asset.zipped, media_type=asset.media_type, headers={**HEADERS, "content-encoding": "gzip"})
    return Response(asset.content, media_type=asset.media_type, headers=dict(HEADERS))

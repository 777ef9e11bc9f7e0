"""bin/vendor-console: fetch the console's libraries anew, for developers.

    bin/vendor-console [--check]

Takes the exact versions below from the npm registry with `npm pack`, which needs Node's npm on this machine; neither an install nor a
running service does. Each package must have the digest that it was pinned with. What is written to api/console/static/vendor is the ES
module as published, with its imports leading to its neighbours and without a source map, its licence, and vendor.lock.json, which says
where every file comes from. --check writes nothing and says whether the files are what the packages hold: exit code 1 if not.
"""

import argparse
import base64
import hashlib
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import orjson

from bin.settings import Settings
from bin.wiring import FAILED, complain, run

VENDOR = Path(__file__).parents[2] / "api/console/static/vendor"
LOCK = "vendor.lock.json"


@dataclass(frozen=True, slots=True)
class Package:
    """A package of the registry. modules: the file that is written for each file of the package."""

    name: str
    version: str
    integrity: str
    licence: str
    modules: Mapping[str, str]


PACKAGES = (
    Package(
        "preact",
        "11.2.0",
        "sha512-/HfHI/7N84e6GrWBJ3J280z3mLaRJiDcSvj/A+y/4AbLnND/1UlGHe1sR6oYuTGwId0nP7dqDU9OnLxMPZ7xBg==",
        "MIT",
        {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "hooks.js"},
    ),
    Package(
        "@preact/signals",
        "2.11.4",
        "sha512-Rb+5RPo9gWSaHtzJeauhHxiC8KP/IF2DEPkHPEOGOnuy2wnJzRqyeLRankUCYd6ADqtxS6GnWGv6Ie343d8aYw==",
        "MIT",
        {"dist/signals.mjs": "signals.js"},
    ),
    Package(
        "@preact/signals-core",
        "1.14.5",
        "sha512-vcRv7Ityz5JVmeiVqIluLFzT/PDS/AlhHUpw3/aUWqcVUs6bDGIPXE/6RSC4evBNWYvnniozg5Syfj33al3gkg==",
        "MIT",
        {"dist/signals-core.mjs": "signals-core.js"},
    ),
    Package(
        "htm",
        "3.1.1",
        "sha512-983Vyg8NwUE7JkZ6NmOqpCZ+sh1bKv2iYTlUkzlWmA5JD2acKoxd4KVxbMmxX/85mtfdnDmTFoNKcg5DGAvxNQ==",
        "Apache-2.0",
        {"dist/htm.mjs": "htm.js"},
    ),
)
#: What a module says when it imports another, and the file that then is meant.
IMPORTS: Mapping[str, str] = {
    "preact": "./preact.js",
    "preact/hooks": "./hooks.js",
    "@preact/signals-core": "./signals-core.js",
}
IMPORT = re.compile(r"""(?P<before>\bfrom|\bimport)\s*(?P<quote>["'])(?P<name>[^"']+)(?P=quote)""")
SOURCE_MAP = re.compile(r"\s*//# sourceMappingURL=\S+\s*$")


class NotAsPinned(Exception):
    """A package is not what it was when it was pinned, or imports what is not vendored."""


def main(settings: Settings) -> int:
    parser = argparse.ArgumentParser(prog="bin/vendor-console", description="Fetch the console's libraries anew.")
    parser.add_argument("--check", action="store_true", help="write nothing; say whether the files are what the packages hold")
    asked = parser.parse_args(sys.argv[1:])
    try:
        files = vendored()
    except (NotAsPinned, OSError, subprocess.CalledProcessError) as error:
        complain(error)
        return FAILED
    if asked.check:
        other = [name for name, content in files.items() if not is_file_with(VENDOR / name, content)]
        for name in other:
            complain(f"{name} is not what its package holds; fetch it anew")
        return FAILED if other else 0
    for name, content in files.items():
        (VENDOR / name).parent.mkdir(parents=True, exist_ok=True)
        (VENDOR / name).write_bytes(content)
    print(f"{len(files)} files are in {VENDOR}")
    return 0


def is_file_with(path: Path, content: bytes) -> bool:
    return path.is_file() and path.read_bytes() == content


def vendored() -> dict[str, bytes]:
    """Every file of the vendor folder by its name, the lock included."""
    files: dict[str, bytes] = {}
    locked: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for package in PACKAGES:
            modules, licence = unpacked(package, fetched(package, Path(folder)))
            name = package.name.rpartition("/")[2]
            files |= modules | {f"licences/{name}.txt": licence}
            locked.append(
                {
                    "name": package.name,
                    "version": package.version,
                    "integrity": package.integrity,
                    "licence": package.licence,
                    "licenceFile": f"licences/{name}.txt",
                    "sha256": {module: hashlib.sha256(content).hexdigest() for module, content in sorted(modules.items())},
                }
            )
    lock = orjson.dumps({"packages": locked}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    return files | {LOCK: lock}


def fetched(package: Package, folder: Path) -> Path:
    """The package's archive, which has the digest that it was pinned with. Raises NotAsPinned."""
    spec = f"{package.name}@{package.version}"
    packed = subprocess.run(["npm", "pack", "--silent", spec], cwd=folder, check=True, capture_output=True, text=True)
    archive = folder / packed.stdout.split()[-1]
    digest = "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()
    if digest != package.integrity:
        raise NotAsPinned(f"{spec} has the digest {digest}, and was pinned with {package.integrity}")
    return archive


def unpacked(package: Package, archive: Path) -> tuple[dict[str, bytes], bytes]:
    """The modules as they are written, and the licence."""
    with tarfile.open(archive) as tar:

        def text_of(name: str) -> str:
            content = tar.extractfile(f"package/{name}")
            if content is None:
                raise NotAsPinned(f"{package.name} has no {name}")
            return content.read().decode()

        modules = {file: browser_module(text_of(source)).encode() for source, file in package.modules.items()}
        return modules, text_of("LICENSE").encode()


def browser_module(source: str) -> str:
    """The module as a browser can load it without an import map. Raises NotAsPinned for an import that is not vendored."""

    def leading(found: re.Match[str]) -> str:
        if found["name"] not in IMPORTS:
            raise NotAsPinned(f"a module imports {found['name']}, which is not vendored")
        return f'{found["before"]}"{IMPORTS[found["name"]]}"'

    return SOURCE_MAP.sub("", IMPORT.sub(leading, source)) + "\n"


if __name__ == "__main__":
    run(main)

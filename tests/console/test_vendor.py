"""The libraries in the tree are what the registry's packages hold, with their licences."""

import hashlib
import re
from typing import Any

import orjson
import pytest

from bin.commands.vendor_console import LOCK, PACKAGES, VENDOR, NotAsPinned, browser_module

LOCKED: list[dict[str, Any]] = orjson.loads((VENDOR / LOCK).read_bytes())["packages"]


def test_every_file_has_the_hash_that_is_written_down() -> None:
    hashes = {name: digest for package in LOCKED for name, digest in package["sha256"].items()}
    assert hashes == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in VENDOR.glob("*.js")}


def test_the_lock_is_that_of_the_packages_that_are_pinned() -> None:
    pinned = [(package.name, package.version, package.integrity) for package in PACKAGES]
    assert [(one["name"], one["version"], one["integrity"]) for one in LOCKED] == pinned


def test_every_licence_is_there() -> None:
    for package in LOCKED:
        assert re.search("MIT License|Apache License", (VENDOR / package["licenceFile"]).read_text()), package["name"]


def test_a_library_imports_its_neighbours_only_and_has_no_source_map() -> None:
    for path in VENDOR.glob("*.js"):
        text = path.read_text()
        assert [name for name in re.findall(r'from"([^"]+)"', text) if not (VENDOR / name).is_file()] == []
        assert "sourceMappingURL" not in text


def test_imports_lead_to_the_files_beside() -> None:
    source = 'import{h as a}from"preact";import b from\'preact/hooks\';export{c}from "@preact/signals-core";\n//# sourceMappingURL=x.map\n'
    assert (
        browser_module(source) == 'import{h as a}from"./preact.js";import b from"./hooks.js";export{c}from"./signals-core.js";\n'
    )


def test_a_library_that_wants_what_is_not_vendored_is_refused() -> None:
    with pytest.raises(NotAsPinned, match="left-pad"):
        browser_module('import x from"left-pad";')

"""The locks are made from pyproject.toml: what it asks for is in them, in a version that it allows, and nothing asks for another."""

import tomllib
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from bin.settings import ROOT

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
ASKED: dict[str, list[str]] = {
    "requirements": PROJECT["project"]["dependencies"],
    "requirements-e2b": PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["e2b"],
    "requirements-dev": PROJECT["project"]["dependencies"]
    + PROJECT["project"]["optional-dependencies"]["e2b"]
    + PROJECT["dependency-groups"]["dev"],
}


def locked(text: str) -> dict[str, list[Version]]:
    """The versions of each package; several where machines differ."""
    found: dict[str, list[Version]] = {}
    for line in text.splitlines():
        if line[:1].isalnum():
            name, _, version = line.split(";")[0].rstrip(" \\").partition("==")
            found.setdefault(canonicalize_name(name.partition("[")[0]), []).append(Version(version.strip()))
    return found


def missing(asked: list[str], text: str) -> list[str]:
    versions = locked(text)
    wanted = [Requirement(line) for line in asked]
    return [
        str(one) for one in wanted if not any(one.specifier.contains(v) for v in versions.get(canonicalize_name(one.name), []))
    ]


@pytest.mark.parametrize("lock", ASKED)
def test_a_lock_has_all_that_is_asked_for(lock: str) -> None:
    assert missing(ASKED[lock], (ROOT / f"{lock}.lock").read_text()) == []


def test_what_a_lock_lacks_is_found() -> None:
    text = "a-b==1.0 \\\n    --hash=sha256:0\nc==2.0 ; python_version < '3.12' \\\n"
    assert missing(["A_b>=1", "c[x]>=1; python_version < '3.12'"], text) == []
    assert missing(["a-b>=2", "c<2", "d"], text) == ["a-b>=2", "c<2", "d"]


@pytest.mark.parametrize("lock", ASKED)
def test_every_version_in_a_lock_has_a_hash(lock: str) -> None:
    lines = (ROOT / f"{lock}.lock").read_text().splitlines()
    heads = [number for number, line in enumerate(lines) if line[:1].isalnum()]
    assert [
        lines[number] for number in heads if "--hash=sha256:" not in (lines[number + 1] if number + 1 < len(lines) else "")
    ] == []

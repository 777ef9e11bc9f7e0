"""Every promise names the tests that prove it, and those exist."""

import ast
import re

from tests.docs.pages import DOCS, ROOT

NAMED_TEST = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<test>test_\w+)`")
PROMISES = 8


def promises() -> dict[str, list[tuple[str, str]]]:
    """The tests (file, name) by the heading that they stand under."""
    _, *sections = re.split(r"^## ", (DOCS / "promises.md").read_text(), flags=re.MULTILINE)
    return {text.splitlines()[0]: [(f["file"], f["test"]) for f in NAMED_TEST.finditer(text)] for text in sections}


def named_in(file: str) -> set[str]:
    tree = ast.parse((ROOT / file).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}


def test_every_promise_is_proved_by_tests_that_exist() -> None:
    found = promises()
    assert [heading.split(".")[0] for heading in found] == [str(number) for number in range(1, PROMISES + 1)]
    assert [heading for heading, tests in found.items() if not tests] == []
    missing = [f"{file}::{test}" for tests in found.values() for file, test in tests if test not in named_in(file)]
    assert missing == []

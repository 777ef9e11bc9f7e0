"""Every promise names the tests that prove it, and those exist."""

import ast
import re
from collections import defaultdict

from tests.docs.pages import DOCS, ROOT

NAMED_TEST = re.compile(r"`(?P<file>tests/[\w/]+\.py)::(?P<test>test_\w+)`")
PROMISES = 9


def promises() -> dict[str, list[tuple[str, str]]]:
    """The tests (file, name) by the heading that they stand under."""
    _, *sections = re.split(r"^## ", (DOCS / "promises.md").read_text(), flags=re.MULTILINE)
    return {text.splitlines()[0]: [(f["file"], f["test"]) for f in NAMED_TEST.finditer(text)] for text in sections}


def homes() -> dict[str, set[str]]:
    """The files of every test there is."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                found[node.name].add(str(path.relative_to(ROOT)))
    return found


def test_every_promise_is_proved_by_tests_that_exist() -> None:
    found = promises()
    assert [heading.split(".")[0] for heading in found] == [str(number) for number in range(1, PROMISES + 1)]
    assert [heading for heading, tests in found.items() if not tests] == []
    home = homes()
    wrong = {f"{file}::{test}": home[test] for tests in found.values() for file, test in tests if file not in home[test]}
    assert wrong == {}, "named on the page: where it is now"

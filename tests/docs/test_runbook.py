"""The runbook has an entry for each thing that the system says, and for nothing else. Its commands are carried out in test_pages_run.py."""

import re
from collections.abc import Iterator
from typing import get_args

import pytest
import yaml

from engine import FINAL
from steps.contracts.sandbox import ErrCode
from steps.contracts.views import ReasonCode
from tests.docs.pages import DOCS, ROOT, prose, slug

PAGE = DOCS / "runbook.md"
#: What a client did wrong it is told in words.
CLIENTS_OWN = {"400", "404", "409"}


def entries() -> dict[str, dict[str, str]]:
    """Texts by section and entry."""
    found: dict[str, dict[str, str]] = {}
    for section in re.split(r"^## ", prose(PAGE), flags=re.MULTILINE)[1:]:
        title, _, rest = section.partition("\n")
        parts = re.split(r"^### ", rest, flags=re.MULTILINE)[1:]
        found[title] = {part.partition("\n")[0].strip("`"): part.partition("\n")[2].strip() for part in parts}
    return found


def alerts() -> Iterator[str]:
    for group in yaml.safe_load((DOCS / "deploy/alerts.yml").read_text())["groups"]:
        yield from (rule["alert"] for rule in group["rules"])


def readiness() -> set[str]:
    source = (ROOT / "bin/admin.py").read_text()
    return {first or second for first, second in re.findall(r'reason = "(\w+)"|return f"([\w ]+) \(', source)}


def statuses() -> set[str]:
    return set(re.findall(r"\b([45]\d\d), \{", (ROOT / "api/errors.py").read_text()))


EXPECTED = {
    "Why a run is not at work": set(get_args(ReasonCode)),
    "How a run ends badly": FINAL - {"SUCCESS"},
    "What a sandbox task says": set(get_args(ErrCode)) - {"NONE"},
    "What a process says": readiness(),
    "What the API answers": statuses() - CLIENTS_OWN,
    "Alerts": set(alerts()),
}


@pytest.mark.parametrize("section", EXPECTED)
def test_each_thing_that_is_said_has_its_entry_and_no_other(section: str) -> None:
    assert len(EXPECTED[section]) >= 2
    assert set(entries()[section]) == EXPECTED[section]


def test_every_entry_says_something() -> None:
    assert [name for section in entries().values() for name, text in section.items() if len(text) < 60] == []


def test_two_entries_never_have_the_same_address() -> None:
    names = [slug(name) for section in entries().values() for name in section]
    assert len(set(names)) == len(names)


def test_every_command_that_is_named_exists() -> None:
    named = set(re.findall(r"\bbin/([a-z-]+)", PAGE.read_text()))
    assert len(named) > 5
    assert [name for name in named if not (ROOT / "bin" / name).is_file()] == []


def test_every_setting_that_is_named_exists() -> None:
    known = (DOCS / "operating.md").read_text()
    named = set(re.findall(r"`…?_?([A-Z]+(?:_[A-Z]+)+)`", PAGE.read_text())) - FINAL - set(get_args(ErrCode))
    assert "TOKEN_REQUESTS_PER_S" in named
    assert [name for name in named if name not in known] == []

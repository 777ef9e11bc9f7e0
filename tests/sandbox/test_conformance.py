"""Every provider does in every case what a sandbox must do."""

from pathlib import Path

import pytest

from steps.sandboxes.conformance import CASES, Case, examine
from steps.sandboxes.subjects import SUBJECTS
from tests.sandbox.subjects import subject


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("name", SUBJECTS)
async def test_a_provider_does_what_a_sandbox_must(name: str, case: Case, tmp_path: Path) -> None:
    row = await examine(subject(name, tmp_path), case)
    assert row.verdict != "FAIL", row.reason

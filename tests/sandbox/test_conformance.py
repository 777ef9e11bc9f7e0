"""Every provider does in every case what a sandbox must do. One before a stand-in or a fake is one that really runs its commands."""

from collections.abc import Iterator

import pytest

from steps.sandboxes.conformance import CASES, Case, Subject, examine
from steps.sandboxes.subjects import SUBJECTS, remote
from tests.sandbox.e2b_service import e2b_service
from tests.sandbox.subjects import subject


@pytest.fixture(scope="module", params=[*SUBJECTS, "e2b-stand-in"])
def provider(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    folder = tmp_path_factory.mktemp("sandboxes")
    if request.param == "e2b-stand-in":
        with e2b_service(folder) as service:
            yield remote("e2b-stand-in", service.machines(), here=True)
    else:
        yield subject(request.param, folder)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_a_provider_does_what_a_sandbox_must(provider: Subject, case: Case) -> None:
    row = await examine(provider, case)
    assert row.verdict != "FAIL", row.reason

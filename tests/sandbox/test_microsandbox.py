"""Sandboxes by microsandbox, before a fake of its package; and before the package itself, where its machines boot."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path

import pytest

from steps.sandbox import SandboxNotConfigured, make_sandbox
from steps.sandboxes.conformance import CASES, Case, examine, request
from steps.sandboxes.microsandbox import Microsandbox, trouble
from steps.sandboxes.remote import RemoteSandbox
from steps.sandboxes.subjects import remote
from tests.sandbox.microsandbox_fake import Failure, Fake
from tests.sandbox.subjects import local


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[Fake]:
    local(tmp_path)  # it runs its commands by bubblewrap too
    monkeypatch.setattr(Fake, "machines", {})
    monkeypatch.setattr(Fake, "folder", tmp_path / "machines")
    monkeypatch.setattr(Fake, "boot_fails", None)
    return Fake


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_the_adapter_does_what_a_sandbox_must(fake: type[Fake], case: Case) -> None:
    row = await examine(remote("microsandbox-fake", Microsandbox("tests", fake), here=True), case)
    assert row.verdict != "FAIL", row.reason


async def test_a_machine_is_made_for_one_command_and_goes_when_its_result_is_safe(fake: type[Fake]) -> None:
    box = RemoteSandbox(Microsandbox("tests", fake))
    asked = request("echo on", memory_mb=300, timeout_ms=4000, env={"TOKEN": "s3cret"})
    assert (await box.run(asked, attempt=1, key="task:1:1")).stdout == "on\n"
    (machine,) = fake.machines.values()
    assert machine.options["labels"] == {"app": "holdfast", "env": "tests", "key": "task:1:1", "task": "conformance"}
    options = {name: machine.options[name] for name in ("image", "memory", "cpus", "network", "max_duration", "detached")}
    assert options == {
        "image": "conformance",
        "memory": 300,
        "cpus": 1,
        "network": "none",
        "max_duration": 124.0,
        "detached": True,
    }
    assert "s3cret" not in str(machine.options)
    await box.release("task:1:1")
    assert fake.machines == {}


async def test_another_worker_finds_the_result_and_runs_nothing_again(fake: type[Fake]) -> None:
    asked = request("cat /proc/sys/kernel/random/uuid")
    first = await RemoteSandbox(Microsandbox("tests", fake)).run(asked, attempt=1, key="k")
    assert await RemoteSandbox(Microsandbox("tests", fake)).run(asked, attempt=1, key="k") == first


async def test_a_machine_that_stopped_is_made_anew(fake: type[Fake]) -> None:
    box = RemoteSandbox(Microsandbox("tests", fake))
    await box.run(request("echo on"), attempt=1, key="k")
    (machine,) = fake.machines.values()
    await machine.kill()
    assert (await box.run(request("cat /proc/sys/kernel/random/uuid"), attempt=1, key="k")).errCode == "NONE"


async def test_orphans_are_ended(fake: type[Fake]) -> None:
    async def over(keys: Sequence[str]) -> set[str]:
        return set(keys) - {"goes on:1:1"}

    box = RemoteSandbox(Microsandbox("tests", fake), over=over)
    for key in ("over:1:1", "goes on:1:1"):
        await RemoteSandbox(Microsandbox("tests", fake)).run(request("true"), attempt=1, key=key)
    assert await box.reap() == 1
    assert [one.options["labels"]["key"] for one in fake.machines.values()] == ["goes on:1:1"]


async def test_a_machine_that_does_not_boot_says_why(fake: type[Fake], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake, "boot_fails", "sandbox-not-running")
    result = await RemoteSandbox(Microsandbox("tests", fake)).run(request("true"), attempt=1, key="k")
    assert (result.errCode, result.stderr) == ("BOOT_FAIL", "microsandbox: Failure: ordered to fail\n")
    monkeypatch.setattr(fake, "boot_fails", "image-not-found")
    refused = await RemoteSandbox(Microsandbox("tests", fake)).run(request("true"), attempt=1, key="k")
    assert refused.raw is not None
    assert refused.raw["permanent"] is True


@pytest.mark.parametrize(
    ("code", "permanent", "gone"),
    [
        ("runtime-not-installed", True, False),
        ("invalid-config", True, False),
        ("image-not-found", True, False),
        ("image-pull-failed", False, False),
        ("sandbox-not-found", False, True),
        ("sandbox-not-running", False, True),
        ("exec-failed", False, False),
        ("cloud-http", False, False),
    ],
)
def test_an_error_of_the_package_says_whether_another_attempt_is_of_use(code: str, permanent: bool, gone: bool) -> None:
    found = trouble(Failure(code), "NET_FAIL")
    assert (found.err_code, found.permanent, found.gone) == ("NET_FAIL", permanent, gone)


def test_it_has_to_be_enabled_and_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SandboxNotConfigured, match=r"^SBX_PROVIDER=microsandbox needs SBX_ALT_PROVIDER_ENABLED=true$"):
        make_sandbox("live", "microsandbox", Path("unused"))
    monkeypatch.setitem(__import__("sys").modules, "microsandbox", None)
    with pytest.raises(SandboxNotConfigured, match="the package microsandbox is not installed"):
        make_sandbox("live", "microsandbox", Path("unused"), alt_provider_enabled=True)


async def test_the_package_itself_does_what_a_sandbox_must_where_its_machines_boot() -> None:
    if importlib.util.find_spec("microsandbox") is None:
        pytest.skip("the package microsandbox is not installed")
    machines = Microsandbox("tests")
    if why := await machines.boot_trouble():
        pytest.skip(why)
    rows = [await examine(remote("microsandbox", machines), case) for case in CASES]
    assert [row for row in rows if row.verdict == "FAIL"] == []

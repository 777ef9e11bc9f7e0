"""Sandboxes of the E2B service, through its unmodified package and real sockets, before a stand-in: what happens when things go wrong."""

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import e2b
import httpx
import pytest

from bin.settings import ROOT
from steps.contracts.sandbox import ErrCode
from steps.sandbox import SandboxNotConfigured, make_sandbox
from steps.sandboxes import guest, remote
from steps.sandboxes.conformance import new_mark, processes_with, request
from steps.sandboxes.e2b import E2B, trouble
from steps.sandboxes.guest import unpacked
from steps.sandboxes.orphans import over
from steps.sandboxes.remote import RemoteSandbox, name_of
from steps.sandboxes.trouble import Trouble
from tests.sandbox.e2b_service import E2BService, e2b_service
from tests.steps.product import product

WAIT_S = 30.0
UNIQUE = "cat /proc/sys/kernel/random/uuid"


@pytest.fixture(scope="module")
def one_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[E2BService]:
    with e2b_service(tmp_path_factory.mktemp("e2b")) as service:
        yield service


@pytest.fixture
def service(one_service: E2BService) -> Iterator[E2BService]:
    """With nothing running at the end that was not left on purpose."""
    yield one_service
    for left in one_service.running():
        httpx.delete(f"{one_service.url}/sandboxes/{left['id']}")


async def until(true: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not await asyncio.to_thread(true):
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.02)


# What is asked of the service ----------------------------------------------------------------------------------------


async def test_a_sandbox_is_made_for_one_command_and_goes_when_its_result_is_safe(service: E2BService) -> None:
    box, before = service.sandbox(), len(service.calls("create"))
    asked = request("echo $TOKEN; echo {} > a.json", env={"TOKEN": "s3cret"}, timeout_ms=7_500)
    result = await box.run(asked, attempt=1, key="task:1:1")
    assert (result.errCode, result.stdout, [file.path for file in result.filesOut]) == ("NONE", "s3cret\n", ["a.json"])
    (made,) = service.calls("create")[before:]
    assert made["key"] == name_of("task:1:1")
    assert made["body"]["metadata"] == {
        "app": "holdfast",
        "env": "tests",
        "name": name_of("task:1:1"),
        "key": "task:1:1",
        "task": "conformance",
    }
    assert made["body"]["timeout"] == 8 + remote.KEEP_S
    assert "s3cret" not in str(made)
    (running,) = service.running()
    assert (result.sandboxRef, running["net"]) == (f"e2b:{running['id']}", False)
    await box.release("task:1:1")
    assert service.running() == []


async def test_a_sandbox_has_a_network_only_if_it_is_asked_for(service: E2BService) -> None:
    result = await service.sandbox().run(request("true", net=True), attempt=1, key="with net")
    assert result.errCode == "NONE"
    assert [one["net"] for one in service.running()] == [True]


async def test_a_template_goes_before_the_environment_of_the_request(service: E2BService) -> None:
    asked = request("true").model_copy(update={"templateId": "tpl_7"})
    await service.sandbox().run(asked, attempt=1, key="hot")
    assert service.calls("create")[-1]["body"]["templateID"] == "tpl_7"
    await service.sandbox().run(request("true"), attempt=1, key="cold")
    assert service.calls("create")[-1]["body"]["templateID"] == "conformance"


async def test_a_folder_with_any_name_is_a_place_to_start(service: E2BService) -> None:
    asked = request("cat 'x y'", files={'it\'s "here" $(date)/x y': "read"}, workdir='/workspace/it\'s "here" $(date)')
    assert (await service.sandbox().run(asked, attempt=1, key="quoted")).stdout == "read"


# What goes wrong -----------------------------------------------------------------------------------------------------


async def test_a_creation_whose_answer_was_lost_is_not_made_twice(service: E2BService) -> None:
    service.fault("create", status=500, after=True)
    result = await service.sandbox().run(request("echo on"), attempt=1, key="lost answer")
    assert (result.errCode, result.stdout) == ("NONE", "on\n")
    assert len(service.running()) == 1


@pytest.mark.parametrize(
    ("op", "err_code"), [("create", "BOOT_FAIL"), ("list", "BOOT_FAIL"), ("write", "UPLOAD_FAIL"), ("read", "DOWNLOAD_FAIL")]
)
async def test_a_service_that_fails_is_worth_another_attempt_and_leaves_no_sandbox(
    service: E2BService, op: str, err_code: ErrCode
) -> None:
    service.fault(op, status=500, times=2)
    result = await service.sandbox().run(request("echo on"), attempt=1, key=f"failing {op}")
    assert (result.errCode, result.exit) == (err_code, 1), result
    assert "ordered to fail" in result.stderr
    assert result.raw is not None
    assert "permanent" not in result.raw
    assert service.running() == []
    service.forget_faults()
    assert (await service.sandbox().run(request("echo on"), attempt=2, key=f"failing {op}:2")).stdout == "on\n"


async def test_what_is_refused_is_not_tried_again(service: E2BService) -> None:
    asked = request("true").model_copy(update={"templateId": "no-such-template"})
    result = await service.sandbox().run(asked, attempt=1, key="no template")
    assert (result.errCode, result.raw) == ("BOOT_FAIL", {"provider": "e2b", "cmd": "true", "permanent": True})
    assert "template 'no-such-template' not found" in result.stderr
    service.fault("list", status=401)
    refused = await service.sandbox().run(request("true"), attempt=1, key="bad key")
    assert refused.raw is not None
    assert refused.raw["permanent"] is True


async def test_output_goes_on_after_the_way_to_it_broke(service: E2BService) -> None:
    service.fault("start", cut=2)
    box, begun = service.sandbox(), len(service.calls("start"))
    result = await box.run(request(f"echo one; sleep 0.3; echo two; sleep 0.3; {UNIQUE} >a.md; echo three"), attempt=1, key="cut")
    assert (result.errCode, result.stdout) == ("NONE", "one\ntwo\nthree\n")
    assert len(result.filesOut) == 1
    assert len(service.calls("start")) - begun == 1, "the command was begun twice"


async def test_a_sandbox_that_vanishes_while_its_command_runs_is_worth_another_attempt(service: E2BService) -> None:
    box, mark = service.sandbox(), new_mark()
    running = asyncio.create_task(box.run(request(f"sleep {mark}"), attempt=1, key="vanishing"))
    await until(lambda: processes_with(mark) != [], "the command did not begin")
    (made,) = service.running()
    await asyncio.to_thread(httpx.delete, f"{service.url}/sandboxes/{made['id']}")
    result = await asyncio.wait_for(running, WAIT_S)
    assert result.errCode == "NET_FAIL"
    assert "SandboxNotRunning" in result.stderr
    assert processes_with(mark) == []


async def test_a_cancel_ends_the_sandbox(service: E2BService) -> None:
    box, mark = service.sandbox(), new_mark()
    running = asyncio.create_task(box.run(request(f"sleep {mark}"), attempt=1, key="canceled"))
    await until(lambda: processes_with(mark) != [], "the command did not begin")
    running.cancel()
    await asyncio.wait([running], timeout=WAIT_S)
    assert running.cancelled()
    assert (service.running(), processes_with(mark)) == ([], [])


async def test_a_cancel_while_the_sandbox_is_made_ends_it_as_soon_as_it_is_there(service: E2BService) -> None:
    box, before = service.sandbox(), len(service.calls("create"))
    service.fault("create", delay=0.5)
    running = asyncio.create_task(box.run(request("true"), attempt=1, key="canceled early"))
    await until(lambda: len(service.calls("create")) > before, "it was not asked for")
    ends = len(service.calls("kill"))
    running.cancel()
    await asyncio.wait([running], timeout=WAIT_S)
    assert running.cancelled()
    await until(lambda: len(service.calls("kill")) > ends, "it was not ended")
    assert service.running() == []


async def test_a_command_that_holds_its_output_open_ends_in_time(service: E2BService) -> None:
    """What it left behind has none of its environment, so it is not found; it goes with the sandbox."""
    begun = time.monotonic()
    mark = new_mark()
    box = service.sandbox()
    result = await box.run(request(f"(env -i setsid sleep {mark} &); echo done"), attempt=1, key="held open")
    assert (result.errCode, result.stdout) == ("NONE", "done\n")
    assert time.monotonic() - begun < 12
    await box.release("held open")
    assert processes_with(mark) == []


@pytest.mark.parametrize("junk", [b"", b"x" * 10_000, guest.packed(request("true"), {}, 1.0)])
def test_a_record_that_the_command_replaced_is_trouble_and_nothing_else(junk: bytes) -> None:
    with pytest.raises(Trouble, match="cannot be read"):
        unpacked(junk, {})


# Workers that die, and what they leave -------------------------------------------------------------------------------


@contextmanager
def worker(service: E2BService, key: str, cmd: str, *options: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that runs the command; killed at the end."""
    arguments = [sys.executable, "-P", "-m", "tests.sandbox.lonely_worker", service.url, key, cmd, *options]
    with subprocess.Popen(
        arguments, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, text=True
    ) as it:
        try:
            yield it
        finally:
            it.kill()


async def test_a_command_that_outlives_its_worker_is_waited_for_and_not_run_again(service: E2BService) -> None:
    mark, begun = new_mark(), len(service.calls("start"))
    with worker(service, "k1", f"{UNIQUE}; : {mark}; sleep 1; {UNIQUE} > a.md") as dying:
        await until(lambda: running_in(mark) != [], "the command did not begin")
        dying.kill()
    asked = request(f"{UNIQUE}; : {mark}; sleep 1; {UNIQUE} > a.md")
    result = await service.sandbox().run(asked, attempt=1, key="k1")
    assert (result.errCode, len(result.stdout), len(result.filesOut)) == ("NONE", 37, 1)
    assert len(service.calls("start")) - begun == 1
    assert len(service.running()) == 1


async def test_a_command_whose_end_was_recorded_is_not_run_again(service: E2BService) -> None:
    begun = len(service.calls("start"))
    with worker(service, "k2", UNIQUE, "die-before-telling") as dying:
        assert await asyncio.to_thread(dying.wait, WAIT_S) == 9
    first = await service.sandbox().run(request(UNIQUE), attempt=1, key="k2")
    assert await service.sandbox().run(request(UNIQUE), attempt=1, key="k2") == first
    assert len(service.calls("start")) - begun == 1
    box = service.sandbox()  # another worker than the one that ran it
    await box.release("k2")
    assert service.running() == []


async def test_two_workers_that_meet_begin_a_command_once(service: E2BService) -> None:
    asked = request(f"echo once >> ran.md; {UNIQUE}; sleep 0.3; cat ran.md")
    first, second = await asyncio.gather(*(service.sandbox().run(asked, attempt=1, key="met") for _ in range(2)))
    assert (first.errCode, second.errCode) == ("NONE", "NONE"), (first.stderr, second.stderr)
    assert first.stdout == second.stdout
    assert first.stdout.splitlines()[1:] == ["once"]
    assert len(service.running()) == 1


def running_in(mark: str) -> list[int]:
    return [pid for pid in processes_with(mark) if b"lonely_worker" not in Path(f"/proc/{pid}/cmdline").read_bytes()]


async def test_orphans_are_found_by_whose_they_are_and_ended(service: E2BService) -> None:
    asked: list[list[str]] = []

    async def some(keys: Sequence[str]) -> set[str]:
        asked.append(sorted(keys))
        return {key for key in keys if "over" in key}

    for key in ("over:1:1", "goes on:1:1"):
        assert (await service.sandbox().run(request("true"), attempt=1, key=key)).errCode == "NONE"
    stranger = RemoteSandbox(service.machines(env="another"))
    await stranger.run(request("true"), attempt=1, key="over for them:1:1")
    assert await service.sandbox(over=some).reap() == 1
    assert asked == [["goes on:1:1", "over:1:1"]]
    assert sorted(one["metadata"]["key"] for one in service.running()) == ["goes on:1:1", "over for them:1:1"]


async def test_a_task_is_over_when_its_workflow_is(database: str, tmp_path: Path) -> None:
    statuses = {"done": "SUCCESS", "failed": "ERROR", "stopped": "CANCELLED", "at work": "PENDING", "a:b": "SUCCESS"}
    async with product(database, tmp_path) as it:
        async with it.engine.transaction() as conn:
            for id, status in statuses.items():
                await conn.execute("insert into dbos.workflow_status (workflow_uuid, status) values (%s, %s)", (id, status))
        keys = ["done:1:1", "failed:1:3", "stopped:2:1", "at work:1:1", "a:b:1:1", "a:1:1", "unknown:1:1", "no key"]
        assert await over(keys) == {"done:1:1", "failed:1:3", "stopped:2:1", "a:b:1:1"}
        assert await over([]) == set()


async def test_a_sandbox_that_nobody_comes_back_for_ends_by_itself(service: E2BService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "KEEP_S", 1)
    await service.sandbox().run(request("true", timeout_ms=1000), attempt=1, key="left")
    assert len(service.running()) == 1
    await until(lambda: service.running() == [], "it did not end")


# The errors of the package -------------------------------------------------------------------------------------------


def with_status(status: int) -> e2b.SandboxException:
    return e2b.SandboxException(f"{status}: no", status_code=status)


@pytest.mark.parametrize(
    ("error", "permanent", "gone"),
    [
        (e2b.AuthenticationException("no"), True, False),
        (e2b.InvalidArgumentException("cwd"), True, False),
        (with_status(400), True, False),
        (with_status(403), True, False),
        (with_status(404), True, False),
        (with_status(409), False, False),
        (with_status(500), False, False),
        (with_status(504), False, False),
        (e2b.SandboxException("disk full"), False, False),
        (e2b.RateLimitException("slow down"), False, False),
        (e2b.exceptions.ServiceBusyException("busy"), False, False),
        (e2b.SandboxNotRunningException("gone"), False, True),
        (e2b.SandboxNotFoundException("gone"), False, True),
        (e2b.SandboxUnreachableException("where"), False, False),
        (e2b.TimeoutException("late"), False, False),
        (e2b.NotEnoughSpaceException("full"), False, True),
        (httpx.ReadTimeout("late"), False, False),
        (Exception("Command ended without an end event"), False, False),
    ],
    ids=lambda value: (
        f"{type(value).__name__}{getattr(value, 'status_code', None) or ''}" if isinstance(value, Exception) else ""
    ),
)
@pytest.mark.parametrize("doing", ["BOOT_FAIL", "UPLOAD_FAIL", "NET_FAIL", "DOWNLOAD_FAIL"])
def test_an_error_of_the_package_says_whether_another_attempt_is_of_use(
    error: Exception, doing: ErrCode, permanent: bool, gone: bool
) -> None:
    found = trouble(error, doing)
    assert (found.err_code, found.permanent, found.gone) == (doing, permanent, gone)
    assert type(error).__name__ in str(found)


def test_without_a_key_or_without_the_package_the_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SandboxNotConfigured, match=r"^SBX_PROVIDER=e2b: E2B_API_KEY is not set$"):
        make_sandbox("live", "e2b", Path("unused"))
    monkeypatch.setitem(sys.modules, "e2b", None)
    with pytest.raises(
        SandboxNotConfigured, match=r"^SBX_PROVIDER=e2b: the package e2b is not installed; install requirements-e2b"
    ):
        E2B("k", "tests")

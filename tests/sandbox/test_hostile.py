"""Commands that mean harm, in the sandbox of this machine, held by control groups and by watching: each is contained."""

import asyncio
import os
import resource
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from steps.sandboxes import bubblewrap
from steps.sandboxes.conformance import REAL, Subject, new_mark, processes_with
from steps.sandboxes.limits import MAX_PROCESSES
from tests.sandbox.subjects import subject

MB = 1 << 20


@pytest.fixture(params=["local", "local-watching"])
def box(request: pytest.FixtureRequest, tmp_path: Path) -> Subject:
    return subject(request.param, tmp_path)


async def test_a_fork_bomb_stays_small_and_ends(box: Subject) -> None:
    mark = new_mark()
    bomb = f"for i in $(seq 1000); do sleep {mark} & done 2>/dev/null; sleep 5"  # no more than that, should nothing hold it
    running = asyncio.create_task(box.run(bomb, timeout_ms=1200))
    most = 0
    while not running.done():
        most = max(most, len(processes_with(mark)))
        await asyncio.sleep(0.05)
    result = await running
    assert result.errCode in ("TIMEOUT", "CMD_NONZERO", "OOM")
    assert 20 < most <= MAX_PROCESSES + 1  # bubblewrap itself has the mark too
    assert processes_with(mark) == []


async def test_endless_output_fills_neither_memory_nor_disk_and_leaves_the_worker_free(box: Subject, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    gaps = [0.0]

    async def be_free() -> None:
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.01)
            gaps.append(time.monotonic() - begun)

    free = asyncio.create_task(be_free())
    result = await box.run("dd if=/dev/zero bs=1M count=10240", timeout_ms=1500)
    free.cancel()
    assert result.raw is not None
    assert result.raw["cut"]["stdout"] > 200 * MB
    assert len(result.stdout) <= 1_000_100
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40 * 1024
    assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 10 * MB
    assert max(gaps) < 0.3


@pytest.mark.slow
async def test_ten_gigabytes_of_output_are_all_drained(box: Subject) -> None:
    result = await box.run("dd if=/dev/zero bs=1M count=10240 2>/dev/null", timeout_ms=120_000)
    assert (result.errCode, result.raw is not None and result.raw["cut"]["stdout"]) == ("NONE", 10240 * MB - 1_000_000)


async def test_a_full_disk_is_the_sandbox_s_own(box: Subject) -> None:
    fill = "for to in /workspace/f /tmp/f /dev/shm/f; do dd if=/dev/zero of=$to bs=1M count=400 2>&1 | grep -o 'No space.*'; done"
    elsewhere = "for to in / /dev /usr /usr/bin /etc /proc /bin; do touch $to/f 2>/dev/null && echo wrote to $to; done; true"
    result = await box.run(f"{fill}; {elsewhere}", memory_mb=1024)
    assert (result.errCode, result.stdout) == ("NONE", "No space left on device\n" * 3), result
    starved = await box.run(fill, memory_mb=64)
    assert starved.errCode in ("OOM", "CMD_NONZERO", "NONE")
    assert starved.metrics.memPeakMB < 64 + 400


async def test_many_empty_files_count_as_memory(box: Subject) -> None:
    result = await box.run("i=0; while :; do : > f$((i++)); done", memory_mb=24, timeout_ms=2500)
    assert result.errCode in ("OOM", "TIMEOUT")
    assert result.metrics.memPeakMB < 100


@contextmanager
def listening() -> Iterator[tuple[int, str]]:
    """Somebody who says hello to whoever connects: on a port of the loopback and on an abstract address."""
    port, name = socket.create_server(("127.0.0.1", 0)), f"holdfast-{os.getpid()}"
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0{name}")
    abstract.listen()

    def greet(listener: socket.socket) -> None:
        while True:
            try:
                with listener.accept()[0] as visitor:
                    visitor.sendall(b"hello")
            except OSError:
                return

    for listener in (port, abstract):
        threading.Thread(target=greet, args=(listener,), daemon=True).start()
    try:
        yield port.getsockname()[1], name
    finally:
        for listener in (port, abstract):
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()


async def test_there_is_no_network_unless_it_was_asked_for(box: Subject) -> None:
    with listening() as (port, name):
        knock = f"timeout 2 head -c 5 </dev/tcp/127.0.0.1/{port}; grep -c @{name} /proc/net/unix; grep -c : /proc/net/dev"
        without = await box.run(knock)
        assert without.stdout == "0\n1\n", "only a loopback of its own"
        lookup = await box.run("timeout 2 head -c 1 </dev/tcp/192.0.2.1/80 || echo unreachable")
        assert lookup.stdout == "unreachable\n"
        assert (await box.run(knock, net=True)).stdout.startswith("hello1\n")


@pytest.mark.parametrize("path", ["../x", "/etc/x", "a/../../x", "a/./../../../x", "..", "/", "x\0y"])
async def test_an_input_file_cannot_be_put_outside(box: Subject, path: str) -> None:
    result = await box.run("ls -R /", files={path: "x"})
    assert (result.errCode, result.stdout) == ("UPLOAD_FAIL", ""), result


async def test_links_lead_to_nothing_that_is_collected(box: Subject, tmp_path: Path) -> None:
    (tmp_path / "secret.json").write_text('"worker"')
    links = [
        f"ln -s {tmp_path}/secret.json a.json",
        f"ln -s {tmp_path} folder",
        "ln -s /etc/passwd b.md",
        "ln -s / root",
        "ln -s . loop",
        "mkfifo c.json",
        "mkdir d.json && echo 1 > d.json/e.json",
        "ln -s ../../../../../../proc/self/environ f.json",
        "echo 1 > f.patch && ln f.patch g.patch && chmod 000 g.patch",
        "head -c 3000000 /dev/zero > h.json",
        "truncate -s 200M i.json",
        "printf '\\377' > j.json",
        "touch $'k\\n.json' $'k\\377.json'",
    ]
    result = await box.run("; ".join(links))
    assert result.errCode == "NONE", result
    found = {file.path for file in result.filesOut}
    assert "d.json/e.json" in found
    assert found <= {"d.json/e.json", "f.patch", "g.patch"}  # the last two are readable for root alone
    assert result.raw is not None
    assert {"a.json", "b.md", "c.json", "f.json", "h.json", "i.json", "j.json"} <= result.raw["skipped"].keys()


async def test_what_is_collected_is_bounded(box: Subject) -> None:
    result = await box.run("for i in $(seq 150); do echo $i > $i.json; done; mkdir -p $(printf 'd/%.0s' $(seq 60)); ls | wc -l")
    assert (result.errCode, len(result.filesOut)) == ("NONE", 100)
    many = await box.run("for i in $(seq 9); do head -c 900000 /dev/zero | tr '\\0' x > $i.md; done")
    assert sum(len(file.inline or "") for file in many.filesOut) <= 4_000_000


async def test_nothing_of_the_machine_is_seen_but_its_programs(box: Subject, tmp_path: Path) -> None:
    os.environ["SANDBOX_TEST_SECRET"] = "kept"
    try:
        result = await box.run(
            "env | cut -d= -f1 | sort | tr '\\n' ' '; ls /; ls /etc; ls /proc | grep -c '^[0-9]'; cat /proc/1/environ | tr '\\0' '\\n'",
            env={"GIVEN": "x"},
        )
    finally:
        del os.environ["SANDBOX_TEST_SECRET"]
    names, *rest = result.stdout.split(" \n" if " \n" in result.stdout else " bin\n", 1)
    assert set(names.split()) <= {"GIVEN", "HOME", "LANG", "PATH", "PWD", "SHLVL", "_", "OLDPWD"}, result.stdout
    assert "SECRET" not in result.stdout
    assert not {"home", "root", "var", "run", "sys", "work"} & set("".join(rest).split())
    hidden = await box.run(f"cat {tmp_path}/* /etc/shadow /proc/1/root/etc/shadow; ls /root /home; echo seen")
    assert hidden.stdout == "seen\n"


async def test_variables_stand_in_no_command_line_and_slip_no_option_in(box: Subject) -> None:
    mark = new_mark()
    running = asyncio.create_task(box.run("sleep 0.4; echo $TOKEN", env={"TOKEN": mark}))
    seen: list[int] = []
    while not running.done():
        seen += processes_with(mark)
        await asyncio.sleep(0.02)
    assert (await running).stdout == f"{mark}\n"
    assert seen == []
    for env in ({"A": "x\0--bind\0/\0/host"}, {"A=B": "x"}, {"A;touch x": ""}, {"": "x"}, {"A": "x" * 60_000}):
        assert (await box.run("ls /", env=env)).errCode == "BOOT_FAIL", env
    assert (await box.run("ls /\0--bind")).errCode == "BOOT_FAIL"
    for place in ("/etc", "/workspace/../etc", "../x", "/workspacex"):
        assert (await box.run("pwd", workdir=place)).errCode == "BOOT_FAIL", place


async def test_nobody_becomes_somebody(box: Subject) -> None:
    result = await box.run(
        "cp /bin/bash mine; chmod 6755 mine; ./mine -p -c 'id -u'; for p in su mount passwd; do $p -h >/dev/null 2>&1; done;"
        " grep -E '^(CapEff|CapPrm|CapBnd|NoNewPrivs)' /proc/self/status | tr -s '\\t' ' ';"
        " unshare -Ur id -u 2>/dev/null || echo no namespace; mount -t tmpfs none /tmp 2>/dev/null || echo no mount;"
        " mknod x b 7 0 2>/dev/null || echo no device; renice -n -5 $$ 2>/dev/null || echo no haste; id -u"
    )
    nothing = "0" * 16
    assert result.stdout.splitlines() == [
        "65534",
        f"CapPrm: {nothing}",
        f"CapEff: {nothing}",
        f"CapBnd: {nothing}",
        "NoNewPrivs: 1",
        "no namespace",
        "no mount",
        "no device",
        "no haste",
        "65534",
    ]


async def test_killing_everybody_kills_only_itself(box: Subject) -> None:
    mark = new_mark()
    result = await box.run(f"sleep {mark} & kill -9 1; kill -9 -1; echo alone", timeout_ms=5000)
    assert (result.exit, result.stdout) == (0, "alone\n")
    assert processes_with(mark) == []


async def test_nothing_stays_open_in_the_worker(box: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    await box.run("true")
    before = sorted(os.listdir("/proc/self/fd"))
    for cmd in ("true", "exit 1", "sleep 9", REAL.not_boot):
        await box.run(cmd, timeout_ms=100)
    await box.run("true", files={"../x": ""})
    with monkeypatch.context() as patch:
        patch.setattr(bubblewrap, "SEALED", ["--ro-bind", "/nowhere", "/x"])
        assert "Can't find source path /nowhere" in (await box.run("true")).stderr
    running = asyncio.create_task(box.run("sleep 9"))
    await asyncio.sleep(0.1)
    running.cancel()
    await asyncio.wait([running])
    assert sorted(os.listdir("/proc/self/fd")) == before
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    assert [pid for pid in children if "bwrap" in Path(f"/proc/{pid}/comm").read_text()] == []

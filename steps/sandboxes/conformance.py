"""What every sandbox must do, as a list of cases that can be held against any provider: by a test, and by `bin/sbx-conformance`.

A provider is described by a `Subject`. A case that needs what the provider has not is not applicable, which is not a failure.
"""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

from steps.contracts.base import parse
from steps.contracts.sandbox import RETRYABLE, FileIn, SBXLimits, SBXReq, SBXRes
from steps.documents import compact
from steps.sandbox import Holding, OnOutput, Sandbox

Feature = Literal["commands", "streams", "memory", "leftovers"]
Verdict = Literal["pass", "FAIL", "n/a"]


class Words(NamedTuple):
    """Commands with a known end: success that prints, exit 3, too long, and one for which there is no sandbox."""

    succeed: str
    fail: str
    take_too_long: str
    not_boot: str


REAL = Words("echo it went well", "echo it went badly >&2; exit 3", "sleep 30", ":" + " x" * 100_000)
REHEARSED = Words("it went well", "FAIL_ME", "TIMEOUT_ME", "INFRA_FAIL")


@dataclass(frozen=True, slots=True)
class Subject:
    """A provider under examination. features: `commands` (runs them really), `streams` (tells while it runs), `memory` (holds to a
    limit, and tells how much was used), `leftovers` (its processes can be looked for from here).
    """

    name: str
    sandbox: Sandbox
    words: Words
    features: frozenset[Feature]

    async def run(self, cmd: str, *, key: str | None = None, on_output: OnOutput | None = None, **fields: Any) -> SBXRes:
        """The result of a command, under a key of its own, which is then released, unless one is given. It is checked to be what the
        wire carries.
        """
        under = key or uuid.uuid4().hex
        try:
            result = await self.sandbox.run(request(cmd, **fields), attempt=1, key=under, on_output=on_output)
        finally:
            if key is None:
                await self.release(under)
        assert parse(SBXRes, compact(result)) == result
        assert result.taskKey == "conformance"
        return result

    async def release(self, key: str) -> None:
        if isinstance(self.sandbox, Holding):
            await self.sandbox.release(key)


def request(
    cmd: str,
    *,
    timeout_ms: int = 20_000,
    files: Mapping[str, str] | None = None,
    env: Mapping[str, str] | None = None,
    memory_mb: int = 256,
    workdir: str | None = None,
    net: bool = False,
) -> SBXReq:
    return SBXReq(
        envRef="conformance",
        cmd=cmd,
        filesIn=[FileIn(path=path, inline=text) for path, text in (files or {}).items()],
        env=dict(env or {}),
        timeoutMs=timeout_ms,
        limits=SBXLimits(cpu=1, memMB=memory_mb),
        net=net,
        taskKey="conformance",
        workdir=workdir,
    )


# The cases -----------------------------------------------------------------------------------------------------------


async def success(of: Subject) -> None:
    result = await of.run(of.words.succeed)
    assert (result.exit, result.errCode) == (0, "NONE"), result
    assert "it went well" in result.stdout
    assert result.metrics.bootMs is not None


async def failure(of: Subject) -> None:
    result = await of.run(of.words.fail)
    assert result.errCode == "CMD_NONZERO", result
    assert result.exit == (3 if "commands" in of.features else 1)
    assert result.stderr


async def a_missing_program(of: Subject) -> None:
    result = await of.run("no-such-program --version")
    assert (result.exit, result.errCode) == (127, "CMD_NONZERO"), result


async def death_by_signal(of: Subject) -> None:
    result = await of.run("kill -9 $$")
    assert (result.exit, result.errCode) == (137, "CMD_NONZERO"), result


async def timeout(of: Subject) -> None:
    begun = time.monotonic()
    result = await of.run(of.words.take_too_long, timeout_ms=300)
    assert (result.exit, result.errCode) == (124, "TIMEOUT"), result
    assert time.monotonic() - begun < 5


async def no_sandbox(of: Subject) -> None:
    result = await of.run(of.words.not_boot)
    assert result.errCode == "BOOT_FAIL", result.errCode
    assert result.errCode in RETRYABLE
    assert result.stderr


async def environment(of: Subject) -> None:
    given = {"PLAIN": "a b", "QUOTED": 'it\'s "$HOME" `id` \\ \n2', "EMPTY": "", "UMLAUT": "grün"}
    result = await of.run(r"""printf '%s|%s|%s|%s|' "$PLAIN" "$QUOTED" "$EMPTY" "$UMLAUT"; test -n "$HOME$PATH" """, env=given)
    assert result.stdout == "".join(f"{value}|" for value in given.values()), result


async def files_in(of: Subject) -> None:
    result = await of.run("cat a.txt b/c/d.json", files={"a.txt": "grün\n", "b/c/d.json": '{"x": 1}\n'})
    assert result.stdout == 'grün\n{"x": 1}\n', result
    assert result.filesOut == [], "what was put in comes back unchanged"


async def files_out(of: Subject) -> None:
    result = await of.run(
        "mkdir -p r; echo {} >r/out.json; echo '# grün' >note.md; echo + >x.patch; echo no >a.txt; echo 2 >old.json",
        files={"old.json": "1\n"},
    )
    assert {file.path: file.inline for file in result.filesOut} == {
        "note.md": "# grün\n",
        "old.json": "2\n",
        "r/out.json": "{}\n",
        "x.patch": "+\n",
    }, result


async def the_working_folder(of: Subject) -> None:
    assert (await of.run("pwd; cat ../a.txt", workdir="sub/folder", files={"sub/a.txt": "a"})).stdout.endswith("/sub/folder\na")
    assert (await of.run("touch here && ls")).stdout == "here\n"


async def closed_input(of: Subject) -> None:
    assert (await of.run("cat; read -r line; echo $?", timeout_ms=5000)).stdout == "1\n"


async def big_output(of: Subject) -> None:
    result = await of.run("head -c 50000000 /dev/zero | tr '\\0' x; echo to the end >&2")
    assert (result.errCode, result.stderr) == ("NONE", "to the end\n"), result.errCode
    assert result.stdout.startswith("x" * 100_000)
    assert "cut" in result.stdout[-100:]
    assert len(result.stdout) < 5_000_000


async def any_output(of: Subject) -> None:
    result = await of.run(r"printf 'grün 🌱 \377\000 end'; printf 'e\000' >&2")
    assert result.stdout == "grün 🌱 \ufffd\ufffd end", result
    assert result.stderr == "e\ufffd"


async def streams(of: Subject) -> None:
    told: list[tuple[float, str, str]] = []

    async def tell(kind: str, text: str) -> None:
        told.append((time.monotonic(), kind, text))

    result = await of.run("printf 'gr\\303'; sleep 0.7; printf '\\274n'; echo two >&2; sleep 0.1", on_output=tell)
    ended = time.monotonic()
    assert "".join(text for _, kind, text in told if kind == "stdout") == result.stdout == "grün"
    assert "".join(text for _, kind, text in told if kind == "stderr") == result.stderr == "two\n"
    assert told[0][0] < ended - 0.3, "nothing was told while the command ran"


async def a_deaf_listener(of: Subject) -> None:
    async def refuse(_kind: str, _text: str) -> None:
        raise ConnectionError("nobody listens")

    assert (await of.run("echo one; sleep 0.4; echo two", on_output=refuse)).stdout == "one\ntwo\n"


async def the_same_key(of: Subject) -> None:
    key = uuid.uuid4().hex
    cmd = "date +%N; cat /proc/sys/kernel/random/uuid; exit 4" if "commands" in of.features else of.words.succeed
    first = await of.run(cmd, key=key)
    assert await of.run(cmd, key=key) == first
    assert first.metrics.wallMs > 0
    await of.release(key)
    await of.release(key)


async def many_at_once(of: Subject) -> None:
    cmd = "echo $$; sleep 0.1" if "commands" in of.features else of.words.succeed
    results = await asyncio.gather(*(of.run(cmd) for _ in range(8)))
    assert {result.errCode for result in results} == {"NONE"}


async def a_cancel(of: Subject) -> None:
    mark = new_mark()
    begun = asyncio.Event()

    async def tell(_kind: str, _text: str) -> None:
        begun.set()

    running = asyncio.create_task(of.run(f"echo on; sleep {mark} & sleep {mark}", on_output=tell))
    await asyncio.wait_for(begun.wait(), 5)
    assert processes_with(mark) != []
    running.cancel()
    await asyncio.wait([running], timeout=5)
    assert running.cancelled()
    assert processes_with(mark) == []


async def the_children(of: Subject) -> None:
    mark = new_mark()
    result = await of.run(f"setsid sleep {mark} & (nohup sleep {mark} &) & disown -a; sleep 0.1; echo done", timeout_ms=5000)
    assert (result.errCode, result.stdout) == ("NONE", "done\n"), result
    assert processes_with(mark) == []


async def out_of_memory(of: Subject) -> None:
    result = await of.run("x=$(head -c 400000000 /dev/zero | tr '\\0' x); echo ${#x}", memory_mb=64)
    assert (result.exit, result.errCode) == (137, "OOM"), result


async def metrics(of: Subject) -> None:
    busy = "end=$((SECONDS + 1)); x=$(head -c 20000000 /dev/zero | tr '\\0' x); while ((SECONDS < end)); do :; done; sleep 0.2"
    used = (await of.run(busy)).metrics
    assert 200 < used.wallMs < 10_000, used
    assert 20 < used.cpuMs < used.wallMs + 500, used
    assert 15 < used.memPeakMB < 250 if "memory" in of.features else used.memPeakMB == 0, used


class Case(NamedTuple):
    name: str
    check: Callable[[Subject], Awaitable[None]]
    needs: frozenset[Feature] = frozenset({"commands"})


ANY: frozenset[Feature] = frozenset()
CASES: Sequence[Case] = (
    Case("success", success, ANY),
    Case("exit code other than 0", failure, ANY),
    Case("program that is not there", a_missing_program),
    Case("killed by a signal", death_by_signal),
    Case("timeout", timeout, ANY),
    Case("no sandbox", no_sandbox, ANY),
    Case("environment", environment),
    Case("files in", files_in),
    Case("files out", files_out),
    Case("working folder", the_working_folder),
    Case("standard input is closed", closed_input),
    Case("big output is cut", big_output),
    Case("output of any bytes", any_output),
    Case("output while it runs", streams, frozenset({"commands", "streams"})),
    Case("a listener that fails", a_deaf_listener, frozenset({"commands", "streams"})),
    Case("same key, same result", the_same_key, ANY),
    Case("many at once", many_at_once, ANY),
    Case("cancel ends the command", a_cancel, frozenset({"commands", "streams", "leftovers"})),
    Case("children end with it", the_children, frozenset({"commands", "leftovers"})),
    Case("out of memory", out_of_memory, frozenset({"commands", "memory"})),
    Case("metrics", metrics),
)


class Row(NamedTuple):
    case: str
    verdict: Verdict
    reason: str
    ms: float


async def examine(subject: Subject, case: Case) -> Row:
    """Hold one case against one provider."""
    missing = sorted(case.needs - subject.features)
    if missing:
        return Row(case.name, "n/a", f"has no {', '.join(missing)}", 0)
    begun = time.monotonic()
    try:
        await case.check(subject)
    except Exception as error:
        return Row(case.name, "FAIL", f"{type(error).__name__}: {error}", (time.monotonic() - begun) * 1000)
    return Row(case.name, "pass", "", (time.monotonic() - begun) * 1000)


def new_mark() -> str:
    """A number of seconds that no other command sleeps for."""
    return f"9{uuid.uuid4().int % 10**12}"


def processes_with(mark: str) -> list[int]:
    """Processes of this machine whose command line has the mark."""
    pids = [int(folder.name) for folder in Path("/proc").iterdir() if folder.name.isdecimal()]
    return [pid for pid in pids if mark.encode() in command_line(pid)]


def command_line(pid: int) -> bytes:
    """The process's arguments, each with a NUL at its end; nothing if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""

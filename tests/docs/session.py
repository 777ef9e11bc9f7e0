"""Carries out the blocks of one page, in order, as a reader at a terminal would.

Shell blocks share one bash, Python blocks one module (with `await` at the top level, as in `python -m asyncio`), SQL blocks go to
`bin/psql-app`. All of it happens in a folder of its own, whose `bin/` and `.venv/bin/python` run this checkout's modules with the
interpreter of the tests, so that a page's commands can be copied as they stand. Two addresses are exchanged: the ports that a page
takes for granted, and the database of its Python examples.
"""

import ast
import asyncio
import contextlib
import inspect
import os
import re
import shlex
import signal
import sys
import types
from collections.abc import Callable, Mapping
from pathlib import Path

from tests.docs.pages import ROOT, Block

PATIENCE_S = 60.0
SLOW_PATIENCE_S = 200.0  # for a block that says that it is slow
STUB = re.compile(r"bootstrap\"(?: --dev)? bin\.commands\.(?P<module>\w+) ")
ANYTHING = "…"
SQL_SHELL = "bin/psql-app -v ON_ERROR_STOP=1 <<'SQL'\n{}\nSQL"


class BlockFailed(AssertionError):
    """A block of a page did not do what a reader would expect; says where, and what it printed."""


def make_checkout(folder: Path) -> None:
    """A folder in which the commands of this checkout can be typed."""
    (folder / "bin").mkdir(parents=True)
    for stub in (ROOT / "bin").iterdir():
        if stub.is_file() and (found := STUB.search(stub.read_text())) and (ROOT / f"bin/commands/{found['module']}.py").exists():
            program(folder / "bin" / stub.name, f"-P -m bin.commands.{found['module']}")
    (folder / ".venv/bin").mkdir(parents=True)
    program(folder / ".venv/bin/python", "")


def program(path: Path, arguments: str) -> None:
    path.write_text(f'#!/bin/sh\nPYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} {arguments} "$@"\n')
    path.chmod(0o755)


def clean_environment(folder: Path, **more: str) -> dict[str, str]:
    """The caller's environment without what would lead commands elsewhere."""
    astray = (
        "DATABASE_URL",
        "DB_",
        "APP_DB_NAME",
        "PG",
        "OC_",
        "SBX_",
        "INTENT_QUEUE_",
        "DBOS_",
        "HITL_",
        "K6_",
        "PORT",
        "ADMIN_PORT",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(astray) or name == "PG_BINDIR"}
    return {**kept, "STATE_DIR": str(folder / ".state"), "PYTHONDONTWRITEBYTECODE": "", **more}


class Session:
    """One reader, in one folder."""

    def __init__(self, folder: Path, environ: Mapping[str, str], exchanged: Mapping[str, str]) -> None:
        self._folder = folder
        self._environ = dict(environ)
        self._exchanged = exchanged  # what the page says -> what it is here
        self._bash: asyncio.subprocess.Process | None = None
        self._module = types.ModuleType(f"page_{id(self)}")
        self._printed = ""
        self._count = 0

    async def __aenter__(self) -> "Session":
        sys.modules[self._module.__name__] = self._module
        self._bash = await asyncio.create_subprocess_exec(
            "bash", "--norc",
            cwd=self._folder, env=self._environ,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        await self._say("set -eo pipefail")
        return self

    async def __aexit__(self, *_: object) -> None:
        del sys.modules[self._module.__name__]
        assert self._bash is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)  # with what it left in the background
        await self._bash.communicate()

    async def carry_out(self, block: Block) -> None:
        """Raises BlockFailed."""
        if block.is_output:
            self._compare(block)
            return
        if not block.runs:
            return
        patience_s = PATIENCE_S if block.slow is None else SLOW_PATIENCE_S
        try:
            async with asyncio.timeout(patience_s):
                match block.language:
                    case "python":
                        self._printed = await self._run_python(block)
                    case "sql":
                        self._printed = await self._run_shell(block, SQL_SHELL.format(block.text))
                    case _:
                        self._printed = await self._run_shell(block, block.text)
        except TimeoutError:
            raise BlockFailed(f"{block.place} was not done after {patience_s:.0f} s") from None

    # -- shell --------------------------------------------------------------------------------------------------------

    async def _say(self, line: str) -> None:
        assert self._bash is not None
        assert self._bash.stdin is not None
        self._bash.stdin.write(f"{line}\n".encode())
        await self._bash.stdin.drain()

    async def _run_shell(self, block: Block, text: str) -> str:
        """What the block printed. The shell ends with the first command that fails, and then this says so."""
        assert self._bash is not None
        assert self._bash.stdout is not None
        self._count += 1
        script = self._folder / f".block-{self._count}.sh"
        script.write_text(self.in_shell(text) + "\n")
        end = f"-- end of block {self._count} --"
        await self._say(f"source ./{script.name} </dev/null; echo; echo '{end}'")
        seen: list[str] = []
        try:
            while line := (await self._bash.stdout.readline()).decode(errors="replace"):
                if line.rstrip("\n") == end:
                    return "".join(seen)
                seen.append(line)
        except asyncio.CancelledError:
            print(f"{block.place} printed so far:\n{''.join(seen)}")
            raise
        raise BlockFailed(f"{block.place} failed; it printed:\n{''.join(seen)}")

    # -- Python -------------------------------------------------------------------------------------------------------

    async def _run_python(self, block: Block) -> str:
        text = "\n" * block.line + self._here(block.text, str)
        code = compile(text, str(block.page), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
        printed: list[str] = []

        def note(*values: object, sep: str = " ", end: str = "\n", **_: object) -> None:
            printed.append(sep.join(map(str, values)) + end)

        names = self._module.__dict__
        names["print"] = note
        try:
            if code.co_flags & inspect.CO_COROUTINE:
                await types.FunctionType(code, names)()
            else:
                await asyncio.to_thread(exec, code, names)  # it may have an event loop of its own
        except Exception as error:
            raise BlockFailed(f"{block.place} raised {type(error).__name__}: {error}") from error
        return "".join(printed)

    # -- both ---------------------------------------------------------------------------------------------------------

    def in_shell(self, text: str) -> str:
        """A shell command of the page with the addresses that are right here."""
        return self._here(text, shlex.quote)

    def _here(self, text: str, written: Callable[[str], str]) -> str:
        for said, here in self._exchanged.items():
            text = text.replace(said, written(here))
        return text

    def _compare(self, block: Block) -> None:
        wanted = ".*".join(re.escape(part) for part in block.text.split(ANYTHING))
        printed = self._there(self._printed)
        if not re.fullmatch(wanted, printed.strip(), re.DOTALL):
            raise BlockFailed(f"{block.place} shows another output than the block before it printed:\n{printed}")

    def _there(self, text: str) -> str:
        for said, here in self._exchanged.items():
            text = text.replace(here, said)
        return text

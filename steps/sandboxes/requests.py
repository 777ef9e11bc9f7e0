"""What a request must be to be carried out, whoever carries it out, and its input files."""

import re
from collections.abc import Awaitable, Callable

from engine import TerminalError
from steps import workspace
from steps.contracts.sandbox import FileIn, SBXReq
from steps.sandboxes.trouble import Trouble

WORKSPACE = "/workspace"
MAX_FILES_IN = 256
MAX_BYTES_IN = 16 << 20
MAX_ENV_BYTES = 48_000
MAX_COMMAND_BYTES = (128 << 10) - 1  # what Linux takes as one argument
VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

#: Gives the text behind an `artifact://` address, or raises LookupError.
ReadArtifact = Callable[[str], Awaitable[str]]


def checked(request: SBXReq) -> None:
    """Raises Trouble for a request that cannot be carried out as it stands."""
    for name, value in request.env.items():
        if not VARIABLE.fullmatch(name) or "\x00" in value:
            raise Trouble("BOOT_FAIL", f"the variable {name!r} cannot be set")
    if sum(len(name) + len(value.encode()) for name, value in request.env.items()) > MAX_ENV_BYTES:
        raise Trouble("BOOT_FAIL", f"the environment has more than {MAX_ENV_BYTES} bytes")
    if "\x00" in request.cmd:
        raise Trouble("BOOT_FAIL", "the command has a NUL character")
    if len(request.cmd.encode()) > MAX_COMMAND_BYTES:
        raise Trouble("BOOT_FAIL", f"the command has more than {MAX_COMMAND_BYTES} bytes")


def place_of(request: SBXReq) -> str:
    """Where the command starts: WORKSPACE, or a folder below it. Raises Trouble for any other place."""
    wanted = request.workdir or WORKSPACE
    if wanted.rstrip("/") == WORKSPACE:
        return WORKSPACE
    try:
        return f"{WORKSPACE}/{workspace.normal(wanted.removeprefix(f'{WORKSPACE}/'))}"
    except TerminalError:
        raise Trouble("BOOT_FAIL", f"the working folder {wanted!r} is not below {WORKSPACE}") from None


async def inputs(files: list[FileIn], read_artifact: ReadArtifact | None) -> dict[str, bytes]:
    """The input files' contents, by path. Raises Trouble for what cannot or must not be put in."""
    contents: dict[str, bytes] = {}
    if len(files) > MAX_FILES_IN:
        raise Trouble("UPLOAD_FAIL", f"{len(files)} input files; at most {MAX_FILES_IN} are allowed")
    for file in files:
        try:
            path = workspace.normal(file.path)
        except TerminalError:
            raise Trouble("UPLOAD_FAIL", f"the input file's path {file.path!r} leads out of the working folder") from None
        contents[path] = (await _content(file, read_artifact)).encode()
    if sum(map(len, contents.values())) > MAX_BYTES_IN:
        raise Trouble("UPLOAD_FAIL", f"the input files have more than {MAX_BYTES_IN} bytes")
    for path in contents:
        if any(parent in contents for parent in _parents(path)):
            raise Trouble("UPLOAD_FAIL", f"the input file {path!r} is below another one")
    return contents


async def _content(file: FileIn, read_artifact: ReadArtifact | None) -> str:
    if file.inline is not None:
        return file.inline
    uri = file.uri or ""
    if not uri.startswith("artifact://") or read_artifact is None:
        raise Trouble("UPLOAD_FAIL", f"the input file {file.path!r} has neither a text nor an address that is read here")
    try:
        return await read_artifact(uri)
    except LookupError as error:
        raise Trouble("UPLOAD_FAIL", str(error.args[0])) from None


def _parents(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:count]) for count in range(1, len(parts))]

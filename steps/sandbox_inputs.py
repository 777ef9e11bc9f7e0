"""What a sandbox task finds in its working folder: the files that the run's plan changed, as the plan wants them, and the intent.

They are read from the run's own rows right before the command runs, so the journal holds them once, where they were made. The row of
the attempt keeps each one's path and hash.
"""

from dataclasses import dataclass
from typing import LiteralString

from engine import TerminalError
from steps.canonical import canonical_json, sha256_text
from steps.contracts.base import JsonObject
from steps.contracts.sandbox import FileIn
from steps.ports import ports
from steps.sandbox import INTENT_FILE
from steps.workspace import normal

#: Of all files of a task together, in UTF-8.
MAX_BYTES = 4 * 1024 * 1024

INPUTS: LiteralString = """
    select i.payload as intent,
           array(select p.target_path from app.patch_history p
                  where p.run_id = r.id and p.step_id = 'ApplyPatchST' order by p.patch_index) as paths,
           array(select p.postimage_content from app.patch_history p
                  where p.run_id = r.id and p.step_id = 'ApplyPatchST' order by p.patch_index) as contents
      from app.runs r
      join app.intents i on i.id = r.intent_id
     where r.id = %s
"""


@dataclass(frozen=True, slots=True)
class _Inputs:
    intent: JsonObject
    paths: list[str]
    contents: list[str]


async def inputs_of(run_id: str) -> list[FileIn]:
    """The files of the run's tasks. Raises TerminalError `SandboxInputs` for more than MAX_BYTES, or for a plan that changes a file
    of the intent's name.
    """
    found = await ports().read(_Inputs, INPUTS, run_id)
    if found is None:
        raise TerminalError(f"run {run_id} has no row any more", name="RunNotFound")
    return files_of(found.intent, list(zip(found.paths, found.contents, strict=True)))


def files_of(intent: JsonObject, patched: list[tuple[str, str]]) -> list[FileIn]:
    """The files by path: of several patches of one file the last."""
    texts = {normal(path): text for path, text in patched}
    if INTENT_FILE in texts:
        raise TerminalError(f"the plan changes {INTENT_FILE}, under which a sandbox finds the intent", name="SandboxInputs")
    texts[INTENT_FILE] = canonical_json(intent)
    size = sum(len(text.encode()) for text in texts.values())
    if size > MAX_BYTES:
        raise TerminalError(f"the sandbox's input files have {size} bytes; at most {MAX_BYTES} are allowed", name="SandboxInputs")
    return [FileIn(path=path, inline=text) for path, text in sorted(texts.items())]


def by_hash(files: list[FileIn]) -> list[FileIn]:
    """The same files, each with the hash of its content in the content's place."""
    return [FileIn(path=file.path, uri=f"sha256:{sha256_text(file.inline or '')}") for file in files]

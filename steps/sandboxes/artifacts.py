"""Input files that are named by an artifact's address."""

from dataclasses import dataclass
from typing import LiteralString

from steps.artifacts import content_text
from steps.contracts.base import JsonObject
from steps.errors import InvalidInput
from steps.identity import parse_artifact_uri
from steps.ports import ports

ARTIFACT: LiteralString = """
    select inline
      from app.artifacts
     where run_id = %s and step_id = %s and task_key = %s and uri = %s
     order by attempt desc
     limit 1
"""


@dataclass(frozen=True, slots=True)
class _Artifact:
    inline: JsonObject


async def read_artifact(uri: str) -> str:
    """The text behind an `artifact://` address, of its latest attempt. Raises LookupError if there is none."""
    try:
        address = parse_artifact_uri(uri)
    except InvalidInput as error:
        raise LookupError(error.message) from None
    found = await ports().read(_Artifact, ARTIFACT, address.run_id, address.step_id, address.task_key, uri)
    if found is None:
        raise LookupError(f"there is no artifact {uri}")
    return content_text(found.inline)

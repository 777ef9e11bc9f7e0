"""What must hold of a server and its agents before they are asked anything, and the names that make a question findable again."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from steps.canonical import sha256_text
from steps.opencode_server.faults import Fault, Faulty

#: The one tool that an agent may use: to hand in its answer.
ANSWER_TOOL = "StructuredOutput"
ALLOWED_TOOLS = frozenset({ANSWER_TOOL.casefold()})
#: Where a file tool may reach. OpenCode adds rules of that name behind all others; without a tool they permit nothing.
SCOPES = frozenset({"external_directory"})

FIRST_VERSION, PAST_VERSION = (1, 18), (2, 0)
VERSION = re.compile(r"(\d{1,6})\.(\d{1,6})(\.\d{1,6})?([-+].*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Rule:
    permission: str
    pattern: str
    action: str


DENY_ALL = (Rule("*", "*", "deny"), Rule(ANSWER_TOOL, "*", "allow"))


def require_version(version: str) -> None:
    """Raises Faulty for a server that we were not made for."""
    found = VERSION.fullmatch(version)
    if found is None or not FIRST_VERSION <= (int(found[1]), int(found[2])) < PAST_VERSION:
        raise Faulty(Fault("oc_version", f"the server is OpenCode {version}; 1.18 or newer, and older than 2, is needed"))


def deny_all(rules: Sequence[Rule]) -> bool:
    """Whether nothing but the answer's tool is permitted. The last rule that fits decides, so nothing may follow the general ban but
    what permits that tool.
    """
    bans = [place for place, rule in enumerate(rules) if rule == DENY_ALL[0]]
    if not bans:
        return False
    behind = rules[bans[-1] + 1 :]
    answer = [rule.action for rule in behind if rule.permission == ANSWER_TOOL]
    others = [
        rule for rule in behind if rule.permission not in SCOPES and rule.permission != ANSWER_TOOL and rule.action != "deny"
    ]
    return not others and answer[-1:] == ["allow"]


def is_allowed(tool: str) -> bool:
    """However a tool's name is written."""
    return tool.strip().casefold() in ALLOWED_TOOLS


def session_id(op_key: str, invalid: int, stalled: int) -> str:
    """Of the conversation in which a question is put for the first time, or again after so many answers that were none."""
    return f"ses_{_name(op_key, invalid, stalled)}"


def message_id(op_key: str, invalid: int, stalled: int) -> str:
    return f"msg_{_name(op_key, invalid, stalled)}"


def _name(op_key: str, invalid: int, stalled: int) -> str:
    return sha256_text(f"{op_key}:{invalid}:{stalled}")[:40]

"""What a reply to a gate means. Anything that is not clearly a yes is a no."""

from dataclasses import dataclass

from steps.contracts.base import JsonObject

_YES = frozenset({"yes", "approve", "approved"})
_RATIONALE = ("rationale", "reason", "note", "notes")


@dataclass(frozen=True, slots=True)
class Decision:
    yes: bool
    rationale: str | None

    @property
    def word(self) -> str:
        return "yes" if self.yes else "no"


def decision_of(payload: JsonObject) -> Decision:
    """The decision in a reply, in whichever of its forms: choice, then approved, then decision."""
    return Decision(_is_yes(payload), rationale_of(payload))


def rationale_of(payload: JsonObject) -> str | None:
    given = (payload.get(name) for name in _RATIONALE)
    return next((text for text in given if isinstance(text, str) and text.strip()), None)


def _is_yes(payload: JsonObject) -> bool:
    choice, approved, decision = payload.get("choice"), payload.get("approved"), payload.get("decision")
    if choice in ("yes", "no"):
        return choice == "yes"
    if isinstance(approved, bool):
        return approved
    return isinstance(decision, str) and decision in _YES

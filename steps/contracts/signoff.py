"""What the sign-off board shows. A file of evidence is a tile too: what it leaves out is filled in by its reader."""

from typing import Literal

from steps.contracts.base import Millis, Text, Wire
from steps.contracts.views import RuntimeMode

Verdict = Literal["GO", "NO_GO"]
ClaimScope = Literal["signoff", "demo", "live-smoke"]


class SignoffTile(Wire):
    """One thing that must hold, since when it is known, and how one can see it for oneself.

    `commit`, `tree` and `appVersion` say what it was found out about; what the database tells is about the service that answers.
    """

    id: Text
    label: Text
    verdict: Verdict
    evidenceRefs: list[str]
    reason: str | None = None
    ts: Millis
    commit: str | None = None
    tree: str | None = None
    appVersion: str | None = None


class SignoffPosture(Wire):
    """How the service that answers is set up, which bounds what may be claimed of it."""

    topology: RuntimeMode
    runtimeMode: RuntimeMode
    ocMode: Literal["replay", "record", "live"]
    sbxMode: Literal["mock", "live"]
    sbxProvider: Literal["local", "e2b", "microsandbox"]
    appVersion: str
    claimScope: ClaimScope


class SignoffBoard(Wire):
    """The verdict and all that it follows from: GO only if every tile is."""

    verdict: Verdict
    posture: SignoffPosture
    pfTiles: list[SignoffTile]
    proofTiles: list[SignoffTile]
    rollbackTriggers: list[SignoffTile]
    ts: Millis

"""What the front door is told about its surroundings.

bin/ reads the environment and fills this in; nothing here looks for itself.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from steps.policy import QueueRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Settings of one API process. Those that a RunHeader repeats keep the words of the wire."""

    #: Where to listen for wake-ups: one connection of its own, outside of the engine's pool.
    database_url: str
    app_version: str = "v1"
    runtime_mode: Literal["api-shim", "inproc-worker"] = "api-shim"
    oc_mode: Literal["replay", "record", "live"] = "replay"
    oc_strict_mode: bool = False
    sbx_mode: Literal["mock", "live"] = "mock"
    sbx_provider: Literal["local", "e2b", "microsandbox"] = "e2b"
    claim_scope: Literal["signoff", "demo", "live-smoke"] = "demo"
    trace_base_url: str | None = None
    #: Where the sign-off board finds its evidence, and what that must be about.
    evidence_dir: Path | None = None
    signoff_commit: str | None = None
    signoff_tree: str | None = None
    #: Where load tests leave their summaries, for the throughput board.
    k6_dir: Path | None = None
    queue_rules: QueueRules = field(default_factory=QueueRules)
    #: Whether the older routes that have a successor still answer.
    legacy_routes: bool = True
    #: Where the ids of stored intents follow from; None for random ones.
    random_seed: int | None = None
    #: How long the crash demo sleeps between its two marks.
    crashdemo_sleep_ms: int = 5000
    #: Whether the door asks nobody as long as no token was ever made. Not where other machines can reach it.
    open_without_tokens: bool = True
    #: How many requests a second one token may make of this process; 0 for any number.
    token_requests_per_s: float = 0
    #: What may sign the events that come in.
    webhook_secrets: tuple[bytes, ...] = ()
    max_body_bytes: int = 4 * 1024 * 1024

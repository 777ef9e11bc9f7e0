"""The stand-in for the E2B service, for tests: what they order it to do wrong, and what it saw."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from bin.commands.sbx_conformance import STAND_IN_KEY, stand_in
from steps.sandbox import SandboxNotConfigured
from steps.sandboxes.e2b import E2B
from steps.sandboxes.remote import Over, RemoteSandbox


@dataclass(frozen=True, slots=True)
class E2BService:
    url: str
    http: httpx.Client = field(default_factory=lambda: httpx.Client(verify=False, trust_env=False), repr=False)  # one, for polls

    def machines(self, *, api_key: str = STAND_IN_KEY, env: str = "tests") -> E2B:
        return E2B(api_key, env, api_url=self.url, sandbox_url=self.url)

    def sandbox(self, *, over: Over | None = None) -> RemoteSandbox:
        return RemoteSandbox(self.machines(), over=over)

    def fault(self, op: str, **fault: Any) -> None:
        """The next call of `op` goes wrong."""
        self.http.post(f"{self.url}/_fault", json={"op": op, **fault}).raise_for_status()

    def forget_faults(self) -> None:
        self.http.delete(f"{self.url}/_fault").raise_for_status()

    def calls(self, op: str) -> list[dict[str, Any]]:
        return list(self.http.get(f"{self.url}/_log", params={"op": op}).json())

    def running(self) -> list[dict[str, Any]]:
        """The sandboxes."""
        return self.http.get(f"{self.url}/_state").json()


@contextmanager
def e2b_service(folder: Path) -> Iterator[E2BService]:
    """What cannot be had on this machine skips the test, with the reason."""
    try:
        with stand_in(folder) as url:
            service = E2BService(url)
            with service.http:
                yield service
    except SandboxNotConfigured as error:
        pytest.skip(str(error))

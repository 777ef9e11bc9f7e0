"""Tells a listener what a command prints, a few times a second, from pieces that come at any rate."""

import asyncio
from typing import Literal

from steps.sandbox import OnOutput
from steps.sandboxes.capture import CHUNK_EVERY_S, storable


class Telling:
    """Takes pieces with `add`; `ended` returns when all are told. A listener that fails is told nothing more."""

    def __init__(self, on_output: OnOutput | None) -> None:
        self._on_output = on_output
        self._pieces: list[tuple[Literal["stdout", "stderr"], str]] = []
        self._last = asyncio.Event()
        self._task = asyncio.create_task(self._tell()) if on_output else None

    def add(self, kind: Literal["stdout", "stderr"], text: str) -> None:
        if text and self._on_output is not None:
            self._pieces.append((kind, storable(text)))

    async def _tell(self) -> None:
        while self._on_output is not None and not (self._last.is_set() and not self._pieces):
            try:
                await asyncio.wait_for(self._last.wait(), CHUNK_EVERY_S)
            except TimeoutError:
                pass
            pieces, self._pieces = self._pieces, []
            for kind in ("stdout", "stderr"):
                if text := "".join(piece for of, piece in pieces if of == kind):
                    try:
                        await self._on_output(kind, text)
                    except Exception:  # the result has the whole text anyway
                        self._on_output = None
                        return

    async def ended(self) -> None:
        self._last.set()
        if self._task is not None:
            await self._task

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

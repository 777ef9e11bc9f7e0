"""What a command prints: the beginning is kept, the rest is counted and thrown away without being copied."""

import asyncio
import codecs
import os
from typing import Literal

from steps.sandbox import OnOutput

KEPT_BYTES = 1_000_000
READ_BYTES = 65_536
DROP_BYTES = 1 << 20
CHUNK_EVERY_S = 0.25


class Capture:
    """Drains a pipe until its end. `dropped` counts the bytes that were not kept."""

    def __init__(self, pipe: int, kind: Literal["stdout", "stderr"]) -> None:
        self.kind: Literal["stdout", "stderr"] = kind
        self.dropped = 0
        self._pipe = os.dup(pipe)
        self._kept = bytearray()
        self._ended = asyncio.Event()
        self._nowhere = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        os.set_blocking(self._pipe, False)
        asyncio.get_running_loop().add_reader(self._pipe, self._readable)

    def _readable(self) -> None:
        room = KEPT_BYTES - len(self._kept)
        try:
            if room > 0:
                data = os.read(self._pipe, min(READ_BYTES, room))
                self._kept += data
                ended = not data
            else:
                dropped = os.splice(self._pipe, self._nowhere, DROP_BYTES)
                self.dropped += dropped
                ended = dropped == 0
        except BlockingIOError:
            return
        if ended:
            self._stop()

    def _stop(self) -> None:
        if not self._ended.is_set():
            self._ended.set()
            asyncio.get_running_loop().remove_reader(self._pipe)

    async def ended(self) -> None:
        """Returns once nobody can print any more."""
        await self._ended.wait()

    def text(self) -> str:
        """What was kept, as text that can be stored, with a note where it was cut."""
        return text_of(self._kept, self.dropped)

    async def relay(self, on_output: OnOutput) -> None:
        """Tell what is kept while it comes, a few times a second, until the end."""
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        told = 0
        while True:
            try:
                await asyncio.wait_for(self._ended.wait(), CHUNK_EVERY_S)
            except TimeoutError:
                pass
            final, told_before, told = self._ended.is_set(), told, len(self._kept)
            if chunk := decoder.decode(bytes(self._kept[told_before:told]), final):
                try:
                    await on_output(self.kind, storable(chunk))
                except Exception:  # the result has the whole text anyway
                    return
            if final:
                return

    def close(self) -> None:
        self._stop()
        os.close(self._pipe)
        os.close(self._nowhere)


def text_of(kept: bytes | bytearray, dropped: int) -> str:
    """What was kept of some output, with a note where it was cut."""
    text = storable(kept.decode(errors="replace"))
    return f"{text}\n[cut here: {dropped} more bytes]\n" if dropped else text


def storable(text: str) -> str:
    """PostgreSQL stores no NUL characters."""
    return text.replace("\x00", "\ufffd")

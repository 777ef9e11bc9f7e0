"""Ports for servers that are told theirs."""

import contextlib
import random
import socket

BELOW_THE_EPHEMERAL = range(15_000, 30_000)  # a server that asks for any free port gets none of these


def free_port() -> int:
    """A port that nobody listens on, and that nobody is given by chance meanwhile."""
    while True:
        port = random.choice(BELOW_THE_EPHEMERAL)
        with socket.socket() as tried, contextlib.suppress(OSError):
            tried.bind(("127.0.0.1", port))
            return port

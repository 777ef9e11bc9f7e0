"""Stops an embedded PostgreSQL when its last user is gone, however that user went.

One such process runs beside each server (bin/postgres.py starts it; standard library only, so that it stays small). It asks for the
users' lock exclusively, which the kernel grants when no user is left to share it. If the watcher itself is killed, the server just
stays up until the next user comes and starts another watcher.
"""

import fcntl
import os
import signal
import sys
import time
from pathlib import Path

FAST_STOP_S = 60.0  # then the rude way, which costs the next start a recovery but loses nothing


def main(home: Path, watcher: int) -> None:
    if os.fork():
        os._exit(0)  # whoever started us gets no child to reap
    os.ftruncate(watcher, 0)
    os.pwrite(watcher, f"{os.getpid()}\n".encode(), 0)  # for people; the lock is what counts
    users = os.open(home / "users", os.O_RDWR)
    fcntl.flock(users, fcntl.LOCK_EX)
    started = time.monotonic()
    asked: tuple[int, signal.Signals] | None = None
    while is_running(home):
        rude = time.monotonic() - started > FAST_STOP_S
        ask = (pid_of(home), signal.SIGQUIT if rude else signal.SIGINT)
        if ask[0] and ask != asked:
            os.kill(*ask)
            asked = ask
        time.sleep(0.01)
    os.close(watcher)  # before the users' lock, lest the next user think that somebody watches


def is_running(home: Path) -> bool:
    """True while any process of the server lives: they all hold this lock."""
    server = os.open(home / "server", os.O_RDWR)
    try:
        fcntl.flock(server, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(server)
    return False


def pid_of(home: Path) -> int:
    """The server's process id, or 0 while it is not known (yet) or belongs to somebody else by now."""
    data = home / "data"
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n")[0])
        command_line = Path(f"/proc/{pid}/cmdline")
        ours = not Path("/proc/self").exists() or str(data).encode() in command_line.read_bytes().split(b"\0")
    except (OSError, ValueError):
        return 0
    return pid if ours else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))

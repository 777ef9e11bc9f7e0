"""How a command is run inside a machine that outlives whoever started it: by a script that leaves marks beside the command's folder.

The archive of what goes in has the script, the command and its files. The first to make the folder `started` runs the script; it
packs all that is to be known afterwards into one archive, whose name appears last and whole. So whoever comes later, with the first
starter gone, finds one of three states: nothing was started, it is under way, or its end is recorded.

The machine needs bash, coreutils, findutils, grep and tar, as Debian has them. The command may do to its own machine what it likes,
its marks included; it can only deceive about itself.
"""

import io
import tarfile
from collections.abc import Mapping
from typing import NamedTuple

from steps.contracts.sandbox import Metrics, SBXReq
from steps.sandboxes.answers import KILLED, TIMED_OUT, Outcome, Output
from steps.sandboxes.capture import KEPT_BYTES, text_of
from steps.sandboxes.collect import MAX_FILE_BYTES, MAX_TOLD, PASSED_OVER, WANTED, Collected
from steps.sandboxes.requests import WORKSPACE, place_of
from steps.sandboxes.trouble import Trouble

HOME = "/home/user"
MARKS = f"{HOME}/.holdfast"
STARTED = f"{MARKS}/started"
RESULT = f"{MARKS}/result.tar"
WORK = f"{HOME}/workspace"
#: How much may come back at most, and how many files.
MAX_RESULT_BYTES = 48 << 20
MAX_MEMBERS = 1000

_NAMES = " -o ".join(f"-name '*{ending}'" for ending in WANTED)
_PRUNED = " -o ".join(f"-name {name}" for name in sorted(PASSED_OVER))

SCRIPT = f"""
# bash run.sh WORK FOLDER SECONDS MARK
work=$1 folder=$2 seconds=$3 mark=$4 here=$PWD
exec 3>&1 4>&2 2>>"$here/log"
keep() {{ # the beginning goes on and into a file, the rest is counted
    local slow=; command -v stdbuf >/dev/null && slow="stdbuf -o0"
    $slow head -c {KEPT_BYTES} | tee -p "$here/$1"; wc -c >"$here/$1.more"
}}
killed_for_memory() {{ while read -r name count; do [ "$name" = oom_kill ] && echo "$count"; done </proc/vmstat; }}
mkdir -p "$work/$folder" && cp -R files/. "$work/" && mkfifo o e && touch out err out.more err.more || exit 70
keep out <o >&3 3>&- 4>&- & a=$!
keep err <e >&4 3>&- 4>&- & b=$!
exec 3>&- 4>&-
cd "$work/$folder" || exit 70
before=$(killed_for_memory) begun=$EPOCHREALTIME
HOLDFAST_COMMAND=$mark timeout --signal=KILL "$seconds" /bin/bash -c "$(cat "$here/command")" </dev/null >"$here/o" 2>"$here/e"
code=$? ended=$EPOCHREALTIME
times >"$here/times"
for round in 1 2 3 4 5 6 7 8; do # what it left behind
    left=$(grep -lsaF "HOLDFAST_COMMAND=$mark" /proc/[0-9]*/environ) || break
    for one in $left; do one=${{one#/proc/}}; kill -9 "${{one%/environ}}"; done
    sleep 0.02
done
{{ sleep 3; kill $a $b; }} & c=$!
wait $a $b
kill $c
echo "$code $begun $ended $(( $(killed_for_memory) - before ))" >"$here/exit"
cd "$work" && {{
    find . -xdev \\( {_PRUNED} \\) -prune -o \\( {_NAMES} \\) -type f -size -{MAX_FILE_BYTES + 1}c -print0 | sort -z \\
        | head -z -n {MAX_MEMBERS} | tar --null --no-recursion --hard-dereference --verbatim-files-from -T - -cf - \\
        | head -c {MAX_RESULT_BYTES // 2} >"$here/files.tar"
    find . -xdev \\( {_PRUNED} \\) -prune -o \\( {_NAMES} \\) \\( ! -type f -o -size +{MAX_FILE_BYTES}c \\) -print0 | sort -z \\
        | head -z -n {MAX_TOLD} >"$here/passed"
}}
cd "$here" && tar -cf result.draft boot exit times out out.more err err.more files.tar passed && mv result.draft result.tar
"""


def packed(request: SBXReq, files: Mapping[str, bytes], boot_ms: float) -> bytes:
    """The archive of what goes in. boot_ms comes out again with the result."""
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as archive:
        for name, content in {
            "run.sh": SCRIPT.encode(),
            "command": request.cmd.encode(),
            "boot": f"{boot_ms:.0f}".encode(),
            "files/": b"",
            **{f"files/{path}": content for path, content in files.items()},
        }.items():
            member = tarfile.TarInfo(name.rstrip("/"))
            member.mode = 0o644
            if name.endswith("/"):
                member.type, member.mode = tarfile.DIRTYPE, 0o755
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return target.getvalue()


def start_line(request: SBXReq, archive: str, mark: str) -> str:
    """The shell command that runs the script, unless somebody has started it already; it then ends at once. Raises Trouble."""
    folder = "." + place_of(request).removeprefix(WORKSPACE)
    arguments = f"{WORK} '{quoted(folder)}' {request.timeoutMs / 1000:.3f} {mark}"
    return f"cd {MARKS} && mkdir {STARTED} && tar -xf {archive} --no-same-owner && exec bash run.sh {arguments}"


def quoted(text: str) -> str:
    """For single quotes of a shell."""
    return text.replace("'", "'\\''")


class Finished(NamedTuple):
    """What the machine's archive says. Times in seconds."""

    code: int
    boot_ms: int
    wall_s: float
    cpu_s: float
    out_of_memory: bool
    stdout: Output
    stderr: Output
    left: Collected


def unpacked(archive: bytes, given: Mapping[str, bytes]) -> Finished:
    """What came out. given: what was put in; it comes back only if it was changed. Raises Trouble for what the script did not write."""
    try:
        members = dict(_members(archive))
        code, begun, ended, killed = members["exit"].decode().split()
        times = members["times"].decode().splitlines()[1].split()
        return Finished(
            int(code),
            int(members["boot"]),
            max(0.0, float(ended) - float(begun)),
            sum(_seconds(part) for part in times),
            int(killed) > 0,
            _output(members, "out"),
            _output(members, "err"),
            _left(members, given),
        )
    except (KeyError, ValueError, IndexError, tarfile.TarError, UnicodeDecodeError) as error:
        raise Trouble("DOWNLOAD_FAIL", f"the sandbox's record of its command cannot be read: {type(error).__name__}") from None


def _members(archive: bytes) -> list[tuple[str, bytes]]:
    """The plain files of an archive. One that was cut ends where it was cut."""
    found: list[tuple[str, bytes]] = []
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        try:
            for member in opened:
                if len(found) >= MAX_MEMBERS:
                    break
                if member.isreg() and (file := opened.extractfile(member)) is not None:
                    found.append((member.name.removeprefix("./"), file.read()))
        except tarfile.ReadError:
            pass
    return found


def _output(members: Mapping[str, bytes], name: str) -> Output:
    dropped = int(members.get(f"{name}.more", b"0").strip() or 0)
    return Output(text_of(members[name][:KEPT_BYTES], dropped), dropped)


def _left(members: Mapping[str, bytes], given: Mapping[str, bytes]) -> Collected:
    found = Collected()
    for passed in members["passed"].split(b"\0"):
        if passed:
            found.skip(_path(passed.decode(errors="replace")), f"not a file, or more than {MAX_FILE_BYTES} bytes")
    for name, content in _members(members["files.tar"]) if members["files.tar"] else ():
        if given.get(name) != content:
            if not name.isprintable():
                found.skip(name, "its name is not text")
            elif len(content) <= MAX_FILE_BYTES:
                found.take(name, content)
    return found


def _path(name: str) -> str:
    return name.removeprefix("./")


def _seconds(text: str) -> float:
    """As bash says it: 0m1.234s."""
    minutes, _, seconds = text.rstrip("s").partition("m")
    return int(minutes) * 60 + float(seconds)


def outcome_of(finished: Finished, request: SBXReq) -> Outcome:
    """How much memory was used at most is not known: 0."""
    metrics = Metrics(
        wallMs=round(finished.wall_s * 1000, 1), cpuMs=round(finished.cpu_s * 1000, 1), memPeakMB=0, bootMs=finished.boot_ms
    )
    if finished.code == KILLED and finished.wall_s * 1000 >= request.timeoutMs:
        return Outcome(TIMED_OUT, "TIMEOUT", metrics)
    if finished.code == KILLED and finished.out_of_memory:
        return Outcome(KILLED, "OOM", metrics)
    return Outcome(finished.code, "NONE" if finished.code == 0 else "CMD_NONZERO", metrics)

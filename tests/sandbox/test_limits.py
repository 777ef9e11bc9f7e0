"""Where control groups are found and what is written into them, on folders that look like those of other machines."""

from pathlib import Path

import pytest

from steps.contracts.sandbox import SBXLimits
from steps.sandboxes import limits
from steps.sandboxes.limits import find_groups

LIMITS = SBXLimits(cpu=1.5, memMB=64)


def mounts(*given: tuple[Path, str, str, str]) -> str:
    """As in /proc/self/mountinfo: folder, the part of the tree it shows, type, options."""
    return "".join(f"30 20 0:25 {root} {folder} rw,nosuid - {kind} cgroup {options}\n" for folder, root, kind, options in given)


def version_1(top: Path) -> str:
    for name in ("memory", "pids", "cpu,cpuacct"):
        (top / name / "own").mkdir(parents=True)
    return mounts(*((top / name, "/", "cgroup", f"rw,{name}") for name in ("memory", "pids", "cpu,cpuacct")))


def test_version_1_has_a_folder_for_each_controller(tmp_path: Path) -> None:
    own = "9:cpu,cpuacct:/own\n8:pids:/own\n4:memory:/own\n3:cpuset:/\n1:name=systemd:/init\n0::/\n"
    groups = find_groups(version_1(tmp_path), own)
    assert groups is not None
    assert groups.version == 1
    assert groups.folders == {
        "memory": tmp_path / "memory/own",
        "pids": tmp_path / "pids/own",
        "cpu": tmp_path / "cpu,cpuacct/own",
        "cpuacct": tmp_path / "cpu,cpuacct/own",
    }
    group = groups.holder("box", LIMITS)
    assert (tmp_path / "memory/own/box/memory.limit_in_bytes").read_text() == str(64 << 20)
    assert (tmp_path / "pids/own/box/pids.max").read_text() == "256"
    assert (tmp_path / "cpu,cpuacct/own/box/cpu.cfs_quota_us").read_text() == "150000"
    group.hold(77, [], -1)
    assert {(Path(place) / "cgroup.procs").read_text() for place in group.places()} == {"77"}
    assert len(group.places()) == 3


def test_a_mount_may_show_only_a_part_of_the_tree(tmp_path: Path) -> None:
    for name in ("memory", "pids"):
        (tmp_path / name / "inner").mkdir(parents=True)
    shown = mounts(*((tmp_path / name, "/box/7", "cgroup", f"rw,{name}") for name in ("memory", "pids")))
    groups = find_groups(shown, "8:pids:/box/7/inner\n4:memory:/box/7/inner\n")
    assert groups is not None
    assert groups.folders == {"memory": tmp_path / "memory/inner", "pids": tmp_path / "pids/inner"}


def test_version_1_without_memory_is_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "pids").mkdir()
    assert find_groups(mounts((tmp_path / "pids", "/", "cgroup", "rw,pids")), "8:pids:/\n") is None


def version_2(top: Path, controllers: str = "cpu io memory pids", given_on: str = "") -> str:
    service = top / "service"
    (service / "worker").mkdir(parents=True)
    for folder in (top, service, service / "worker"):
        (folder / "cgroup.controllers").write_text(controllers if folder == service else "")
        (folder / "cgroup.subtree_control").write_text(given_on)
    return mounts((top, "/", "cgroup2", "rw"))


def test_version_2_makes_groups_beside_a_worker_whose_group_was_delegated(tmp_path: Path) -> None:
    groups = find_groups(version_2(tmp_path), "0::/service/worker\n")
    assert groups is not None
    assert (groups.version, set(groups.folders.values())) == (2, {tmp_path / "service"})
    assert (tmp_path / "service/cgroup.subtree_control").read_text() == "+cpu +memory +pids"
    group = groups.holder("box", LIMITS)
    box = tmp_path / "service/box"
    written = {name: (box / name).read_text() for name in ("memory.max", "memory.swap.max", "pids.max", "cpu.max")}
    assert written == {"memory.max": str(64 << 20), "memory.swap.max": "0", "pids.max": "256", "cpu.max": "150000 100000"}
    (box / "memory.peak").write_text(f"{5 << 20}\n")
    (box / "memory.events").write_text("low 0\nmax 3\noom 1\noom_kill 1\n")
    (box / "cpu.stat").write_text("usage_usec 1500\nuser_usec 1000\n")
    assert group.usage() == (limits.Usage(1.5, 5.0, out_of_memory=True))
    assert group.places() == [str(box)]


def test_version_2_that_was_not_delegated_is_left_alone(tmp_path: Path) -> None:
    assert find_groups(version_2(tmp_path / "a", controllers="cpu"), "0::/service/worker\n") is None
    assert find_groups("", "0::/service/worker\n") is None
    assert find_groups(version_2(tmp_path / "b"), "8:pids:/\n") is None


def test_a_group_that_cannot_be_limited_is_not_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    version_2(tmp_path)
    (tmp_path / "service/box").mkdir()
    monkeypatch.setattr(limits, "REMOVE_S", 0.0)

    def refuse(*_: object) -> None:
        raise PermissionError("not yours")

    monkeypatch.setattr(Path, "write_text", refuse)
    with pytest.raises(PermissionError):
        limits.Group(limits.Groups(2, dict.fromkeys(("memory", "pids"), tmp_path / "service")), "box", LIMITS)
    assert not (tmp_path / "service/box").exists()


def test_limits_of_each_process_are_set_by_any_shell() -> None:
    assert limits.each_process("/bin/bash", file_bytes=4096, data_bytes=None).startswith("ulimit -n ")
    assert "ulimit -f 4 &&" in limits.each_process("/bin/bash", file_bytes=4096, data_bytes=2048)
    assert "ulimit -f 8 &&" in limits.each_process("/bin/sh", file_bytes=4096, data_bytes=2048)
    assert "ulimit -d 2 &&" in limits.each_process("/bin/sh", file_bytes=4096, data_bytes=2048)

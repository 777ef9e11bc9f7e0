"""bin/sbx-live-smoke: a real command in a real sandbox, or the reason why not."""

from pathlib import Path
from typing import Any

import pytest

from bin.commands import sbx_live_smoke
from bin.settings import Settings
from steps.sandboxes import microsandbox
from tests.sandbox.e2b_service import e2b_service
from tests.sandbox.microsandbox_fake import Fake
from tests.sandbox.subjects import local


def smoke(tmp_path: Path, **settings: Any) -> int:
    return sbx_live_smoke.main(Settings(state_dir=tmp_path, **settings))


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "SBX_MODE is mock"),
        ({"sbx_mode": "live", "sbx_provider": "e2b"}, "SBX_PROVIDER=e2b: E2B_API_KEY is not set"),
        (
            {"sbx_mode": "live", "sbx_provider": "microsandbox"},
            "SBX_PROVIDER=microsandbox needs SBX_ALT_PROVIDER_ENABLED=true",
        ),
    ],
)
def test_what_is_missing_is_told_and_fails_only_when_strict(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: dict[str, Any], reason: str
) -> None:
    assert smoke(tmp_path, **settings) == 0
    assert capsys.readouterr().out == f"SKIP: {reason}\n"
    assert smoke(tmp_path, **settings, oc_strict_mode=True) == 1
    assert reason in capsys.readouterr().err


def test_the_local_sandbox_really_runs_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    local(tmp_path)
    assert smoke(tmp_path, sbx_mode="live", sbx_provider="local", oc_strict_mode=True) == 0
    assert capsys.readouterr().out.startswith("local: exit code 0, booted in ")
    assert smoke(tmp_path, sbx_mode="live", sbx_provider="local", sbx_live_cmd="echo no >&2; exit 7") == 1
    assert "CMD_NONZERO, exit code 7: no" in capsys.readouterr().err


def test_the_e2b_service_runs_it_and_nothing_is_left_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with e2b_service(tmp_path) as service:
        monkeypatch.setenv("E2B_API_URL", service.url)
        monkeypatch.setenv("E2B_SANDBOX_URL", service.url)
        live: dict[str, Any] = {"sbx_mode": "live", "sbx_provider": "e2b", "e2b_api_key": "e2b_secret"}
        assert smoke(tmp_path, **live, oc_strict_mode=True) == 0
        told = capsys.readouterr()
        assert told.out.startswith("e2b: exit code 0, booted in ")
        assert "secret" not in told.out + told.err
        assert service.running() == []
        assert service.calls("create")[0]["body"]["templateID"] == "base"
        service.fault("list", status=401, times=2)
        assert smoke(tmp_path, **live) == 1, "a key that is refused is a failure even when not strict"
        assert "BOOT_FAIL" in capsys.readouterr().err


def test_a_machine_that_does_not_boot_is_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(microsandbox, "load", lambda: Fake)
    monkeypatch.setattr(Fake, "boot_fails", "sandbox-not-running")
    monkeypatch.setattr(Fake, "folder", tmp_path)
    live: dict[str, Any] = {"sbx_mode": "live", "sbx_provider": "microsandbox", "sbx_alt_provider_enabled": True}
    assert smoke(tmp_path, **live) == 0
    assert capsys.readouterr().out.startswith("SKIP: SBX_PROVIDER=microsandbox: ")
    assert smoke(tmp_path, **live, oc_strict_mode=True) == 1


def test_a_sandbox_that_lies_is_found_out() -> None:
    settings = Settings()
    honest = sbx_live_smoke.SBXRes.model_validate(
        {
            "exit": 0,
            "stdout": sbx_live_smoke.SAID,
            "stderr": "",
            "filesOut": [{"path": "out.json", "sha256": "0" * 64, "inline": sbx_live_smoke.LEFT}],
            "metrics": {"wallMs": 1.0, "cpuMs": 1.0, "memPeakMB": 0.0},
            "sandboxRef": "x",
            "errCode": "NONE",
            "taskKey": "smoke",
        }
    )
    assert sbx_live_smoke.trouble_in(honest, sbx_live_smoke.SAID, settings) is None
    for change, told in (({"stdout": ""}, sbx_live_smoke.SAID), ({}, ""), ({"filesOut": []}, sbx_live_smoke.SAID)):
        assert sbx_live_smoke.trouble_in(honest.model_copy(update=change), told, settings)

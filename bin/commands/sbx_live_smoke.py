"""bin/sbx-live-smoke: runs one command in a real sandbox of the configured provider.

Needs SBX_MODE=live, and what its provider needs: bubblewrap, E2B_API_KEY, or a machine on which microsandbox boots. What is missing is
printed, and the exit code is 0; with OC_STRICT_MODE=1 that is a failure. So is, always, a command that does not do what it should:
read a file that was put in, print while it runs, leave a file. SBX_LIVE_CMD is run instead, and has to succeed. The sandbox is gone
afterwards. Nothing is written to the database.
"""

import asyncio
import uuid

from bin.settings import Settings
from bin.wiring import FAILED, complain, run
from steps.contracts.sandbox import FileIn, SBXLimits, SBXReq, SBXRes
from steps.sandbox import Holding, Sandbox, SandboxNotConfigured, make_sandbox
from steps.sandboxes.microsandbox import PROBE_IMAGE, Microsandbox

SAID = "holdfast was here\n"
LEFT = '{"smoke": true}\n'
COMMAND = f"cat in.txt && printf '%s\\n' '{LEFT.strip()}' > out.json"
TIMEOUT_MS = 60_000
#: What a provider starts from that has nothing of ours.
ENVIRONMENTS = {"local": "local", "e2b": "base", "microsandbox": PROBE_IMAGE}


def main(settings: Settings) -> int:
    try:
        sandbox = real_sandbox(settings)
    except SandboxNotConfigured as error:
        return skipped(settings, str(error))
    result, told = asyncio.run(tried(sandbox, request(settings)))
    if trouble := trouble_in(result, told, settings):
        complain(f"{sandbox.provider}: {trouble}")
        return FAILED
    times = f"booted in {result.metrics.bootMs} ms, ran for {result.metrics.wallMs:.0f} ms"
    print(f"{sandbox.provider}: exit code {result.exit}, {times}, {result.sandboxRef}", flush=True)
    return 0


def real_sandbox(settings: Settings) -> Sandbox:
    """Raises SandboxNotConfigured where there is none to be had."""
    if settings.sbx_mode != "live":
        raise SandboxNotConfigured(f"SBX_MODE is {settings.sbx_mode}")
    sandbox = make_sandbox(
        settings.sbx_mode,
        settings.sbx_provider,
        settings.state_dir.absolute() / "sandboxes",
        alt_provider_enabled=settings.sbx_alt_provider_enabled,
        e2b_api_key=settings.e2b_api_key,
        installation=f"{settings.app_name}-smoke",
        alone=True,
    )
    if settings.sbx_provider == "microsandbox" and (why := asyncio.run(Microsandbox("smoke").boot_trouble())):
        raise SandboxNotConfigured(f"SBX_PROVIDER=microsandbox: {why}")
    return sandbox


def skipped(settings: Settings, reason: str) -> int:
    if settings.oc_strict_mode:
        complain(f"{reason}, and OC_STRICT_MODE does not let that pass")
        return FAILED
    print(f"SKIP: {reason}")
    return 0


def request(settings: Settings) -> SBXReq:
    return SBXReq(
        envRef=ENVIRONMENTS[settings.sbx_provider],
        cmd=settings.sbx_live_cmd or COMMAND,
        filesIn=[FileIn(path="in.txt", inline=SAID)],
        env={},
        timeoutMs=TIMEOUT_MS,
        limits=SBXLimits(),
        net=settings.sbx_default_net,
        taskKey="smoke",
    )


async def tried(sandbox: Sandbox, asked: SBXReq) -> tuple[SBXRes, str]:
    """The result, and what was told while the command ran."""
    told: list[str] = []

    async def tell(kind: str, text: str) -> None:
        told.append(text if kind == "stdout" else "")

    key = f"smoke:{uuid.uuid4().hex}:1"
    try:
        return await sandbox.run(asked, attempt=1, key=key, on_output=tell), "".join(told)
    finally:
        if isinstance(sandbox, Holding):
            await sandbox.release(key)


def trouble_in(result: SBXRes, told: str, settings: Settings) -> str | None:
    """What is wrong with the result, if anything."""
    if result.errCode != "NONE":
        return f"{result.errCode}, exit code {result.exit}: {result.stderr.strip()[:2000]}"
    if settings.sbx_live_cmd is not None:
        return None
    if result.stdout != SAID:
        return f"the command should have printed {SAID!r}, and printed {result.stdout[:200]!r}"
    if told != SAID:
        return f"{SAID!r} should have been told while the command ran, and {told[:200]!r} was"
    left = {file.path: file.inline for file in result.filesOut}
    return None if left == {"out.json": LEFT} else f"the command should have left out.json alone, and left {sorted(left)}"


if __name__ == "__main__":
    run(main)

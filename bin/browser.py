"""Chromium, as this checkout uses one: to test the console and to take its pictures. Nothing here is needed to run the service."""

import shutil

#: Without a screen, as any user, and speaking to nobody but the service.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--font-render-hinting=none",
)
MISSING = "there is no Chromium on this machine: install Debian's package chromium"


def find_chromium() -> str | None:
    """Where it is; None where there is none."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if (found := shutil.which(name))), None)

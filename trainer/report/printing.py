"""A page printed to PDF by a headless Chromium."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from trainer.errors import ConfigError
from trainer.wording import excerpt

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120
"""Time that printing may take."""


def browser() -> str:
    """Returns the path of a browser that prints; raises ConfigError if there is none."""
    for name in BROWSERS:
        found = shutil.which(name)
        if found is not None:
            return found
    raise ConfigError(
        f"--format pdf prints the page with Chromium, and none of {', '.join(BROWSERS)} is on PATH",
        key="--format",
        value="pdf",
        hint="install the package chromium, or print report.html in any browser",
    )


def headless(program: str, profile: Path) -> list[str]:
    """Returns the words that start a browser without a window, with a profile of its own."""
    words = [program, "--headless", "--disable-gpu", "--no-first-run", f"--user-data-dir={profile}"]
    as_root = hasattr(os, "geteuid") and os.geteuid() == 0
    return [*words, *["--no-sandbox"] * as_root]


def printed(page: str, program: str) -> bytes:
    """Returns a page as PDF; raises ConfigError if the browser does not print it."""
    with tempfile.TemporaryDirectory(prefix="trainer-report-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "report.html").write_text(page, "utf-8")
        target = folder / "report.pdf"
        command = [
            *headless(program, folder / "profile"),
            "--no-pdf-header-footer",
            f"--print-to-pdf={target}",
            (folder / "report.html").as_uri(),
        ]
        try:
            done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False)
            if done.returncode == 0 and target.is_file():
                return target.read_bytes()
            reason = f"code {done.returncode}"
        except (OSError, subprocess.TimeoutExpired) as error:
            reason = excerpt(error)
    raise ConfigError(
        f"--format pdf: {program} printed nothing ({reason})",
        key="--format",
        value="pdf",
        hint="print report.html in any browser",
    )

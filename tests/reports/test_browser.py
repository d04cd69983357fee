"""The published page in a real browser: it opens from disk, says nothing on the console, asks for nothing."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from reports.site import publish

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
]

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


def browse(page: Path, folder: Path, width: int) -> tuple[str, list[str], Path]:
    """Open a page from disk: what the console said, what was asked of the network, and a screenshot."""
    shot, log = folder / f"{width}.png", folder / f"{width}.json"
    command = [
        str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},2000",
        "--enable-logging=stderr", f"--log-net-log={log}", f"--screenshot={shot}", page.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    console = "\n".join(line for line in done.stderr.splitlines() if "CONSOLE" in line)
    seen = [event.get("params", {}) for event in json.loads(log.read_text())["events"]]
    # What the browser asks on its own account has no origin; what a page asks has one.
    asked = [str(one["url"]) for one in seen if one.get("initiator", "not an origin") != "not an origin"]
    return console, asked, shot


@pytest.mark.parametrize("width", [400, 1400])
def test_the_published_page_opens_offline(full_run, tmp_path, width):
    page = publish(full_run, tmp_path / "site")
    console, asked, shot = browse(page, tmp_path, width)
    assert console == ""
    assert asked == []
    assert shot.stat().st_size > 10_000


def test_the_test_above_can_fail(tmp_path):
    page = tmp_path / "index.html"
    page.write_text(
        "<script>console.error('a word')</script><img src='missing.png'><img src='http://127.0.0.1:9/a.png'>"
    )
    console, asked, _ = browse(page, tmp_path, 400)
    assert "a word" in console
    assert asked == ["http://127.0.0.1:9/a.png"]

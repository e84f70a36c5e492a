"""The machine's own Chromium for a test, without any chatter of it on the network."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip


@contextmanager
def chromium() -> Iterator:
    """A headless browser; skips the test where there is none, or fails it where STILLHOUSE_TEST_DATA=required."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if program is None:
        give_up = pytest.fail if os.environ.get("STILLHOUSE_TEST_DATA") == "required" else pytest.skip
        give_up("needs chromium (apt-get install chromium) and playwright")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()

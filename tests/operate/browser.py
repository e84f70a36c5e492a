"""A real Chromium for the tests of pages: light, 1280 wide, and nothing it asks for may lie outside this machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--no-first-run",
)  # fmt: skip
LOCAL = {"127.0.0.1", "localhost", ""}


def chromium() -> str:
    """The browser's path; skips the test where there is none, fails it where STILLHOUSE_TEST_DATA=required."""
    found = shutil.which("chromium") or shutil.which("google-chrome")
    if found is None:
        give_up = pytest.fail if os.environ.get("STILLHOUSE_TEST_DATA") == "required" else pytest.skip
        give_up("needs Chromium: apt-get install chromium")
    return found


@contextmanager
def open_page(height: int = 900) -> Iterator[Any]:
    """A Playwright page; on leaving, whatever the pages wanted from elsewhere fails the test."""
    executable = chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=list(FLAGS))
        page = browser.new_page(viewport={"width": 1280, "height": height}, color_scheme="light")
        page.add_init_script("localStorage.setItem('color-scheme', '\"light\"')")  # Prefect's own setting
        page.set_default_timeout(60_000)
        outside: list[str] = []
        page.on("request", lambda request: _note(request.url, outside))
        try:
            yield page
        finally:
            browser.close()
    assert outside == []


def _note(url: str, outside: list[str]) -> None:
    if (urlsplit(url).hostname or "") not in LOCAL:
        outside.append(url)


def screenshot(page: Any, name: str, fallback: Path) -> None:
    """Keep `name`.png in $STILLHOUSE_SCREENSHOTS, where the guides' pictures come from, else below `fallback`."""
    directory = Path(os.environ.get("STILLHOUSE_SCREENSHOTS") or fallback)
    directory.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=directory / f"{name}.png")

"""The machine's own Chromium for tests of pages; nothing that a page asks for may lie outside this machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

FLAGS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
LOCAL = {"127.0.0.1", "localhost", ""}


@contextmanager
def chromium() -> Iterator[Any]:
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


@contextmanager
def open_page(height: int = 900) -> Iterator[Any]:
    """A page, light and 1280 wide; on leaving, whatever the pages wanted from elsewhere fails the test."""
    outside: list[str] = []
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1280, "height": height}, color_scheme="light")
        page.add_init_script("localStorage.setItem('color-scheme', '\"light\"')")  # Prefect's own setting
        page.set_default_timeout(60_000)
        page.on("request", lambda request: _note(request.url, outside))
        yield page
    assert outside == []


def _note(url: str, outside: list[str]) -> None:
    if (urlsplit(url).hostname or "") not in LOCAL:
        outside.append(url)


def screenshot(page: Any, name: str, fallback: Path) -> None:
    """Keep `name`.png in $STILLHOUSE_SCREENSHOTS, where the guides' pictures come from, else below `fallback`."""
    directory = Path(os.environ.get("STILLHOUSE_SCREENSHOTS") or fallback)
    directory.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=directory / f"{name}.png")

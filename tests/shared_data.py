"""Real data sets beside the checkout: a test skips without, or fails where STILLHOUSE_TEST_DATA=required."""

import os
from pathlib import Path

import pytest

DIRECTORY = Path(__file__).parents[2] / "shared" / "data"


def shared_data(name: str) -> Path:
    """The directory of the data set `name`; skips or fails the test where there is none."""
    path = DIRECTORY / name
    if not path.is_dir():
        give_up = pytest.fail if os.environ.get("STILLHOUSE_TEST_DATA") == "required" else pytest.skip
        give_up(f"needs {name} in shared/data beside the checkout")
    return path

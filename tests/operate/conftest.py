"""One `stillhouse up` for all tests of this folder that can share it: real servers, a real worker.

`up` is an `Up` (see `up_process.py`): `up.home`, `up.prefect`, `up.api`, `up.mlflow` (addresses), `up.cli` (a command
line in its home), `up.deploy_run("FLOW/DEPLOYMENT", parameters)` and `up.finished(ID)`.
"""

import os
from collections.abc import Iterator

import pytest

from tests.operate.up_process import Up
from tests.tiny_runs import (
    ROOT,
    cli,
    cli_after_run,
    cli_with_head,
    first_run,
    home_until,
    make_cli,
    shared_recipe,
    tiny_base,
    tiny_recipe,
)

__all__ = [
    "cli", "cli_after_run", "cli_with_head", "first_run", "home_until", "make_cli", "shared_recipe", "tiny_base",
    "tiny_recipe", "up",
]  # fmt: skip


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """A running `stillhouse up` in a home of its own."""
    os.environ["PYTHONPATH"] = str(ROOT)
    running = Up(tmp_path_factory.mktemp("up") / "home")
    yield running
    running.stop()

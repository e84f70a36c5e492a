"""What all tests share: a private home, no network, no telemetry, no leftovers of the developer's own environment."""

import os
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

os.environ.update(
    HF_HUB_OFFLINE="1", DO_NOT_TRACK="1", MLFLOW_DISABLE_TELEMETRY="true", PREFECT_SERVER_ANALYTICS_ENABLED="false",
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS="120", RAY_USAGE_STATS_ENABLED="0", MPLBACKEND="agg",
)  # fmt: skip
for name in ("STILLHOUSE_HOME", "STILLHOUSE_FAULT", "PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
    os.environ.pop(name, None)
# Each pytest-xdist process and its children on one core: threads that wait by spinning would slow the others.
if "PYTEST_XDIST_WORKER" in os.environ and hasattr(os, "sched_setaffinity"):
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw")) % len(cores)]})


@pytest.fixture(autouse=True)
def own_environment() -> Iterator[None]:
    """What a test's code leaves in the environment (a command names home and servers there) ends with the test."""
    with mock.patch.dict(os.environ):
        yield


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, named by the environment as in real use."""
    directory = tmp_path / "home"
    monkeypatch.setenv("STILLHOUSE_HOME", str(directory))
    return directory

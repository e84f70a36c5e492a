"""Homes with a real MLflow database: made once and copied, since migrating one takes seconds."""

import shutil
from pathlib import Path

import pytest

from tasks import register as registration
from tasks.mlflow_home import ARTIFACTS, DATABASE, open_client
from tasks.registry import against_for
from tasks.versions import remember
from tests.tasks.tiny_release import make_release


@pytest.fixture(autouse=True)
def no_tracking_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("empty")
    open_client(made)
    return made / DATABASE


@pytest.fixture(scope="session")
def database_of_two(tmp_path_factory: pytest.TempPathFactory, empty_database: Path) -> Path:
    """Version 1 (of model-0) is previous, version 2 (of model-1) champion."""
    made = tmp_path_factory.mktemp("two")
    shutil.copyfile(empty_database, made / DATABASE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registration, "check_in_fresh_process", lambda *given: "")
        for seed in (0, 1):
            against = against_for(made, "opinions", f"model-{seed}")
            directory, manifest, lineage = make_release(
                made / f"release-{seed}", seed=seed, model_key=f"model-{seed}", against=against
            )
            registration.register(made, "opinions", directory, manifest, promote=True, lineage=lineage)
    return made / DATABASE


@pytest.fixture
def mlflow_home(tmp_path: Path, empty_database: Path) -> Path:
    """A home whose MLflow is ready and empty."""
    return _copy(empty_database, tmp_path / "home")


@pytest.fixture
def two_versions(tmp_path: Path, database_of_two: Path) -> Path:
    """A home with version 1 as previous and version 2 as champion."""
    made = _copy(database_of_two, tmp_path / "home")
    remember(made)
    return made


def _copy(database: Path, made: Path) -> Path:
    made.mkdir()
    shutil.copyfile(database, made / DATABASE)
    if (database.parent / ARTIFACTS).is_dir():
        shutil.copytree(database.parent / ARTIFACTS, made / ARTIFACTS)
    return made


@pytest.fixture
def checks(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the models that were checked; the fresh process itself is left out (`test_served_model.py` has it)."""
    seen: list[str] = []

    def check(home: Path, model_id: str, rows: Path) -> str:
        seen.append(model_id)
        return ""

    monkeypatch.setattr(registration, "check_in_fresh_process", check)
    return seen

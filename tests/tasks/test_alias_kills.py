"""A kill between any two writes of a release or a rollback: the champion is the old or the new one, and the next
attempt ends where an undisturbed one does."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import UserError
from tasks import registry
from tasks.light_registry import SqliteRegistry
from tasks.mlflow_home import load_mlflow
from tasks.register import register
from tasks.versions import read_models
from tests.tasks.tiny_release import make_release

WRITES = (
    "set_registered_model_alias", "delete_registered_model_alias", "set_model_version_tag", "delete_model_version_tag",
)  # fmt: skip


def state(home: Path) -> dict[str, Any]:
    versions = read_models(home)["opinions"]
    return {alias: v.version for v in versions for alias in v.aliases} | {"back": [v.rolled_back for v in versions]}


def killed_before(patch: pytest.MonkeyPatch, client: type, number: int) -> list[str]:
    """The process ends before write `number` (from 0) of this class of clients; returns what was written."""
    done: list[str] = []

    def wrap(name: str) -> Callable[..., Any]:
        real = getattr(client, name)

        def write(*given: Any, **named: Any) -> Any:
            if len(done) == number:
                raise SystemExit("killed")
            done.append(name)
            return real(*given, **named)

        return write

    for name in WRITES:
        patch.setattr(client, name, wrap(name))
    return done


def attempt(client: type, number: int, act: Callable[[], Any]) -> bool:
    """Whether `act` came to its end."""
    with pytest.MonkeyPatch.context() as patch:
        killed_before(patch, client, number)
        try:
            act()
        except SystemExit:
            return False
    return True


@pytest.mark.parametrize("before", range(4))
def test_a_release(two_versions: Path, tmp_path: Path, checks: list[str], before: int) -> None:
    against = registry.against_for(two_versions, "opinions", "model-2")
    release, manifest, lineage = make_release(tmp_path / "release", seed=2, model_key="model-2", against=against)

    def run(promote: bool = True) -> Any:
        return register(two_versions, "opinions", release, manifest, promote=promote, lineage=lineage)

    run(promote=False)
    finished = attempt(load_mlflow().MlflowClient, before, run)
    assert finished == (before == 3), "three writes: previous, no challenger any more, champion"
    assert state(two_versions)["champion"] == (3 if finished else 2)
    run()
    assert state(two_versions) == {"champion": 3, "previous": 2, "back": [False, False, False]}


@pytest.mark.parametrize("before", range(5))
def test_a_rollback(two_versions: Path, before: int) -> None:
    """Of a version that was once rolled back to another: four writes."""
    registry.rollback(two_versions, "opinions")
    registry.rollback(two_versions, "opinions")
    registry.promote(two_versions, "opinions", 1)
    registry.promote(two_versions, "opinions", 2)
    registry.rollback(two_versions, "opinions")
    assert state(two_versions) == {"champion": 1, "previous": 2, "back": [True, False]}
    finished = attempt(SqliteRegistry, before, lambda: registry.rollback(two_versions, "opinions"))
    assert finished == (before == 4)
    assert state(two_versions)["champion"] == (2 if before > 2 else 1)
    if not finished:
        registry.rollback(two_versions, "opinions")
    assert state(two_versions) == {"champion": 2, "previous": 1, "back": [False, True]}


@pytest.mark.parametrize("before", range(3))
def test_a_promotion_by_hand(two_versions: Path, before: int) -> None:
    attempt(SqliteRegistry, before, lambda: registry.promote(two_versions, "opinions", 1, by="board"))
    assert state(two_versions)["champion"] == 2
    registry.promote(two_versions, "opinions", 1, by="board")
    assert state(two_versions) == {"champion": 1, "previous": 2, "back": [True, False]}
    with pytest.raises(UserError, match="has no version 9"):
        registry.promote(two_versions, "opinions", 9)

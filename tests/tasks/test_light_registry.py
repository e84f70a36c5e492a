"""The registry without mlflow says and does what mlflow's own client does."""

import os
import resource
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse.errors import UserError
from tasks import light_registry
from tasks.light_registry import SqliteRegistry, open_registry
from tasks.mlflow_home import DATABASE, open_client
from tasks.versions import ask_models

ROOT = Path(__file__).parents[2]


def test_both_clients_read_the_same(two_versions: Path) -> None:
    light = open_registry(two_versions)
    assert isinstance(light, SqliteRegistry)
    models = ask_models(light)
    assert models == ask_models(open_client(two_versions)) and models["opinions"][0].location.startswith("file:")
    assert ask_models(light, "opinions") == models and ask_models(light, "other") == {}


def test_what_one_writes_the_other_reads(two_versions: Path) -> None:
    light, real = open_registry(two_versions), open_client(two_versions)
    light.set_registered_model_alias("opinions", "champion", "1")
    light.set_registered_model_alias("opinions", "canary", "2")
    light.set_model_version_tag("opinions", "1", "stillhouse.note", 'it\'s "quoted"')
    light.set_model_version_tag("opinions", "1", "stillhouse.note", "again; DROP TABLE model_versions")
    assert real.get_registered_model("opinions").aliases == {"champion": 1, "previous": 1, "canary": 2}
    assert real.get_model_version("opinions", "1").tags["stillhouse.note"] == "again; DROP TABLE model_versions"
    light.delete_registered_model_alias("opinions", "canary")
    light.delete_registered_model_alias("opinions", "never there")
    light.delete_model_version_tag("opinions", "1", "stillhouse.note")
    assert real.get_registered_model("opinions").aliases == {"champion": 1, "previous": 1}
    assert "stillhouse.note" not in real.get_model_version("opinions", "1").tags
    real.set_model_version_tag("opinions", "2", "theirs", "x")
    assert ask_models(light)["opinions"][0].tags["theirs"] == "x"


def test_a_version_that_is_not_there_or_was_deleted_gets_nothing(two_versions: Path) -> None:
    light, real = open_registry(two_versions), open_client(two_versions)
    real.delete_registered_model_alias("opinions", "previous")
    real.delete_model_version("opinions", "1")
    assert [version.version for version in ask_models(light)["opinions"]] == [2]
    for number in ("1", "7"):
        with pytest.raises(UserError, match=f"has no version {number}"):
            light.set_registered_model_alias("opinions", "champion", number)
        with pytest.raises(UserError, match=f"has no version {number}"):
            light.set_model_version_tag("opinions", number, "key", "value")
    assert real.get_registered_model("opinions").aliases == {"champion": 2}


@pytest.mark.parametrize(
    "change",
    ["ALTER TABLE registered_model_aliases ADD COLUMN since BIGINT", "DROP TABLE logged_models"],
)
def test_a_database_of_another_mlflow_is_left_to_its_own_client(
    two_versions: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    with sqlite3.connect(two_versions / DATABASE) as database:
        database.execute(change)
    database.close()
    monkeypatch.setattr(light_registry, "open_client", lambda home: "the real one")
    assert open_registry(two_versions) == "the real one"


@pytest.mark.parametrize(
    ("uri", "variable", "light"),
    [
        ("http://127.0.0.1:5000/", "", True),
        ("https://mlflow.example.org", "", True),
        ("http://user:secret@127.0.0.1:5000", "", False),
        ("http://127.0.0.1:5000", "MLFLOW_TRACKING_AUTH", False),
        ("http://127.0.0.1:5000", "MLFLOW_WORKSPACE", False),
        ("postgresql://127.0.0.1/mlflow", "", False),
    ],
)
def test_servers_that_need_more_than_a_password_are_left_to_mlflow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, variable: str, light: bool
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("HOME", str(tmp_path))
    if variable:
        monkeypatch.setenv(variable, "something")
    monkeypatch.setattr(light_registry, "open_client", lambda home: None)
    assert (open_registry(tmp_path) is not None) is light


def test_rollback_takes_a_second_of_a_processor(two_versions: Path) -> None:
    """The promise is five seconds; what else runs on this machine takes its share of those, so work is counted."""
    code = "import sys; from flows.cli import main\ntry: main()\nfinally: print('mlflow' in sys.modules)"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", code, "rollback", "opinions"],
        cwd=ROOT, env={**os.environ, "STILLHOUSE_HOME": str(two_versions)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.stdout.splitlines() == ["name opinions  version 1  alias champion  previous 2", "False"]
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 2.5
    assert open_client(two_versions).get_registered_model("opinions").aliases == {"champion": 1, "previous": 2}

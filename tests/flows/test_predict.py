"""A batch stays with the version it began with, whatever is promoted; texts reach the log only when asked."""

from pathlib import Path

import pandas as pd
import pytest

import stillhouse.batch.run as run
import tasks.registry as registry
from flows.predict import find_model, predict_file, predict_texts
from stillhouse.batch.settings import Settings
from stillhouse.errors import UserError
from stillhouse.prediction_log import PredictionLog
from tests.stillhouse.batch.test_batch import stop_after
from tests.stillhouse.batch.tiny_batch import write_rows
from tests.tasks.tiny_release import make_bundle


class Registry:
    """Versions 1 and 2 of "tiny"; `champion` is what its name means."""

    def __init__(self, root: Path) -> None:
        self.bundles = {version: make_bundle(root / f"v{version}", seed=version) for version in (1, 2)}
        self.champion = 1

    def resolve(self, home: Path, spec: str) -> dict:
        version = int(spec.partition("/")[2] or self.champion)
        if version not in self.bundles:
            raise UserError(f'"tiny" has no version {version}')
        return {"directory": self.bundles[version], "name": "tiny", "version": version}


@pytest.fixture
def models(tmp_path, monkeypatch):
    made = Registry(tmp_path / "models")
    monkeypatch.setattr(registry, "resolve", made.resolve)
    return made


@pytest.fixture
def source(tmp_path):
    return write_rows(tmp_path / "rows.csv", 60)


def interrupted(monkeypatch, spec, source, output, home) -> None:
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            predict_file(spec, str(source), output, Settings(chunk_rows=20), lambda: home)


def test_a_promotion_changes_nothing_until_the_next_run(models, source, tmp_path, monkeypatch):
    output, said = tmp_path / "out.csv", []
    interrupted(monkeypatch, "tiny", source, output, tmp_path)
    models.champion = 2
    resumed = predict_file("tiny", str(source), output, Settings(chunk_rows=20), lambda: tmp_path, say=said.append)
    assert (resumed["model"], resumed["resumed_after"]) == ("tiny/1", 40)
    assert said == ["going on after 40 rows, with tiny/1 as it began"]
    first = output.read_bytes()
    assert predict_file("tiny", str(source), output, Settings(chunk_rows=20), lambda: tmp_path)["model"] == "tiny/2"
    assert output.read_bytes() != first
    assert PredictionLog(tmp_path, "tiny").read()["version"].value_counts().to_dict() == {1: 60, 2: 60}


@pytest.mark.parametrize(("spec", "gone"), [("tiny/2", False), ("tiny", True)])
def test_asked_for_another_version_it_begins_anew(models, source, tmp_path, monkeypatch, spec, gone):
    output, said = tmp_path / "out.csv", []
    interrupted(monkeypatch, "tiny", source, output, tmp_path)
    models.champion = 2
    if gone:
        del models.bundles[1]
    account = predict_file(spec, str(source), output, Settings(chunk_rows=20), lambda: tmp_path, say=said.append)
    assert (account["model"], account["resumed_after"]) == ("tiny/2", 0)
    assert said[-1] == "beginning anew: it began with another model (tiny/1)"
    assert len(said) == 1 + gone


def test_a_url_is_read_like_a_file(models, source, tmp_path):
    pytest.importorskip("fsspec")
    predict_file("tiny", f"file://{source}", tmp_path / "url.csv", Settings(), lambda: tmp_path)
    predict_file("tiny", str(source), tmp_path / "file.csv", Settings(), lambda: tmp_path)
    assert (tmp_path / "url.csv").read_bytes() == (tmp_path / "file.csv").read_bytes()


def test_a_models_files_need_no_registry_and_no_home(models, source, tmp_path):
    def no_home() -> Path:
        raise AssertionError("nobody should ask for a home")

    account = predict_file(str(models.bundles[1]), str(source), tmp_path / "out.csv", Settings(), no_home)
    assert account["logged"] is False and account["rows"] == 60


def test_single_texts_are_logged_when_asked(models, tmp_path):
    model, texts = find_model("tiny", lambda: tmp_path), ["bad flight", ""]
    assert predict_texts(model, texts) == predict_texts(model, texts, tmp_path)
    log = PredictionLog(tmp_path, "tiny").read()
    assert sorted(log["text"]) == sorted(texts) and log["id"].nunique() == 2
    with pytest.raises(UserError, match="no prediction log"):
        predict_texts(find_model(str(models.bundles[1]), lambda: tmp_path), texts, tmp_path)


def test_old_rows_leave_the_log(models, source, tmp_path, monkeypatch):
    import os

    log = PredictionLog(tmp_path, "tiny")
    old = log.append(pd.DataFrame({"time": [1.0], "id": ["x"]}), "old")
    os.utime(old, (1, 1))
    monkeypatch.setattr(run, "reached", lambda *given, **more: None)
    account = predict_file("tiny", str(source), tmp_path / "out.csv", Settings(), lambda: tmp_path, keep_days=30)
    assert account["pruned"] == 1 and len(log.read()) == 60

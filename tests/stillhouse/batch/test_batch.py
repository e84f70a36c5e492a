"""One row out for one in, in every format; resumed chunk by chunk; nothing half-written."""

import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import stillhouse.batch.run as run
from stillhouse.batch.rows import _times
from stillhouse.batch.work import Work
from stillhouse.errors import UserError
from stillhouse.files import read_json, write_json
from stillhouse.prediction_log import PredictionLog
from stillhouse.scoring import OnnxScorer
from tests.stillhouse.batch.tiny_batch import TEXTS, batch, write_rows
from tests.tasks.tiny_release import make_bundle

NOW = 1.78e9
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


@pytest.fixture
def source(tmp_path):
    return write_rows(tmp_path / "rows.csv", 100)


def stop_after(monkeypatch, chunks: int) -> None:
    """Make the next batches die when they begin the chunk after so many."""
    real, count = run.predicted_columns, [0]

    def dies(*given):
        count[0] += 1
        if count[0] > chunks:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(run, "predicted_columns", dies)


def counted(monkeypatch) -> list[int]:
    real, seen = run.predicted_columns, []
    monkeypatch.setattr(run, "predicted_columns", lambda *given: seen.append(len(given[1])) or real(*given))
    return seen


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_has_one_row_for_one_in_order(model, source, tmp_path, suffix):
    output = tmp_path / f"out{suffix}"
    assert batch(model, source, output, chunk_rows=30)["rows"] == 100
    read = {".jsonl": lambda p: pd.read_json(p, lines=True), ".parquet": pd.read_parquet}
    found = read.get(suffix, lambda p: pd.read_csv(p, sep="\t" if suffix == ".tsv" else ",", keep_default_na=False))(
        output
    )
    assert found["number"].astype(int).tolist() == list(range(100))
    assert found["text"].tolist()[:6] == TEXTS
    said = OnnxScorer(model).predict(TEXTS)
    assert found["predicted"].tolist()[:6] == found["outcome"].tolist()[:6] == [row["label"] for row in said]
    assert found["confidence"][0] == pytest.approx(max(said[0]["probabilities"].values()), abs=1e-6)
    assert found["p_neutral"][4] == pytest.approx(said[4]["probabilities"]["neutral"], abs=1e-6)
    assert sorted(path.name for path in tmp_path.iterdir()) == [output.name, "rows.csv"], "no work directory is left"


def test_every_input_format_and_rows_without_a_text(model, tmp_path):
    frame = pd.DataFrame({"text": ["bad flight", None, ""], "n": [1.5, None, 3]})
    frame.to_parquet(tmp_path / "in.parquet")
    frame.to_json(tmp_path / "in.jsonl", orient="records", lines=True)
    for name in ("in.parquet", "in.jsonl"):
        batch(model, tmp_path / name, tmp_path / "out.jsonl")
        rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [row["text"] for row in rows] == ["bad flight", "", ""] and [row["n"] for row in rows] == [1.5, None, 3]
        assert rows[1]["predicted"] == rows[2]["predicted"]


def test_a_stopped_run_goes_on_with_the_first_missing_chunk(model, source, tmp_path, monkeypatch):
    batch(model, source, tmp_path / "whole.csv", chunk_rows=15)
    output = tmp_path / "out.csv"
    with monkeypatch.context() as patch:
        stop_after(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            batch(model, source, output, chunk_rows=15)
    assert not output.exists()
    seen = counted(monkeypatch)
    account = batch(model, source, output, chunk_rows=15)
    assert seen == [15, 15, 10] and account["resumed_after"] == 60 and account["anew"] == ""
    assert output.read_bytes() == (tmp_path / "whole.csv").read_bytes()


@pytest.mark.parametrize("change", ["input", "model", "settings", "chunk"])
def test_other_work_begins_anew_and_says_why(model, source, tmp_path, monkeypatch, change):
    output, other = tmp_path / "out.csv", shutil.copytree(model, tmp_path / "model")
    with monkeypatch.context() as patch:
        stop_after(patch, 2)
        with pytest.raises(KeyboardInterrupt):
            batch(other, source, output, chunk_rows=30)
    settings = {"chunk_rows": 30}
    if change == "input":
        source.write_text(source.read_text().replace("good", "late", 1))
    elif change == "model":
        info = read_json(other / "stillhouse.json")
        write_json(other / "stillhouse.json", {**info, "temperature": 2.0})
    elif change == "settings":
        settings["topic"] = "topic"
    else:
        with Work(output).chunk(1, ".csv").open("a") as file:
            file.write("half a row")
    account = batch(other, source, output, **settings)
    says = {"input": "the input changed", "model": "began with another model", "settings": "other settings: topic"}
    assert says.get(change, "chunks are damaged") in account["anew"]
    assert account["resumed_after"] == 0
    batch(other, source, tmp_path / "fresh.csv", **settings)
    assert output.read_bytes() == (tmp_path / "fresh.csv").read_bytes()


def test_kill_9_at_every_point_loses_and_doubles_nothing(model, tmp_path):
    source, home = write_rows(tmp_path / "rows.csv", 200), tmp_path / "home"
    command = [sys.executable, "-m", "tests.stillhouse.batch.tiny_batch", model, source]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    points = ["chunk-written:2", "chunk-logged:2", "chunk-done:2", "before-rename", "after-rename"]
    for point in points:
        fault = {"STILLHOUSE_FAULT": f"predict.{point}"}
        done = subprocess.run(
            [*command, tmp_path / "out.csv", home], cwd=ROOT, env={**environment, **fault}, check=False
        )
        assert done.returncode == -9, point
        assert (tmp_path / "out.csv").exists() == (point == "after-rename")
    seen = [json.loads(line) for line in (home / "logs" / "events.jsonl").read_text().splitlines()]
    assert [event["event"] for event in seen].count("predict.chunk-done") == 10, "no chunk was done twice"
    batch(model, source, tmp_path / "out.csv", home, chunk_rows=20, topic="topic", time="when")
    batch(model, source, tmp_path / "whole.csv", tmp_path / "other", chunk_rows=20, topic="topic", time="when")
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    logged, whole = (PredictionLog(place, "tiny").read().drop(columns="run") for place in (home, tmp_path / "other"))
    assert len(logged) == logged["id"].nunique() == 200
    pd.testing.assert_frame_equal(logged, whole)


def test_the_log_has_what_monitoring_needs(model, source, tmp_path):
    batch(
        model, source, tmp_path / "out.csv", tmp_path, version=7, chunk_rows=30, topic="topic", time="when", id="number"
    )
    log = PredictionLog(tmp_path, "tiny").read()
    out = pd.read_csv(tmp_path / "out.csv", keep_default_na=False)
    assert log["id"].tolist() == out["number"].astype(str).tolist() and set(log["version"]) == {7}
    assert log["topic"].tolist() == out["topic"].tolist() and log["text"].tolist() == out["text"].tolist()
    assert log["label"].tolist() == out["predicted"].tolist() and not log["unsure"].any()
    assert log["p_positive"].to_numpy() == pytest.approx(out["p_positive"].to_numpy(), abs=1e-6)
    assert log["time"][25] - log["time"][0] == 25 * 3600 and log["time"][0] == 1704067200
    assert "prediction_id" not in out, "the rows have an id of their own"


def test_without_texts_the_log_holds_embeddings_and_rows_get_ids(model, source, tmp_path):
    batch(model, source, tmp_path / "out.csv", tmp_path, keep_texts=False)
    log, out = PredictionLog(tmp_path, "tiny").read(), pd.read_csv(tmp_path / "out.csv")
    assert (
        log["text"].isna().all()
        and b"good crew" not in next((tmp_path / "predictions").rglob("*.parquet")).read_bytes()
    )
    assert log["embedding"][0] == pytest.approx(OnnxScorer(model).embed(TEXTS[:1])[0], abs=1e-2)
    assert out["prediction_id"].tolist() == log["id"].tolist() and log["id"].nunique() == 100


def test_the_same_work_again_is_logged_once(model, source, tmp_path):
    for _ in range(2):
        batch(model, source, tmp_path / "out.csv", tmp_path)
    assert len(PredictionLog(tmp_path, "tiny").read()) == 100
    batch(model, source, tmp_path / "out.csv", tmp_path, log=False, topic="topic")
    assert len(PredictionLog(tmp_path, "tiny").read()) == 100


def test_times_that_are_none_are_those_of_the_prediction(model, tmp_path):
    (tmp_path / "in.csv").write_text("text,at\na,1700000000.5\nb,soon\nc,2023-11-14\nd,\n")
    batch(model, tmp_path / "in.csv", tmp_path / "out.csv", tmp_path, time="at")
    log = PredictionLog(tmp_path, "tiny").read()
    assert log["text"].tolist()[:2] == ["c", "a"] and log["time"].tolist()[:2] == [1699920000, 1700000000.5]
    assert log["time"].iloc[2] == log["time"].iloc[3] > 1.7e9


def test_entities_have_their_places(tmp_path, source):
    model = make_bundle(tmp_path / "words", problem="token-classification")
    batch(model, source, tmp_path / "out.csv", tmp_path, keep_texts=False)
    out, log = pd.read_csv(tmp_path / "out.csv"), PredictionLog(tmp_path, "tiny").read()
    assert json.loads(out["entities"][4]) == OnnxScorer(model).predict([TEXTS[4]])[0]["entities"]
    assert set(log["label"]) <= {"place", "none"} and len(log["embedding"][0]) == 4


def test_two_processes_cannot_write_one_output(model, source, tmp_path):
    with Work(tmp_path / "out.csv").locked(), pytest.raises(UserError, match="another process is writing"):
        batch(model, source, tmp_path / "out.csv")


@pytest.mark.parametrize(
    ("output", "settings", "says"),
    [
        ("out.xlsx", {}, "cannot write out.xlsx"), ("rows.csv", {}, "the input itself"),
        ("rows.csv/out.csv", {}, "cannot write .*Not a directory"),
        ("out.csv", {"text": "txt"}, 'no column "txt"'), ("out.csv", {"topic": "topik"}, 'no column "topik"'),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_leaves_nothing(model, source, tmp_path, output, settings, says):
    with pytest.raises(UserError, match=says):
        batch(model, source, tmp_path / output, **settings)
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_an_input_that_changes_meanwhile_is_noticed(model, source, tmp_path, monkeypatch):
    real = run.predicted_columns

    def touches(*given):
        os.utime(source, (1, 1))
        return real(*given)

    monkeypatch.setattr(run, "predicted_columns", touches)
    with pytest.raises(UserError, match="changed while it was read"):
        batch(model, source, tmp_path / "out.csv")
    assert not (tmp_path / "out.csv").exists()


def test_columns_of_one_parquet_file_fit_together(model, tmp_path):
    rows = [{"text": "a", "x": None}, {"text": "b", "x": 1}, {"text": "c", "x": 2.5}, {"text": "d", "x": "word"}]
    for count in (3, 4):
        source = tmp_path / f"{count}.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows[:count]))
    batch(model, tmp_path / "3.jsonl", tmp_path / "out.parquet", chunk_rows=1)
    assert pd.read_parquet(tmp_path / "out.parquet")["x"].tolist()[1:] == [1.0, 2.5]
    with pytest.raises(UserError, match="changes its type after row 3"):
        batch(model, tmp_path / "4.jsonl", tmp_path / "out.parquet", chunk_rows=1)


def test_a_header_without_rows_leaves_nothing_in_the_log(model, tmp_path):
    (tmp_path / "header.csv").write_text("when,topic,text\n")
    with pytest.raises(UserError, match="has no rows"):
        batch(model, tmp_path / "header.csv", tmp_path / "out.csv", tmp_path)
    assert not list((tmp_path / "predictions").rglob("*.parquet"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["header.csv"]


def test_times_are_true_or_now():
    cells = {
        "2026-01-02T03:04:05+01:00": 1767319445.0, "2026-01-02": 1767312000.0, "1767312000": 1767312000.0,
        "9999-12-31": NOW, "0001-01-01": NOW, "1767312000000": NOW, "-5": NOW, "1e300": NOW, "9" * 400: NOW,
        "soon": NOW, "": NOW,
    }  # fmt: skip
    assert _times(pd.Series(list(cells)), NOW).tolist() == list(cells.values())


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_gap_makes_no_floats_of_ids(model, tmp_path, suffix):
    ids = [1, None, 3, 2**53 + 1]
    rows = [{"text": "the good crew", "key": key} for key in ids]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    output = tmp_path / f"out{suffix}"
    batch(model, tmp_path / "in.jsonl", output, tmp_path, chunk_rows=2, id="key")
    if suffix == ".csv":
        assert pd.read_csv(output, dtype=str)["key"].fillna("").tolist() == ["1", "", "3", str(2**53 + 1)]
    elif suffix == ".jsonl":
        assert [json.loads(line)["key"] for line in output.read_text().splitlines()] == ids
    else:
        assert pq.read_table(output)["key"].to_pylist() == ids
    assert PredictionLog(tmp_path, "tiny").read()["id"].fillna("").tolist() == ["1", "", "3", str(2**53 + 1)]


def test_cells_of_every_kind_are_written_as_the_format_says_them(model, tmp_path):
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    kinds = {"text": ["a\rb", "fine"], "when": [moment, None], "some": [[1.5, float("nan")], []], "raw": [b"\xff", b""]}
    pq.write_table(pa.table(kinds), tmp_path / "in.parquet")
    batch(model, tmp_path / "in.parquet", tmp_path / "out.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["when"] for row in rows] == ["2026-01-02T03:04:05+00:00", None]
    assert [row["some"] for row in rows] == [[1.5, None], []]
    batch(model, tmp_path / "in.parquet", tmp_path / "out.csv", tmp_path, time="when")
    assert len(pd.read_csv(tmp_path / "out.csv")) == 2, "a lone return ends no row"
    assert PredictionLog(tmp_path, "tiny").read()["time"].tolist()[0] == moment.timestamp()


@pytest.mark.parametrize("cell", ["{}", "1" + "0" * 30])
def test_what_parquet_cannot_hold_is_an_error_in_words(model, tmp_path, cell):
    (tmp_path / "in.jsonl").write_text(f'{{"text": "fine", "odd": {cell}}}\n')
    with pytest.raises(UserError, match="Parquet cannot hold these rows"):
        batch(model, tmp_path / "in.jsonl", tmp_path / "out.parquet")
    batch(model, tmp_path / "in.jsonl", tmp_path / "out.jsonl")
    assert json.loads((tmp_path / "out.jsonl").read_text())["odd"] == json.loads(cell)


def test_what_a_kill_left_of_a_finished_work_directory_is_swept(model, source, tmp_path):
    left = tmp_path / ".out.csv.stillhouse.done.1"
    (left / "chunk-000000.csv").mkdir(parents=True)
    batch(model, source, tmp_path / "out.csv")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.csv", "rows.csv"]

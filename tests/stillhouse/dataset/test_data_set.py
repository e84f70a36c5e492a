"""Adding files: every row is in the epoch or set aside, a content is there once, a kill or a second process changes
nothing about that."""

import errno
import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.dataset.data_set import DataSet
from stillhouse.dataset.intake import add_file
from stillhouse.dataset.judge import Columns, Schema
from stillhouse.dataset.landing import move
from stillhouse.dataset.take_in import ANY, take_in
from stillhouse.dataset.unlabelled import FEWEST, write_unlabelled
from stillhouse.errors import UserError
from stillhouse.prediction_log import PredictionLog

SCHEMA = Schema(labels=("bad", "good"))
MESSY = (
    b"text,label,topic\nhi there,good,x\n,bad,y\nsome,ugly,z\nbroken\n,,\n\nxx\x01\x02\x03\x04,good,\ncaf\xe9,bad,q\n"
    b"no label,,w\n"
)


@pytest.fixture
def data_set(tmp_path: Path) -> DataSet:
    return DataSet(tmp_path / "home", "model")


def rejected(data_set: DataSet, number: int) -> list[dict]:
    path = data_set.root / "rejected" / f"{number:04d}.jsonl"
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]] if path.exists() else []


def epoch(data_set: DataSet, number: int) -> pd.DataFrame:
    return pd.read_parquet(data_set.root / "epochs" / f"{number:04d}.parquet")


def test_each_bad_row_is_set_aside_with_its_reason_and_content(data_set, tmp_path):
    (tmp_path / "a.csv").write_bytes(MESSY)
    added = add_file(data_set, tmp_path / "a.csv", SCHEMA, ANY)
    assert (added["rows"], added["labels"], added["number"]) == (2, {"bad": 1, "good": 1}, 1)
    rows = rejected(data_set, 1)
    assert [(row["row"], row["reason"]) for row in rows] == [
        (2, "no_text"), (3, "unknown_label"), (4, "malformed"), (5, "no_text"), (6, "garbage"), (8, "no_label")
    ]  # fmt: skip
    assert added["rejected"] == dict(sorted(Counter(row["reason"] for row in rows).items()))
    assert rows[1]["content"] == {"text": "some", "label": "ugly", "topic": "z"}
    assert rows[2]["content"] == {"unreadable": ["broken"]}
    good = epoch(data_set, 1)
    assert good["text"].tolist() == ["hi there", "café"]
    assert good[["source_file", "source_row", "topic"]].values.tolist() == [["a.csv", "1", "x"], ["a.csv", "7", "q"]]


def test_the_recipe_s_columns_names_and_confidence_hold_for_new_rows(data_set, tmp_path):
    schema = Schema(
        "tweet", "mood", ("bad", "good"), {"positive": "good", "spam": None}, confidence="sure", min_confidence=0.5
    )  # fmt: skip
    lines = ["a,positive,0.9", "b,good,0.1", "c,spam,1", "d,bad,"]
    (tmp_path / "a.csv").write_text("\n".join(["tweet,mood,sure", *lines]))
    added = add_file(data_set, tmp_path / "a.csv", schema, ANY)
    assert epoch(data_set, 1)[["text", "label"]].values.tolist() == [["a", "good"], ["d", "bad"]]
    assert added["rejected"] == {"left_out_label": 1, "low_confidence": 1}


def test_other_columns_can_be_named_and_a_missing_one_is_an_error(data_set, tmp_path):
    (tmp_path / "a.csv").write_text("body,stars,text\nhello,good,other\n")
    with pytest.raises(UserError, match='has no column "bodi"'):
        add_file(data_set, tmp_path / "a.csv", SCHEMA, Columns("bodi", "stars", None))
    add_file(data_set, tmp_path / "a.csv", SCHEMA, Columns("body", "stars", None))
    assert epoch(data_set, 1)[["text", "label", "file_text"]].values.tolist() == [["hello", "good", "other"]]
    (tmp_path / "b.csv").write_text("colour,size\nred,1\n")
    with pytest.raises(UserError, match='has no column "text"'):
        add_file(data_set, tmp_path / "b.csv", SCHEMA, ANY)
    assert data_set.version() == 1


def test_new_labels_are_taken_on_request(data_set, tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nhello,ugly\n")
    added = add_file(data_set, tmp_path / "a.csv", Schema(labels=("bad", "good"), grow=True), ANY)
    assert (added["rows"], added["new_labels"]) == (1, ["ugly"])


def test_the_same_content_is_added_once(data_set, tmp_path):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_bytes(MESSY)
    first, second = (add_file(data_set, tmp_path / name, SCHEMA, ANY) for name in ("a.csv", "b.csv"))
    assert (first["known"], second["known"], second["number"]) == (False, True, 1)
    assert len(data_set.manifest()["epochs"]) == 1


def test_a_file_of_bad_rows_alone_is_kept_but_makes_no_version(data_set, tmp_path):
    (tmp_path / "a.csv").write_text("text,label\nhello,ugly\n")
    added = add_file(data_set, tmp_path / "a.csv", SCHEMA, ANY)
    assert (added["rows"], added["file"], data_set.version()) == (0, None, 0)
    assert len(rejected(data_set, 1)) == 1


CELLS = st.one_of(st.sampled_from(["", "good", "bad", "ugly", "hello", '"', "a,b", "\x00x", "x\u2028y"]), st.text())
TEXTS = st.lists(st.one_of(st.none(), CELLS, st.integers(), st.lists(CELLS, max_size=2)), min_size=3, max_size=3)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.one_of(TEXTS, st.sampled_from(["junk", "[1]", "{"])), min_size=1, max_size=12))
def test_good_and_set_aside_are_the_rows_of_the_file(rows):
    if all(isinstance(row, str) for row in rows):
        rows = [*rows, ["hello", "good", "1"]]
    lines = [
        row if isinstance(row, str) else json.dumps(dict(zip(("text", "label", "x"), row, strict=True))) for row in rows
    ]
    with tempfile.TemporaryDirectory() as place:
        data_set, path = DataSet(Path(place), "model"), Path(place) / "a.jsonl"
        path.write_text("\n".join(lines))
        added = add_file(data_set, path, SCHEMA, ANY)
        kept = epoch(data_set, 1)["source_row"].astype(int).tolist() if added["rows"] else []
        aside = [row["row"] for row in rejected(data_set, 1)]
    assert sorted(kept + aside) == list(range(1, len(rows) + 1))
    assert (added["rows"], sum(added["rejected"].values())) == (len(kept), len(aside))


def test_labels_that_come_later_are_joined_to_the_prediction_log(data_set, tmp_path):
    log = PredictionLog(data_set.home, "model")
    log.append(pd.DataFrame({"time": [1.0, 2.0, 3.0], "id": ["1", "2", "3"], "text": ["hi", None, "ho"]}), "part")
    (tmp_path / "l.csv").write_text("id,label\n1,good\n2,bad\n3,ugly\n4,good\n,bad\n")
    added = add_file(data_set, tmp_path / "l.csv", SCHEMA, ANY)
    assert epoch(data_set, 1)[["id", "text", "label"]].values.tolist() == [["1", "hi", "good"]]
    assert [(row["id"], row["reason"]) for row in rejected(data_set, 1)] == [
        ("2", "text_not_kept"), ("3", "unknown_label"), ("4", "unknown_id"), ("", "no_id")
    ]  # fmt: skip
    assert added["kind"] == "labels"
    assert log.labels()[["id", "label"]].values.tolist() == [["1", "good"], ["2", "bad"]]
    log.append(pd.DataFrame({"time": [4.0], "id": ["4"], "text": ["hu"]}), "later")
    assert add_file(data_set, tmp_path / "l.csv", SCHEMA, ANY, again=True)["rows"] == 1, "4 is in the log now"
    assert log.labels()[["id", "label"]].values.tolist() == [["1", "good"], ["2", "bad"], ["4", "good"]]


def test_damage_of_an_epoch_is_named(data_set, tmp_path):
    for number in (1, 2):
        (tmp_path / "a.csv").write_text(f"text,label\nhello {number},good\n")
        add_file(data_set, tmp_path / "a.csv", SCHEMA, ANY)
    whole = data_set.joined(data_set.epochs())
    assert pd.read_parquet(whole)["text"].tolist() == ["hello 1", "hello 2"]
    before = whole.read_bytes()
    assert data_set.joined(data_set.epochs()).read_bytes() == before
    (data_set.root / "epochs" / "0002.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match=r"epoch 2: .*0002\.parquet was changed"):
        data_set.joined(data_set.epochs())


@pytest.mark.parametrize("url", [False, True])
def test_files_of_the_landing_place_are_taken_when_they_are_complete(data_set, tmp_path, monkeypatch, url):
    landing = "memory://landing-test" if url else str(tmp_path / "landing")
    files = fsspec.filesystem("memory") if url else fsspec.filesystem("file")
    put = {"a.csv": MESSY, "deep/b.jsonl": b'{"text": "hi", "label": "good"}\n', "broken.parquet": b"no", "x.md": b"no",
           ".h.csv": MESSY, "y.csv.part": MESSY, "_tmp/z.csv": MESSY}  # fmt: skip
    for name, content in put.items():
        place = f"{landing}/{name}"
        files.makedirs(place.rpartition("/")[0], exist_ok=True)
        files.pipe(place, content)
    monkeypatch.setattr("stillhouse.dataset.landing.SETTLE_SECONDS", 0.05)
    taken = take_in(data_set, landing, SCHEMA)
    assert [entry["source"] for entry in taken.added] == ["a.csv", "deep/b.jsonl"]
    assert list(taken.refused) == ["broken.parquet"]
    assert taken.ignored == ["x.md"]
    again = take_in(data_set, landing, SCHEMA)
    assert (again.added, again.refused) == ([], {})
    left = {Path(name).name for name in files.find(landing)}
    if url:
        assert left == {Path(name).name for name in put}
        files.rm(landing, recursive=True)
    else:
        assert left == {"x.md", ".h.csv", "y.csv.part", "z.csv"}
        kept = {
            p.relative_to(data_set.root).as_posix()
            for name in ("received", "refused")
            for p in (data_set.root / name).iterdir()
        }
        assert kept == {"received/a.csv", "received/b.jsonl", "refused/broken.parquet"}


def test_a_file_that_still_grows_waits(data_set, tmp_path, monkeypatch):
    path = tmp_path / "landing" / "a.csv"
    path.parent.mkdir()
    path.write_text("text,label\nhi,good\n")

    def grow(seconds: float) -> None:
        path.write_text(path.read_text() + "ho,bad\n")

    monkeypatch.setattr("stillhouse.dataset.take_in.look", lambda landing: look(landing, grow))
    from stillhouse.dataset.landing import look

    taken = take_in(data_set, path.parent, SCHEMA)
    assert (taken.added, taken.waiting) == ([], ["a.csv"])
    os.utime(path, (1, 1))
    assert take_in(data_set, path.parent, SCHEMA).rows == 2


ADD = """
import sys; from pathlib import Path
from stillhouse.dataset.data_set import DataSet; from stillhouse.dataset.judge import Schema
from stillhouse.dataset.take_in import take_in
print(take_in(DataSet(Path(sys.argv[1]), "model"), sys.argv[2], Schema(labels=("bad", "good"))).rows)
"""
POINTS = ("data.before-files", "data.before-listing", "data.after-listing", "data.before-move")


def start(home: Path, landing: Path, fault: str = "") -> "subprocess.Popen[str]":
    environment = {**os.environ, "STILLHOUSE_FAULT": fault, "PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.Popen(
        [sys.executable, "-c", ADD, str(home), str(landing)], env=environment, stdout=subprocess.PIPE, text=True
    )  # fmt: skip


def fill(landing: Path, files: int) -> set[str]:
    landing.mkdir()
    for number in range(files):
        path = landing / f"{number}.csv"
        path.write_text("text,label\n" + "".join(f"file {number} row {row},good\n" for row in range(5)) + "x,ugly\n")
        os.utime(path, (1, 1))
    return {f"file {number} row {row}" for number in range(files) for row in range(5)}


def check_all_there_once(data_set: DataSet, landing: Path, wanted: set[str], files: int) -> None:
    texts = [text for entry in data_set.epochs() for text in epoch(data_set, entry["number"])["text"]]
    assert sorted(texts) == sorted(wanted)
    assert sum(len(rejected(data_set, entry["number"])) for entry in data_set.epochs()) == files
    assert not list(landing.iterdir())
    assert len(list((data_set.root / "received").iterdir())) == files
    assert not data_set.damage(data_set.epochs())
    assert not [path for path in data_set.root.rglob(".*") if path.name != ".lock"]


@pytest.mark.parametrize("point", POINTS)
def test_a_kill_loses_and_doubles_nothing(data_set, tmp_path, point):
    landing = tmp_path / "landing"
    wanted = fill(landing, 2)
    killed = start(data_set.home, landing, point)
    killed.communicate()
    assert killed.returncode == -9
    take_in(data_set, landing, SCHEMA)
    check_all_there_once(data_set, landing, wanted, 2)


def test_two_processes_take_each_file_once(data_set, tmp_path):
    landing = tmp_path / "landing"
    wanted = fill(landing, 12)
    processes = [start(data_set.home, landing) for _ in range(2)]
    rows = [int(process.communicate()[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sum(rows) == len(wanted)
    check_all_there_once(data_set, landing, wanted, 12)


def test_texts_without_a_label_can_be_had_apart(data_set, tmp_path):
    (tmp_path / "a.csv").write_text("text\n" + "".join(f"text {number}\n" for number in range(FEWEST)))
    added = add_file(data_set, tmp_path / "a.csv", SCHEMA, ANY)
    assert added["rejected"] == {"no_label": FEWEST}
    path = write_unlabelled(data_set, 1, ["bad", "good"])
    assert path and set(pd.read_parquet(path)["text"]) == {f"text {number}" for number in range(FEWEST)}
    assert write_unlabelled(data_set, 0, ["bad", "good"]) is None


def test_a_landing_place_that_does_not_answer_is_not_an_empty_one(data_set):
    with pytest.raises(UserError, match=r"cannot list http://127.0.0.1:9/new"):
        take_in(data_set, "http://127.0.0.1:9/new", SCHEMA)


def test_a_file_without_one_json_object_is_not_called_empty(data_set, tmp_path, monkeypatch):
    landing = tmp_path / "landing"
    landing.mkdir()
    (landing / "prose.jsonl").write_text("no JSON\nat all\n")
    monkeypatch.setattr("stillhouse.dataset.landing.SETTLE_SECONDS", 0.05)
    (reason,) = take_in(data_set, str(landing), SCHEMA).refused.values()
    assert "has no line that is a JSON object" in reason


def test_half_a_surrogate_pair_stops_nothing(data_set, tmp_path):
    path = tmp_path / "odd.jsonl"
    lines = [
        r'{"text": "hi there", "label": "good", "\ud800": "a\ud800"}',
        r'{"text": "one of many words \ud800", "label": "ugly\ud800"}',
        r'{"id": "x\ud800", "text": "so so", "label": "bad"}', r'{"text": "", "label": "bad", "k": ["\ud800"]}',
    ]  # fmt: skip
    path.write_text("\n".join(lines))
    added = add_file(data_set, path, SCHEMA, ANY)
    assert (added["rows"], sum(added["rejected"].values())) == (2, 2)
    assert [row["reason"] for row in rejected(data_set, 1)] == ["unknown_label", "no_text"]


def test_a_file_of_which_nothing_was_used_can_be_added_with_other_columns(data_set, tmp_path):
    path = tmp_path / "week.csv"
    path.write_text("text,label,topic\nhi there,good,x\nso so,bad,y\n")
    assert add_file(data_set, path, SCHEMA, Columns(None, "topic", None))["rows"] == 0
    assert add_file(data_set, path, SCHEMA, ANY)["known"], "without being asked it is not read again"
    added = add_file(data_set, path, SCHEMA, ANY, again=True)
    assert (added["rows"], added["known"], data_set.version()) == (2, False, 2)
    assert add_file(data_set, path, SCHEMA, ANY, again=True)["known"]
    other = tmp_path / "other.csv"
    other.write_text("text,label\nme,good\n")
    with pytest.raises(UserError, match="text and label at once"):
        add_file(data_set, other, SCHEMA, Columns("label", "label", None))


@pytest.mark.parametrize("content", ['{"epochs": [{}], "refused": []}', '{"epochs": [1], "refused": []}', "[]"])
def test_a_manifest_that_says_something_else_is_damaged(data_set, content):
    data_set.root.mkdir(parents=True)
    (data_set.root / "dataset.json").write_text(content)
    with pytest.raises(UserError, match="is damaged"):
        data_set.epochs()


def test_a_file_that_nobody_can_read_does_not_keep_the_others_out(data_set, tmp_path, monkeypatch):
    landing = tmp_path / "landing"
    landing.mkdir()
    monkeypatch.setattr("stillhouse.dataset.landing.SETTLE_SECONDS", 0)
    deep = '{"a":' * 800 + "1" + "}" * 800
    lines = {
        "deep": f'{{"text": "fine words", "label": "good"}}\n{{"text": {deep}, "label": "bad"}}\n',
        "huge": f'{{"text": "more fine words", "label": "good", "sure": {"9" * 400}}}\n',
    }
    for name, content in lines.items():
        (landing / f"{name}.jsonl").write_text(content)
    (landing / os.fsdecode(b"odd\xff.csv")).write_text("text,label\nan odd name,bad\n")
    good = pa.table({"text": ["of a table"], "label": ["good"]})
    pq.write_table(good, landing / "table.parquet")
    far = pa.array([2**62], pa.timestamp("us"))
    pq.write_table(good.append_column("when", far), landing / "far.parquet")
    wrong = pa.StringArray.from_buffers(1, pa.py_buffer(np.array([0, 2], np.int32)), pa.py_buffer(b"\xff\xfe"))
    pq.write_table(pa.table({"text": wrong, "label": ["good"]}), landing / "bytes.parquet")
    (landing / "link.csv").symlink_to(landing / "deep.jsonl")
    schema = replace(SCHEMA, confidence="sure", min_confidence=0.5)
    taken = take_in(data_set, landing, schema)
    assert {entry["source"]: entry["rows"] for entry in taken.added} == {
        "deep.jsonl": 1, "huge.jsonl": 1, "odd\\xff.csv": 1, "table.parquet": 1
    }  # fmt: skip
    assert set(taken.refused) == {"far.parquet", "bytes.parquet"}
    assert list(taken.left) == ["link.csv"]
    assert [path.name for path in landing.iterdir()] == ["link.csv"]


def test_what_cannot_be_moved_away_is_named_and_known(data_set, tmp_path, monkeypatch):
    landing = tmp_path / "landing"
    landing.mkdir()
    (landing / "a.csv").write_text("text,label\nhi there,good\n")
    monkeypatch.setattr("stillhouse.dataset.landing.SETTLE_SECONDS", 0)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: path != landing and real(path, mode))
    assert take_in(data_set, landing, SCHEMA).rows == 1
    again = take_in(data_set, landing, SCHEMA)
    assert (again.rows, list(again.left), list((data_set.root).glob("received/*"))) == (0, ["a.csv"], [])
    monkeypatch.undo()
    monkeypatch.setattr("stillhouse.dataset.landing.SETTLE_SECONDS", 0)
    take_in(data_set, landing, SCHEMA)
    assert (list(landing.iterdir()), len(list(data_set.root.glob("received/*")))) == ([], 1)


def test_rows_that_were_set_aside_can_be_added_later_and_only_they(data_set, tmp_path):
    path = tmp_path / "week.csv"
    path.write_text("text,label\nhi there,good\nso so,ugly\n,bad\n")
    assert add_file(data_set, path, SCHEMA, ANY)["rows"] == 1
    assert add_file(data_set, path, SCHEMA, ANY, again=True)["known"], "nothing more fits"
    assert not (data_set.root / "rejected" / "0002.jsonl").exists()
    added = add_file(data_set, path, replace(SCHEMA, grow=True), ANY, again=True)
    assert (added["rows"], added["labels"], added["new_labels"]) == (1, {"ugly": 1}, ["ugly"])
    assert epoch(data_set, 2)["text"].tolist() == ["so so"]
    assert [row["reason"] for row in rejected(data_set, 2)] == ["no_text"]
    assert add_file(data_set, path, replace(SCHEMA, grow=True), ANY, again=True)["known"]


def test_a_family_of_emoji_is_a_text(data_set, tmp_path):
    path = tmp_path / "week.csv"
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466"
    path.write_text(f"text,label\n{family},good\n")
    assert add_file(data_set, path, SCHEMA, ANY)["rows"] == 1


def test_a_damaged_log_or_list_of_rejects_refuses_no_file(data_set, tmp_path, monkeypatch):
    monkeypatch.setattr("stillhouse.dataset.landing.SETTLE_SECONDS", 0)
    landing = tmp_path / "landing"
    landing.mkdir()
    (landing / "a.csv").write_text("text,label\nhi there,good\n,bad\n")
    assert take_in(data_set, landing, SCHEMA).rows == 1
    (data_set.root / "rejected" / "0001.jsonl").write_text("[]\n")
    with pytest.raises(UserError, match=r"0001\.jsonl is damaged"):
        add_file(data_set, data_set.root / "received" / "a.csv", SCHEMA, ANY, again=True)
    (data_set.root / "rejected" / "0001.jsonl").unlink()
    (landing / "b.csv").write_text("text,label\nhi there,good\n,bad\n")
    taken = take_in(data_set, landing, SCHEMA)
    assert (taken.refused, list(landing.iterdir())) == ({}, []), "known all the same"
    log = PredictionLog(data_set.home, "model")
    part = log.append(pd.DataFrame({"time": [1.0], "id": ["1"], "text": ["hi"]}), "part")
    part.write_bytes(b"damaged")
    (landing / "labels.csv").write_text("id,label\n1,good\n")
    with pytest.raises(UserError, match="is damaged"):
        take_in(data_set, landing, SCHEMA)
    assert (landing / "labels.csv").exists() and not data_set.manifest()["refused"]


@pytest.mark.parametrize("may", [True, False])
def test_a_move_to_another_disk_leaves_one_file(tmp_path, monkeypatch, may):
    source, target = tmp_path / "in" / "a.csv", tmp_path / "out" / "a.csv"
    source.parent.mkdir()
    source.write_text("text")
    real, unlink = os.replace, Path.unlink

    def replace_here(old, new):
        if Path(old).parent != Path(new).parent:
            raise OSError(errno.EXDEV, "another disk")
        real(old, new)

    def unlink_or_not(path, **how):
        if path == source and not may:
            raise PermissionError
        unlink(path, **how)

    monkeypatch.setattr(os, "replace", replace_here)
    monkeypatch.setattr(Path, "unlink", unlink_or_not)
    assert move(source, target) is may
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.csv"]
    assert target.exists() is may

"""Parts are written once, read by time and pruned by age; labels come later."""

import os
import re
import time

import numpy as np
import pandas as pd
import pytest

from stillhouse.errors import UserError
from stillhouse.prediction_log import DAY_SECONDS, PredictionLog

NOON = 1_700_000_000.0  # 2023-11-14 22:13 UTC


def frame(*times: float, label: str = "good", **columns: object) -> pd.DataFrame:
    ids = [f"{label}-{index}" for index in range(len(times))]
    return pd.DataFrame({"time": times, "id": ids, "version": 3, "text": "a text", "label": label, **columns})


def test_what_is_appended_is_read_in_the_order_of_time(tmp_path):
    log = PredictionLog(tmp_path, "opinions")
    first = log.append(frame(NOON, NOON + 50, p_good=0.75, topic=["sport", None]), "b")
    log.append(frame(NOON + 20, p_good=0.5, run="r1"), "a")
    assert first == tmp_path / "predictions/opinions/2023-11-14/b.parquet"
    found = log.read()
    assert found["time"].tolist() == [NOON, NOON + 20, NOON + 50]
    assert found["p_good"].dtype == np.float32 and found["p_good"].tolist() == [0.75, 0.5, 0.75]
    assert found["version"].tolist() == [3, 3, 3] and found["topic"].isna().tolist() == [False, True, True]
    assert set(found) >= {"time", "id", "version", "text", "topic", "label", "unsure", "run"}


def test_the_same_part_again_doubles_nothing_even_on_another_day(tmp_path):
    log = PredictionLog(tmp_path, "opinions")
    first = log.append(frame(NOON, NOON + 1), "run-0001")
    again = log.append(frame(NOON + DAY_SECONDS, NOON + DAY_SECONDS), "run-0001")
    assert again == first and len(log.read()) == 2
    assert log.append(frame(NOON + DAY_SECONDS), "run-0002").parent != first.parent


def test_a_window_of_time_and_some_columns(tmp_path):
    log = PredictionLog(tmp_path, "opinions")
    log.append(frame(NOON, NOON + DAY_SECONDS, NOON + 2 * DAY_SECONDS), "long")  # one part over three days
    log.append(frame(NOON + DAY_SECONDS + 1, p_late=1.0), "late")
    assert log.read(start=NOON + DAY_SECONDS)["time"].tolist() == [NOON + k for k in (86400, 86401, 172800)]
    assert log.read(end=NOON + DAY_SECONDS)["time"].tolist() == [NOON]
    assert list(log.read(NOON, NOON + 1, columns=["label", "nowhere"])) == ["label"]
    mixed = log.read(columns=["p_late", "id"])
    assert list(mixed) == ["p_late", "id"] and mixed["p_late"].isna().tolist() == [True, True, False, True]


def test_an_empty_log_has_the_columns(tmp_path):
    log = PredictionLog(tmp_path, "opinions")
    assert len(log.read()) == 0 and {"time", "id", "label"} <= set(log.read())
    assert list(log.labels()) == ["id", "label", "time"] and log.prune(1) == 0


def test_embeddings_stay_where_texts_are_left_out(tmp_path):
    log = PredictionLog(tmp_path, "opinions")
    vectors = [np.array([0.5, 2.0], np.float16), np.array([1.0, -1.0], np.float16)]
    log.append(frame(NOON, NOON).assign(text=None, embedding=vectors), "a")
    log.append(frame(NOON + 1), "b")
    found = log.read()
    assert found["text"].isna().tolist() == [True, True, False]
    assert np.stack(found["embedding"][:2].tolist()).tolist() == [[0.5, 2.0], [1.0, -1.0]]


def test_the_last_label_of_an_id_wins(tmp_path):
    log = PredictionLog(tmp_path, "opinions")
    given = pd.DataFrame({"id": ["a", "b"], "label": ["good", "bad"], "time": [NOON, NOON]})
    assert log.add_labels(given, "monday") == log.add_labels(given, "monday") == 2
    assert log.add_labels(pd.DataFrame({"id": ["a"], "label": ["bad"]}), "earlier-in-name") == 1
    assert log.labels()[["id", "label"]].values.tolist() == [["a", "bad"], ["b", "bad"]]


def test_retention_removes_whole_parts_that_are_old(tmp_path):
    log, now = PredictionLog(tmp_path, "opinions"), time.time()
    old = log.append(frame(now - 9 * DAY_SECONDS), "old")
    log.append(frame(now - 9 * DAY_SECONDS, now), "still-needed")
    log.append(frame(now - 20 * DAY_SECONDS), "older")
    log.add_labels(pd.DataFrame({"id": ["x"], "label": ["good"], "time": [now - 30 * DAY_SECONDS]}), "old")
    assert log.prune(keep_days=7) == 0, "they were written a moment ago"
    for path in log.root.rglob("*.parquet"):
        os.utime(path, (now - 8 * DAY_SECONDS,) * 2)
    assert log.prune(keep_days=7) == 3 and log.prune(keep_days=7) == 0
    assert old.parent.is_dir() and len(list(log.root.glob("????-??-??"))) == 1
    assert len(log.read()) == 2 and len(log.labels()) == 0


def test_half_a_part_is_no_part(tmp_path, monkeypatch):
    log = PredictionLog(tmp_path, "opinions")
    log.append(frame(NOON), "whole")

    def dies(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", dies)
    with pytest.raises(KeyboardInterrupt):
        log.append(frame(NOON, NOON), "half")
    assert len(log.read()) == 1


@pytest.mark.parametrize("name", ["", "..", "a/b", ".hidden", "a\0b"])
def test_names_cannot_leave_the_directory(tmp_path, name):
    with pytest.raises(ValueError, match="cannot name"):
        PredictionLog(tmp_path, name)
    with pytest.raises(ValueError, match="cannot name"):
        PredictionLog(tmp_path, "m").append(frame(NOON), name)


def test_an_unknown_column_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no column 'author'"):
        PredictionLog(tmp_path, "m").append(frame(NOON, author="me"), "a")


def test_a_damaged_part_is_named_by_who_reads_it_and_holds_up_nobody_else(tmp_path):
    log = PredictionLog(tmp_path, "opinions")
    path = log.append(frame(NOON), "one")
    path.write_bytes(path.read_bytes()[:50])
    assert log.prune(0) == 0
    with pytest.raises(UserError, match=re.escape(f"{path} is damaged")):
        log.read()


def test_a_part_without_rows_has_no_newest_one(tmp_path):
    log = PredictionLog(tmp_path, "opinions")
    log.append(frame(), "none")
    assert log.prune(1) == 0

"""Means over streams: by hand, and through chunks and kills."""

import shutil

import numpy as np
import pandas as pd
import pytest

import stillhouse.batch.smoothing as smoothing
from stillhouse.batch.smoothing import Smoother
from stillhouse.files import read_json, write_json
from tests.stillhouse.batch.test_batch import stop_after
from tests.stillhouse.batch.tiny_batch import batch, write_rows
from tests.tasks.tiny_release import LABELS, make_bundle


def test_a_row_counts_half_after_the_half_life():
    rows = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    means = Smoother(1).smooth(rows, ["a", "a", "a"])
    assert means[0].tolist() == [1, 0]
    assert means[1].tolist() == pytest.approx([0.5 / 1.5, 1 / 1.5])
    assert means[2].tolist() == pytest.approx([0.25 / 1.75, 1.5 / 1.75])
    two = Smoother(2).smooth(np.array([[1.0], [0.0], [0.0]]), ["a"] * 3)
    assert two[2][0] == pytest.approx(0.5 / (0.5 + 0.5**0.5 + 1))


def test_streams_do_not_mix_and_their_state_goes_on(monkeypatch):
    chance = np.random.default_rng(0)
    rows, names = chance.random((50, 3)), [str(i) for i in chance.integers(0, 4, 50)]
    whole = Smoother(5).smooth(rows, names)
    first = Smoother(5)
    begin = first.smooth(rows[:20], names[:20])
    rest = Smoother(5, first.state()).smooth(rows[20:], names[20:])
    assert np.array_equal(np.concatenate([begin, rest]), whole)
    mine = [i for i, name in enumerate(names) if name == "2"]
    assert np.array_equal(whole[mine], Smoother(5).smooth(rows[mine], ["2"] * len(mine)))
    monkeypatch.setattr(smoothing, "MOST_STREAMS", 2)
    few = Smoother(5)
    few.smooth(rows, names)
    assert [name for name, *_ in few.state()] == list(dict.fromkeys(names[::-1]))[1::-1]


def test_a_file_is_smoothed_by_topic_across_chunks_and_kills(tmp_path, monkeypatch):
    model, source = make_bundle(tmp_path / "model"), write_rows(tmp_path / "rows.csv", 100)
    about = read_json(model / "stillhouse.json")
    write_json(model / "stillhouse.json", {**about, "smoothing": {"half_life": 20.0, "by": "topic"}})
    batch(model, source, tmp_path / "whole.csv", chunk_rows=100)
    out = pd.read_csv(tmp_path / "whole.csv")
    mine = out[out["topic"] == "t1"]
    alone = Smoother(20).smooth(mine[["p_negative", "p_neutral", "p_positive"]].to_numpy(), [""] * len(mine))
    assert mine[["s_negative", "s_neutral", "s_positive"]].to_numpy() == pytest.approx(alone, abs=1e-12)
    assert (mine["s_neutral"] - mine["p_neutral"]).abs().max() > 0.3
    assert mine["smoothed"].tolist() == [LABELS[best] for best in alone.argmax(axis=1)]
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(KeyboardInterrupt):
            batch(model, source, tmp_path / "out.csv", chunk_rows=17)
    assert batch(model, source, tmp_path / "out.csv", chunk_rows=17)["resumed_after"] == 51
    straight = shutil.copytree(model, tmp_path / "again")
    batch(straight, source, tmp_path / "straight.csv", chunk_rows=17)
    assert (tmp_path / "out.csv").read_bytes() == (tmp_path / "straight.csv").read_bytes()

"""Extra rows have a say through the teachers alone, and never through their labels."""

import numpy as np
import pandas as pd
import pytest
import torch

from stillhouse.distill.hidden import Hidden
from stillhouse.distill.logits import Logits
from stillhouse.errors import UserError
from stillhouse.train._batches import Batch
from stillhouse.train._loss import cross_entropy_share
from stillhouse.train._soft import soft_and_hard_loss
from stillhouse.train._teachers import Taught
from stillhouse.train._tokens import IGNORED, UNLABELLED, TokenizedData, Tokens
from stillhouse.train.stage import Stage
from tests.stillhouse.train.tiny_training import (
    as_input,
    make_base,
    make_data,
    make_job,
    same,
    text_rows,
    weights,
)

GIVEN = {"layers": 2, "learning_rate": 3e-3, "num_train_epochs": 1, "dropout": 0.0}


def more_rows(directory, count=32, seed=7, wrong=False, held_out=0):
    """A `data` artifact of other rows; `wrong`: with other labels; the first `held_out` are validation rows, and one
    more a test row."""
    data = make_data(directory)
    frame = text_rows(count, seed).assign(id=[f"{i if i < held_out else -i - 1}" for i in range(count)])
    if held_out:
        frame.loc[held_out, "id"] = "held out"
    if wrong:
        frame["label"] = (frame["label"] + 1) % 3
    frame.to_parquet(data / "train.parquet")
    return data


def distill(root, name, taught, extra=None, derived=None, method=Logits, **settings):
    inputs = {"teachers": [as_input(taught[1], "model.torch")]} | ({"extra": [as_input(extra)]} if extra else {})
    more = {} if derived is None else {"derived": derived}
    job = make_job(root, name, taught[0], inputs=inputs, **more)
    return job, method.model_validate({**GIVEN, **settings}).run(job)


def test_the_loss_of_a_step_with_an_extra_row_by_hand():
    """Two labelled rows and one without: the teachers' part is a mean over three, the labels' part over two."""
    chance = torch.Generator().manual_seed(0)
    logits, taught = torch.randn(3, 2, generator=chance), torch.randn(3, 2, generator=chance)
    targets = torch.tensor([1, UNLABELLED, 0])
    empty = np.zeros(0, np.int64)
    tokens = Tokens(empty, np.arange(4), targets.numpy(), None)
    data = TokenizedData(None, {}, tokens, tokens, None, 0)  # type: ignore[arg-type]

    def model(ids):
        return type("Said", (), {"logits": logits[ids]})

    def loss(rows, alpha):
        settings, said = Logits(layers=1, alpha=alpha, temperature=1.0), Taught([taught.numpy()], [0, 1])
        function = soft_and_hard_loss(settings, data, said, None)
        pieces = np.asarray(rows)
        batch = Batch({"ids": torch.from_numpy(pieces)}, targets[pieces], pieces)
        return function(model, batch, targets)  # type: ignore[arg-type]

    soft, own = torch.softmax(taught, -1), torch.log_softmax(logits, -1)
    torch.testing.assert_close(loss([0, 1, 2], 1.0), (soft * (soft.log() - own)).sum() / 3)
    torch.testing.assert_close(loss([0, 1, 2], 0.0), -(own[0, 1] + own[2, 0]) / 2)
    torch.testing.assert_close(loss([0, 1], 0.4) + loss([2], 0.4), loss([0, 1, 2], 0.4))
    assert IGNORED != UNLABELLED and cross_entropy_share(logits, targets * 0 + IGNORED, targets) == 0


def test_labels_of_extra_rows_are_never_read(tmp_path, taught):
    right, wrong = more_rows(tmp_path / "right"), more_rows(tmp_path / "wrong", wrong=True)
    (one, figures), (other, _) = (
        distill(tmp_path, name, taught, path, class_weights="balanced", alpha=0.5)
        for name, path in (("a", right), ("b", wrong))
    )
    assert figures["extra_rows"] == 32 and same(weights(one.out), weights(other.out))
    without, plain = distill(tmp_path, "c", taught, class_weights="balanced", alpha=0.5)
    assert "extra_rows" not in plain and not same(weights(one.out), weights(without.out))


def test_extra_rows_are_steps_and_held_out_rows_are_left_out(tmp_path, taught):
    settings = {"per_device_train_batch_size": 8}
    job, figures = distill(tmp_path, "a", taught, more_rows(tmp_path / "x", held_out=12), **settings)
    assert figures["extra_rows"] == 19
    lines = pd.read_json(job.out / "metrics.jsonl", lines=True)
    assert lines["step"].max() == (96 + 19 + 7) // 8


def test_the_teacher_reads_extra_rows_once(tmp_path, taught):
    extra = more_rows(tmp_path / "x")
    job, _ = distill(tmp_path, "a", taught, extra)
    assert job.derived.built == ["tokens", "extra-tokens", "teacher-logits"]
    distill(tmp_path, "b", taught, extra, derived=job.derived, temperature=5.0)
    assert len(job.derived.built) == 3
    distill(tmp_path, "c", taught, more_rows(tmp_path / "y", seed=8), derived=job.derived)
    assert job.derived.built[3:] == ["extra-tokens", "teacher-logits"]


def test_inner_states_are_learnt_from_extra_rows_too(tmp_path, taught):
    _, figures = distill(tmp_path, "a", taught, more_rows(tmp_path / "x"), method=Hidden)
    assert figures["extra_rows"] == 32


def test_extra_rows_of_words_and_of_another_problem(tmp_path, taught):
    base, data = make_base(tmp_path / "base"), make_data(tmp_path / "data", "token-classification")
    with pytest.raises(UserError, match="the extra rows are token-classification, the data is text-classification"):
        distill(tmp_path, "a", taught, data)
    job = make_job(tmp_path, "teacher", data, base)
    Stage.model_validate({"base": "tiny", "learning_rate": 3e-3, "num_train_epochs": 1, "max_length": 16}).run(job)
    extra = make_data(tmp_path / "x", "token-classification", train=8)
    frame = pd.read_parquet(extra / "train.parquet").assign(id=[f"x{i}" for i in range(8)])
    frame.to_parquet(extra / "train.parquet")
    _, figures = distill(tmp_path, "b", (data, job.out), extra, layers=1)
    assert figures["extra_rows"] >= 8

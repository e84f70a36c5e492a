"""Training on added rows: which old rows go along, what the model before has a say in, how a head grows."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from pipelines.plan import parse_slot
from stillhouse.distill.logits import Logits
from stillhouse.errors import UserError
from stillhouse.models import load_model, read_info, tokenizer_json
from stillhouse.problems import find_problem
from stillhouse.train._batches import Batch
from stillhouse.train._labels import fit_head
from stillhouse.train._predict import predict_logits
from stillhouse.train._replay import draw, piece_rows, with_replay
from stillhouse.train._soft import soft_and_hard_loss
from stillhouse.train._teachers import Taught, ask_teachers, widened
from stillhouse.train._tokens import TokenizedData, Tokens, tokenize_data
from stillhouse.train.stage import Stage
from tests.stillhouse.train.test_resume import Killed, kill_at
from tests.stillhouse.train.tiny_training import LABELS, as_input, make_base, make_data, make_job, same, weights

OLD, ALL = 72, 96
GROWN = ["negative", "neutral", "odd", "positive"]


def old_part(data: Path, to: Path, rows: int = OLD) -> Path:
    """The data before: its training rows are the first of `data`."""
    make_data(to, json.loads((data / "data.json").read_text())["problem"])
    pd.read_parquet(data / "train.parquet").head(rows).to_parquet(to / "train.parquet")
    return to


@pytest.fixture(scope="module")
def before(tmp_path_factory) -> dict[str, Path]:
    """All rows, the older three quarters of them, and a model of two layers trained on those."""
    root = tmp_path_factory.mktemp("before")
    base, data = make_base(root / "base"), make_data(root / "data", train=ALL)
    old = old_part(data, root / "old")
    job = make_job(root, "model", old, base)
    Stage(base="tiny", learning_rate=3e-3, num_train_epochs=4, per_device_train_batch_size=8).run(job)
    return {"data": data, "old": old, "model": job.out, "base": base}


def warm(root: Path, name: str, before, teach=True, more=None, data=None, **settings):
    """A stage from the model before, with replay and, if `teach`, with that model as its teacher."""
    model = as_input(before["model"], "model.torch")
    inputs = {"model": [model], "replay": [as_input(before["old"])]} | ({"teachers": [model]} if teach else {})
    job = make_job(root, name, data or before["data"], inputs=inputs, **(more or {}))
    chosen = {"learning_rate": 1e-3, "num_train_epochs": 2, "per_device_train_batch_size": 8, "dropout": 0.0}
    return job, Stage.model_validate({**chosen, **settings}).run(job)


def with_a_new_label(data: Path, to: Path) -> Path:
    """The same rows under four labels, of which "odd" is new: that of the last rows, which say "walk"."""
    make_data(to, train=ALL)
    for split, first in {"train": OLD, "validation": 30}.items():
        rows = pd.read_parquet(data / f"{split}.parquet")
        odd = np.arange(len(rows)) >= first
        changed = rows["text"].replace("good|bad|plain", "walk", regex=True).where(odd, rows["text"])
        label = rows["label"].replace(2, 3).where(~odd, 2).astype("int32")
        rows.assign(text=changed, label=label).to_parquet(to / f"{split}.parquet")
    (to / "labels.json").write_text(json.dumps(GROWN))
    return to


def test_all_new_rows_and_as_many_old_ones_as_asked():
    old = np.arange(100) < 80
    for ratio, expected in ((1.0, 20), (0.5, 10), (0.0, 0), (2.5, 50), (9.0, 80)):
        chosen = draw(old, ratio, 7)
        assert chosen[~old].all() and int(chosen[old].sum()) == expected
    assert (draw(old, 1.0, 7) == draw(old, 1.0, 7)).all()
    assert (draw(old, 1.0, 7) != draw(old, 1.0, 8)).any()


def test_the_rows_trained_on_are_those_drawn(tmp_path, before):
    inputs = {"replay": [as_input(before["old"])]}
    job = make_job(tmp_path, "a", before["data"], inputs=inputs)
    data = tokenize_data(job, "text-classification", tokenizer_json(before["base"]), 32)
    found, figures = with_replay(0.5, job, data)
    assert figures == {"new_rows": 24, "replayed_rows": 12}
    rows = np.flatnonzero(draw(np.arange(ALL) < OLD, 0.5, job.seed))
    assert len(found.train) == len(rows) == 36
    for place, row in enumerate(rows):
        one, other = found.train.offsets[place : place + 2], data.train.offsets[row : row + 2]
        assert found.train.ids[slice(*one)].tolist() == data.train.ids[slice(*other)].tolist()
        assert found.train.targets[place] == data.train.targets[row]
    assert found.identity != data.identity and found.validation is data.validation


def test_all_pieces_of_a_long_sentence_go_along(tmp_path, before):
    data = make_data(tmp_path / "words", "token-classification", train=40)
    inputs = {"replay": [as_input(old_part(data, tmp_path / "old", 30))]}
    job = make_job(tmp_path, "a", data, inputs=inputs)
    tokens = tokenize_data(job, "token-classification", tokenizer_json(before["base"]), 12)
    assert len(tokens.train) > 40, "the test is about sentences of several pieces"
    found, figures = with_replay(1.0, job, tokens)
    assert figures == {"new_rows": 10, "replayed_rows": 10}
    rows = np.flatnonzero(draw(np.arange(40) < 30, 1.0, job.seed))
    sentences = pd.read_parquet(data / "train.parquet")["words"].iloc[rows]
    assert (np.asarray(found.train.words) >= 0).sum() == sentences.map(len).sum()
    of_row = np.bincount(piece_rows(tokens.train, data, find_problem("token-classification")), minlength=40)
    assert of_row.sum() == len(tokens.train) and (of_row >= 1).all()


def test_steps_are_made_of_new_and_replayed_rows(tmp_path, before):
    job, figures = warm(tmp_path, "a", before, num_train_epochs=3)
    assert (figures["new_rows"], figures["replayed_rows"], figures["train_rows"]) == (24, 24, 48)
    assert figures["steps"] == 3 * 48 / 8
    assert job.derived.built == ["tokens", "teacher-logits"]  # type: ignore[attr-defined]
    logits = next((tmp_path / "derived").glob("*/train.npy"))
    assert np.load(logits).shape == (48, 3), "the teacher is asked about those rows alone"


def test_what_is_learnt_does_not_depend_on_kept_states_or_micro_batches(tmp_path, before):
    settings: dict[str, Any] = {"train": "last-1", "class_weights": "balanced"}
    _, kept = warm(tmp_path, "a", before, **settings)
    _, not_kept = warm(tmp_path, "b", before, **settings, frozen_states="never")
    _, parts = warm(tmp_path, "c", before, **settings, max_tokens_per_batch=40)
    assert (kept["states_of_layers"], not_kept["states_of_layers"]) == (1, 0)
    for other in (not_kept, parts):
        assert other["train_loss"] == pytest.approx(kept["train_loss"], abs=1e-4)


def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path, before):
    settings = {"dropout": None, "save_steps": 4, "replay_ratio": 0.7}
    whole, _ = warm(tmp_path, "whole", before, **settings)
    reached, _ = kill_at("train.checkpoint", 2)
    with pytest.raises(Killed):
        warm(tmp_path, "a", before, more={"reached": reached}, **settings)
    steps: list[int] = []
    more = {"progress": lambda done, total, note="": steps.append(done) if note.startswith("loss") else None}
    again, _ = warm(tmp_path, "a", before, more=more, **settings)
    assert steps[0] == 9
    assert same(weights(again.out), weights(whole.out))
    assert (again.out / "metrics.jsonl").read_bytes() == (whole.out / "metrics.jsonl").read_bytes()


def test_a_model_that_says_what_its_teacher_says_has_nothing_to_learn(tmp_path, before):
    _, figures = warm(tmp_path, "a", before, alpha=1.0, learning_rate=1e-30)
    assert figures["train_loss"] == pytest.approx(0.0, abs=1e-5)
    _, plain = warm(tmp_path, "b", before, teach=False, learning_rate=1e-30)
    _, none = warm(tmp_path, "c", before, alpha=0.0, learning_rate=1e-30)
    assert none["train_loss"] == pytest.approx(plain["train_loss"], abs=1e-6) != 0


def test_without_new_rows_or_without_old_ones_there_is_nothing_to_replay(tmp_path, before):
    with pytest.raises(UserError, match=r"no training row that the input replay lacks.*leave the input replay out"):
        warm(tmp_path, "a", before, data=before["old"])
    other = make_data(tmp_path / "other")
    rows = pd.read_parquet(other / "train.parquet")
    rows.assign(id="x" + rows["id"]).to_parquet(other / "train.parquet")
    with pytest.raises(UserError, match=r"no training row of the input replay.*as `previous`"):
        warm(tmp_path, "b", before, data=other)


def test_a_student_goes_on_with_replay_too(tmp_path, before):
    model = as_input(before["model"], "model.torch")
    inputs = {"teachers": [model], "model": [model], "replay": [as_input(before["old"])]}
    job = make_job(tmp_path, "a", before["data"], inputs=inputs)
    figures = Logits(learning_rate=1e-3, num_train_epochs=1, replay_ratio=2.0).run(job)
    assert (figures["new_rows"], figures["replayed_rows"], figures["train_rows"]) == (24, 48, 72)


def test_a_grown_head_keeps_what_the_model_says(tmp_path, before):
    job = make_job(tmp_path, "a", before["data"])
    data = tokenize_data(job, "text-classification", tokenizer_json(before["base"]), 32)
    said = predict_logits(load_model(before["model"]), data.validation)
    model = load_model(before["model"])
    info = fit_head(model, read_info(before["model"]), GROWN)
    grown = predict_logits(model, data.validation)
    assert info["labels"] == GROWN and (model.config.label2id or {})["odd"] == 2
    assert np.allclose(grown[:, [0, 1, 3]], said, atol=1e-6)
    assert np.allclose(grown[:, 2], said.mean(axis=1), atol=1e-5), "so that no decision changes"


@pytest.mark.parametrize("teach", [True, False])
def test_a_new_label_is_learnt_on_request_only(tmp_path, before, teach):
    data = with_a_new_label(before["data"], tmp_path / "data")
    with pytest.raises(UserError, match=r"does not know the label odd of the data. set grow_head: true"):
        warm(tmp_path, "a", before, teach, data=data)
    settings = {"train_embeddings": True, "num_train_epochs": 8, "learning_rate": 3e-3, "alpha": 0.3}
    job, _ = warm(tmp_path, "b", before, teach, data=data, grow_head=True, **settings)
    assert read_info(job.out)["labels"] == GROWN
    rows = tokenize_data(job, "text-classification", tokenizer_json(job.out), 32).train
    logits = predict_logits(load_model(job.out), rows)
    assert (logits[OLD:].argmax(1) == 2).mean() > 0.5, "the model that is loaded has learnt the new label"


def test_a_student_without_a_label_grows_as_its_teacher_did(tmp_path, before):
    data = with_a_new_label(before["data"], tmp_path / "data")
    model = as_input(before["model"], "model.torch")
    inputs = {"teachers": [model], "model": [model], "replay": [as_input(before["old"])]}
    for settings in ({}, {"layers": 1}):
        given = {slot: items for slot, items in inputs.items() if slot != "model" or not settings}
        job = make_job(tmp_path, f"{len(settings)}", data, inputs=given)
        with pytest.raises(UserError, match="grow_head"):
            Logits.model_validate(settings).run(job)
        Logits.model_validate({**settings, "grow_head": True, "num_train_epochs": 1}).run(job)
        assert read_info(job.out)["labels"] == GROWN
        assert load_model(job.out).config.num_labels == 4


def test_labels_that_are_gone_are_refused_even_so(tmp_path, before):
    data = make_data(tmp_path / "data")
    (data / "labels.json").write_text('["negative", "neutral", "odd"]')
    with pytest.raises(UserError, match=r"has other labels than the data \(odd, positive\)"):
        warm(tmp_path, "a", before, data=data, grow_head=True)


def test_teachers_are_followed_among_the_labels_they_know():
    """Three labels, the teacher knows the first and the last: the logit of the second has no gradient from it."""
    logits = torch.tensor([[1.0, 5.0, 0.0]], requires_grad=True)
    taught = Taught([np.array([[0.0, 1.0]], np.float32)], [0, 2])
    tokens = Tokens(np.zeros(1, np.int32), np.arange(2), np.array([1]), None)
    data = TokenizedData(Path(), {}, tokens, tokens, None, 0)
    loss = soft_and_hard_loss(Stage(alpha=1.0, temperature=1.0), data, taught, None)
    batch = Batch({"rows": torch.tensor([0])}, torch.tensor([1]), np.array([0]))
    value = loss(lambda rows: type("Said", (), {"logits": logits[rows]}), batch, batch.targets)  # type: ignore[arg-type]
    value.backward()
    wanted, ours = torch.softmax(torch.tensor([0.0, 1.0]), 0), torch.log_softmax(torch.tensor([1.0, 0.0]), 0)
    torch.testing.assert_close(value.detach(), (wanted * (wanted.log() - ours)).sum())
    assert logits.grad is not None and logits.grad[0, 1] == 0 and (logits.grad[0, [0, 2]] != 0).all()


def test_a_teachers_labels_are_matched_by_name(tmp_path, before):
    model = as_input(before["model"], "model.torch")
    job = make_job(tmp_path, "a", before["data"], inputs={"teachers": [model]})
    data = tokenize_data(job, "text-classification", tokenizer_json(before["base"]), 32)
    said = predict_logits(load_model(before["model"]), data.train)
    turned = ["odd", *LABELS[::-1]]
    taught = ask_teachers(job, [read_info(before["model"])], turned, data)
    assert taught.columns == [1, 2, 3]
    assert np.array_equal(taught.logits[0], said[:, ::-1])
    wide = widened(said, LABELS, turned)
    assert np.array_equal(wide[:, 1:], said[:, ::-1]) and (wide[:, 0] < said.min() - 20).all()


@pytest.mark.parametrize("method", [Stage, Logits])
def test_what_may_be_put_into_the_slots(method):
    assert parse_slot(method.slots["replay"]) == (["data"], True, False)
    assert parse_slot(method.slots["teachers"]) == (["model.torch"], method is Stage, True)
    assert parse_slot(method.slots["model"]) == (["model.torch"], True, False)

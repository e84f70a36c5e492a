"""Training on kept states of the frozen layers is the same training, and the frozen layers run once."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import DistilBertConfig, DistilBertModel, RobertaConfig, RobertaModel

import stillhouse.train._frozen as frozen
from stillhouse.distill.logits import Logits
from stillhouse.errors import UserError
from stillhouse.models import from_base
from stillhouse.train._frozen import frozen_layers
from stillhouse.train._parts import set_trainable
from stillhouse.train._predict import predict_logits
from stillhouse.train.stage import Stage
from tests.stillhouse.train.tiny_training import Derived, as_input, make_base, make_data, make_job, same, weights

BOTH = ["frozen-states", "frozen-states"]
"""Of the training and of the validation rows."""


@pytest.fixture(scope="module")
def bert(tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("encoder") / "base", layers=4)


def other_base(directory: Path, model) -> Path:
    """The tiny tokenizer with an encoder of another family."""
    make_base(directory)
    model.save_pretrained(directory)
    return directory


@pytest.fixture(scope="module")
def families(tmp_path_factory, bert) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("families")
    torch.manual_seed(0)
    sizes = {"vocab_size": 19, "max_position_embeddings": 40}
    roberta = RobertaConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=2, intermediate_size=64, pad_token_id=0, **sizes
    )
    distil = DistilBertConfig(dim=32, n_layers=4, n_heads=2, hidden_dim=64, **sizes)
    return {
        "bert": bert,
        "roberta": other_base(root / "roberta", RobertaModel(roberta)),
        "distilbert": other_base(root / "distilbert", DistilBertModel(distil)),
    }


def stage(**settings) -> Stage:
    given = {"base": "tiny", "learning_rate": 3e-3, "num_train_epochs": 2, "max_length": 16, "train": "last-1"}
    return Stage.model_validate({**given, **settings})


def losses(directory: Path) -> list[float]:
    lines = (directory / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["train_loss"] for line in lines]


@pytest.mark.parametrize("problem", ["text-classification", "token-classification"])
@pytest.mark.parametrize(("train", "frozen"), [("head", 4), ("last-1", 3), ("last-3", 1)])
def test_losses_and_weights_are_those_without_kept_states(tmp_path, bert, problem, train, frozen):
    data = make_data(tmp_path / "data", problem)
    runs = {}
    for frozen_states in ("auto", "never"):
        job = make_job(tmp_path, frozen_states, data, bert)
        figures = stage(train=train, frozen_states=frozen_states, evaluations_per_epoch=3).run(job)
        assert figures["states_of_layers"] == (frozen if frozen_states == "auto" else 0)
        runs[frozen_states] = job.out
    assert losses(runs["auto"]) == pytest.approx(losses(runs["never"]), abs=1e-4)
    kept, plain = weights(runs["auto"]), weights(runs["never"])
    assert kept.keys() == plain.keys()
    assert all(torch.allclose(kept[name], plain[name], atol=1e-3) for name in kept)


@pytest.mark.parametrize("family", ["bert", "roberta", "distilbert"])
def test_encoders_of_other_families(tmp_path, families, family):
    data = make_data(tmp_path / "data")
    runs = {}
    for frozen_states in ("always", "never"):
        job = make_job(tmp_path, frozen_states, data, families[family])
        figures = stage(frozen_states=frozen_states).run(job)
        assert figures["states_of_layers"] == (3 if frozen_states == "always" else 0)
        runs[frozen_states] = losses(job.out)
    assert runs["always"] == pytest.approx(runs["never"], abs=1e-4)


def test_frozen_layers_see_each_text_once_over_stages_and_seeds(tmp_path, bert):
    data = make_data(tmp_path / "data")
    first = make_job(tmp_path, "first", data, bert)
    stage().run(first)
    assert first.derived.built == ["tokens", *BOTH]
    model = {"inputs": {"model": [as_input(first.out, "model.torch")]}}
    for name, seed in (("second", 42), ("third", 43)):
        later = make_job(tmp_path, name, data, seed=seed, **model)
        Stage.model_validate({**stage().model_dump(), "base": None}).run(later)
        assert later.derived.built == [], "same frozen weights, same texts"
    deeper = make_job(tmp_path, "deeper", data, **model)
    Stage.model_validate({**stage().model_dump(), "base": None, "train": "last-2"}).run(deeper)
    assert deeper.derived.built == BOTH, "another depth"
    changed = make_job(tmp_path, "changed", data, make_base(tmp_path / "base", layers=4, seed=1))
    stage().run(changed)
    assert changed.derived.built == BOTH, "other weights"


def test_resumed_training_is_the_same_to_the_bit(tmp_path, bert):
    class Killed(Exception):
        pass

    def kill(point, **fields):
        if point == "train.checkpoint" and fields["at"] == 4:
            raise Killed

    data = make_data(tmp_path / "data")
    whole = make_job(tmp_path, "whole", data, bert)
    stage(save_steps=2).run(whole)
    with pytest.raises(Killed):
        stage(save_steps=2).run(make_job(tmp_path, "killed", data, bert, reached=kill))
    again = make_job(tmp_path, "killed", data, bert)
    stage(save_steps=2).run(again)
    assert same(weights(whole.out), weights(again.out))


def test_when_it_pays_is_decided_by_settings_and_sizes(tmp_path, bert):
    data = make_data(tmp_path / "data")

    def layers(name, **settings):
        return stage(**settings).run(make_job(tmp_path, name, data, bert))["states_of_layers"]

    assert layers("once", num_train_epochs=1) == 3, "costs no more, and the next to come has them"
    assert layers("a part", num_train_epochs=0.5) == 0, "not all texts are read"
    assert layers("asked", num_train_epochs=0.5, frozen_states="always") == 3
    assert layers("nothing", train="all") == 0, "only the embeddings are frozen"
    assert layers("full", frozen_states_gb=1e-5) == 0
    with pytest.raises(UserError, match="3 frozen layers take") as refused:
        layers("asked too much", frozen_states="always", frozen_states_gb=1e-5)
    assert "frozen_states_gb" in refused.value.fix


def test_half_precision_takes_half_the_disk(tmp_path, bert):
    data, sizes, found = make_data(tmp_path / "data"), {}, {}
    for dtype in ("float32", "float16"):
        derived = Derived(tmp_path / dtype)
        job = make_job(tmp_path, f"job {dtype}", data, bert, derived=derived)
        stage(frozen_states_dtype=dtype).run(job)
        states = list(derived.root.rglob("states.npy"))
        assert len(states) == 2
        sizes[dtype], found[dtype] = sum(path.stat().st_size for path in states), losses(job.out)
    assert sizes["float16"] < 0.51 * sizes["float32"]
    assert found["float16"] == pytest.approx(found["float32"], abs=2e-3)


def test_frozen_layers_are_counted_from_the_lowest(bert):
    model = from_base(bert, "text-classification", ["a", "b"], 0)
    counted = {what: frozen_layers(set_trainable(model, what, False)) for what in ("head", "last-1", "last-4", "all")}
    assert counted == {"head": 4, "last-1": 3, "last-4": 0, "all": 0}
    assert frozen_layers(set_trainable(model, "all", True)) == 0


def test_as_many_validation_rows_as_there_are_stand_in_their_own_order(tmp_path, bert):
    """States are kept by the number of rows, so that equal numbers must mean equal rows in an equal order."""
    data = make_data(tmp_path / "data")
    frame = pd.read_parquet(data / "validation.parquet")
    assert list(frame["id"]) != sorted(frame["id"])
    plain = make_job(tmp_path, "never", data, bert)
    expected = stage(frozen_states="never").run(plain)
    derived = Derived(tmp_path / "shared")
    for most in (len(frame) + 5, None, len(frame)):
        job = make_job(tmp_path, f"{most}", data, bert, derived=derived)
        figures = stage(max_eval_samples=most).run(job)
        assert figures["roc_auc"] == pytest.approx(expected["roc_auc"], abs=1e-4)
    assert derived.built.count("frozen-states") == 2, "one of each split"


def test_states_that_are_asked_for_and_impossible_are_refused(tmp_path, bert):
    job = make_job(tmp_path, "all", make_data(tmp_path / "data"), bert)
    with pytest.raises(UserError, match="frozen_states: always, but no layer is frozen"):
        stage(train="all", frozen_states="always").run(job)


@pytest.mark.parametrize("problem", ["text-classification", "token-classification"])
def test_a_teacher_starts_from_the_states_of_its_frozen_layers(tmp_path, bert, problem, monkeypatch):
    data = make_data(tmp_path / "data", problem)
    teacher = make_job(tmp_path, "teacher", data, bert)
    stage(num_train_epochs=1).run(teacher)
    asked: list[tuple[bool, np.ndarray]] = []

    def spy(model, tokens, *rest):
        logits = predict_logits(model, tokens, *rest)
        asked.append((tokens.states is not None, logits))
        return logits

    monkeypatch.setattr("stillhouse.train._teachers.predict_logits", spy)
    inputs = {"teachers": [as_input(teacher.out, "model.torch")]}
    for derived in (teacher.derived, Derived(tmp_path / "elsewhere")):
        name = f"student {len(asked)}"
        student = make_job(tmp_path, name, data, inputs=inputs, derived=derived)
        Logits(layers=1, num_train_epochs=1, max_eval_samples=20).run(student)
    (with_states, found), (without, expected) = asked
    assert with_states and not without
    assert found == pytest.approx(expected, abs=1e-4)


def test_going_on_from_a_model_that_teaches_reads_its_frozen_layers_once(tmp_path, bert, monkeypatch):
    data = make_data(tmp_path / "data")
    first = make_job(tmp_path, "first", data, bert, derived=Derived(tmp_path / "elsewhere"))
    stage(num_train_epochs=1).run(first)
    model = [as_input(first.out, "model.torch")]
    read: list[int] = []
    real = frozen._write_states
    monkeypatch.setattr(frozen, "_write_states", lambda *given: read.append(len(given[2])) or real(*given))
    job = make_job(tmp_path, "second", data, inputs={"model": model, "teachers": model})
    Stage.model_validate({**stage(num_train_epochs=1).model_dump(), "base": None}).run(job)
    assert read == [frozen.CHECKED_PIECES, 96, 40], "a check, then each split once"
    assert job.derived.built == ["tokens", *BOTH, "teacher-logits"]

"""Hidden states, attention and relations: losses against hand-computed cases, then whole distillations."""

import json
import math

import pytest
import torch

from stillhouse.blocks import describe_layers, layer_blocks, narrow
from stillhouse.distill._hidden import attention_loss, even_map, hidden_loss
from stillhouse.distill._relations import relation_loss
from stillhouse.distill.hidden import Hidden
from stillhouse.distill.relations import Relations
from stillhouse.errors import UserError
from stillhouse.methods import load_method
from stillhouse.models import keep_layers, load_model, read_info, save_model
from tests.stillhouse.train.tiny_training import as_input, make_base, make_data, make_job, same, weights


def run(tmp_path, name, taught, method, base=None, derived=None, **settings):
    data, teacher, _ = taught
    more = {} if derived is None else {"derived": derived}
    job = make_job(tmp_path, name, data, base, inputs={"teachers": [as_input(teacher, "model.torch")]}, **more)
    given = {"layers": 2, "learning_rate": 3e-3, "num_train_epochs": 4, **settings}
    given |= {"base": "tiny"} if base else {}
    if method is Relations:
        given = {"relation_heads": 4, **given}
    return job, method.model_validate(given).run(job)


def test_layers_are_mapped_to_the_ends_of_equal_parts():
    assert even_map(3, 6) == {0: 1, 1: 3, 2: 5}
    assert even_map(4, 12) == {0: 2, 1: 5, 2: 8, 3: 11}
    assert even_map(2, 2) == {0: 0, 1: 1}


def test_hidden_loss_by_hand():
    """Squares 1 and 9 (mean 5) at the first token, 4 and 0 (mean 2) at the second; the third is padding."""
    ours = torch.tensor([[[1.0, 3.0], [2.0, 0.0], [99.0, 99.0]]])
    assert hidden_loss(ours, torch.zeros(1, 3, 2), torch.tensor([[1, 1, 0]])).item() == pytest.approx(3.5)


def test_attention_loss_by_hand():
    """One head of width 1, two tokens: queries (1, 2), keys (3, 4): scores 3, 4, 6, 8 against 0."""
    ours = torch.tensor([[[1.0, 3.0, 0.0], [2.0, 4.0, 0.0], [50.0, 50.0, 50.0]]])
    loss = attention_loss(ours, torch.zeros(1, 3, 3), torch.tensor([[1, 1, 0]]), heads=1)
    assert loss.item() == pytest.approx((9 + 16 + 36 + 64) / 4)
    two = torch.cat([part.repeat(1, 1, 2) for part in ours.chunk(3, dim=-1)], dim=-1)
    assert attention_loss(two, torch.zeros(1, 3, 6), torch.tensor([[1, 1, 0]]), heads=2).item() == loss.item()


def test_relation_loss_by_hand():
    """Student vectors 0: relations 1/2, 1/2. Teacher vectors 0 and sqrt(ln 3): rows (1/2, 1/2) and (1/4, 3/4)."""
    theirs = torch.tensor([[[0.0], [math.sqrt(math.log(3))], [7.0]]])
    loss = relation_loss(torch.zeros(1, 3, 1), theirs, torch.tensor([[1, 1, 0]]), heads=1)
    second = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    assert loss.item() == pytest.approx(second / 2, rel=1e-5)
    wide = torch.zeros(1, 3, 4)
    assert relation_loss(wide, theirs.repeat(1, 1, 2), torch.tensor([[1, 1, 0]]), heads=2).item() == pytest.approx(
        loss.item()
    ), "widths may differ"


@pytest.mark.parametrize("method", [Hidden, Relations])
def test_a_student_that_is_its_teacher_loses_nothing_inside(tmp_path, taught, method):
    settings = {"layers": 4, "alpha": 0.0, "learning_rate": 1e-30, "num_train_epochs": 1, "dropout": 0.0}
    _, plain = run(tmp_path, "plain", taught, load_method("distill.logits"), **settings)
    _, figures = run(tmp_path, "inside", taught, method, **settings)
    assert figures["train_loss"] == pytest.approx(plain["train_loss"], abs=1e-4), "half precision of the targets"


@pytest.mark.parametrize("method", [Hidden, Relations])
def test_the_teacher_is_asked_once_and_the_student_learns(tmp_path, taught, method):
    job, figures = run(tmp_path, "a", taught, method)
    assert figures["f1_macro"] > 0.9
    assert job.derived.built == ["tokens", "teacher-logits", "teacher-features"]
    run(tmp_path, "b", taught, method, derived=job.derived, temperature=3.0)
    assert job.derived.built == ["tokens", "teacher-logits", "teacher-features"]


@pytest.mark.parametrize("method", [Hidden, Relations])
def test_frozen_layers_are_matched_too(tmp_path, taught, method):
    _, figures = run(tmp_path, "a", taught, method, train="last-1")
    assert figures["f1_macro"] > 0.8 and figures["states_of_layers"] == 0


def pruned(tmp_path, teacher, heads):
    """The lower half of the teacher with so many of its two heads in each layer."""
    model = load_model(teacher)
    keep_layers(model, [0, 1])
    for blocks, count in zip(layer_blocks(model), heads, strict=True):
        narrow(blocks, torch.arange(count), torch.arange(blocks.units))
    model.config.pruned_layers = describe_layers(model)
    out = tmp_path / "pruned"
    out.mkdir()
    save_model(model, teacher, read_info(teacher), out)
    return out


def test_a_pruned_layer_is_known_by_its_own_heads(tmp_path, taught):
    student = as_input(pruned(tmp_path, taught[1], [2, 1]), "model.torch")

    def teach(name, method, **settings):
        inputs = {"teachers": [as_input(taught[1], "model.torch")], "model": [student]}
        job = make_job(tmp_path, name, taught[0], inputs=inputs)
        return method.model_validate({"learning_rate": 3e-3, "num_train_epochs": 1, **settings}).run(job)

    with pytest.raises(UserError, match="layer 1 of the student has 1 attention heads, layer 3 of the teacher 2"):
        teach("a", Hidden)
    assert teach("b", Hidden, layer_map={0: 1})["layers"] == 2
    with pytest.raises(UserError, match="relation_heads: 32 does not divide the student's width 16"):
        teach("c", Relations, relation_heads=32)
    assert teach("d", Relations, relation_heads=16)["layers"] == 2


def test_a_deeper_student_has_a_map_too():
    assert even_map(6, 3) == {0: 0, 1: 0, 2: 1, 3: 1, 4: 1, 5: 2}


@pytest.mark.parametrize("method", [Hidden, Relations])
def test_parts_of_a_batch_are_refused(method):
    with pytest.raises(UserError, match="max_tokens_per_batch does not go with"):
        method(layers=2, max_tokens_per_batch=64).check({"teachers"})


@pytest.mark.parametrize("method", [Hidden, Relations])
def test_a_narrower_student_learns_and_is_published_alone(tmp_path, taught, method):
    small = make_base(tmp_path / "small", layers=2, seed=9, hidden_size=16)
    more = {"attention_weight": 0} if method is Hidden else {}
    job, figures = run(tmp_path, "a", taught, method, base=small, layers=None, train_embeddings=True, **more)
    assert figures["layers"] == 2
    assert not [name for name in weights(job.out) if "trained_along" in name]
    assert json.loads((job.out / "config.json").read_text())["hidden_size"] == 16


def test_matching_hidden_states_brings_them_nearer(tmp_path, taught):
    def inside(**settings):
        given = {"alpha": 0.0, "dropout": 0.0, "num_train_epochs": 3, "attention_weight": 0, **settings}
        job, _ = run(tmp_path, f"{settings}", taught, Hidden, **given)
        lines = [json.loads(line) for line in (job.out / "metrics.jsonl").read_text().splitlines()]
        return lines[-1]["train_loss"] - lines[-1].get("loss", 0), lines

    _, lines = inside(hidden_weight=5.0)
    assert lines[-1]["train_loss"] < 0.6 * lines[0]["train_loss"]


@pytest.mark.parametrize("method", [Hidden, Relations])
def test_resumed_distillation_is_the_same_to_the_bit(tmp_path, taught, method):
    class Killed(Exception):
        pass

    def kill(point, **fields):
        if point == "train.checkpoint" and fields["at"] == 4:
            raise Killed

    data, teacher, _ = taught
    small = make_base(tmp_path / "small", layers=2, seed=9, hidden_size=16)
    given = {"base": "tiny", "num_train_epochs": 2, "save_steps": 2, "learning_rate": 3e-3}
    given |= {"attention_weight": 0} if method is Hidden else {"relation_heads": 4}
    inputs = {"teachers": [as_input(teacher, "model.torch")]}
    whole = make_job(tmp_path, "whole", data, small, inputs=inputs)
    method.model_validate(given).run(whole)
    with pytest.raises(Killed):
        method.model_validate(given).run(make_job(tmp_path, "killed", data, small, inputs=dict(inputs), reached=kill))
    again = make_job(tmp_path, "killed", data, small, inputs=dict(inputs))
    method.model_validate(given).run(again)
    assert same(weights(whole.out), weights(again.out))


def test_words_are_matched_too(tmp_path):
    from stillhouse.train.stage import Stage

    base, data = make_base(tmp_path / "base", layers=3), make_data(tmp_path / "data", "token-classification")
    job = make_job(tmp_path, "teacher", data, base)
    settings = {"learning_rate": 3e-3, "num_train_epochs": 5, "train_embeddings": True, "max_length": 16}
    Stage.model_validate({"base": "tiny", **settings}).run(job)
    for method in (Hidden, Relations):
        _, figures = run(tmp_path, method.__name__, (data, job.out, base), method, layers=1, num_train_epochs=5)
        assert figures["entity_f1"] > 0.9


@pytest.mark.parametrize(
    ("method", "settings", "expected"),
    [
        (Hidden, {"layer_map": {0: 9}}, "layer_map: 0: 9 is not possible"),
        (Hidden, {"layer_map": {5: 0}}, "layer_map: 5: 0 is not possible"),
        (Relations, {"teacher_layer": 7}, "teacher_layer: 7 is not possible"),
        (Relations, {"relation_heads": 5}, "relation_heads: 5 does not divide the student's width 32"),
    ],
)
def test_what_does_not_fit_is_said_before_training(tmp_path, taught, method, settings, expected):
    with pytest.raises(UserError, match=expected):
        run(tmp_path, "a", taught, method, **settings)


def test_other_heads_need_relations(tmp_path, taught):
    small = make_base(tmp_path / "small", layers=2, hidden_size=32, num_attention_heads=4)
    with pytest.raises(UserError, match="student has 4 attention heads, layer 1 of the teacher 2") as refused:
        run(tmp_path, "a", taught, Hidden, base=small, layers=None)
    assert "distill.relations" in refused.value.fix

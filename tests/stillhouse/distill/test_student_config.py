"""A student of other sizes: it begins as the cut of its teacher, or at random, and learns."""

import copy
import json

import pytest
import torch

from stillhouse.distill._narrow import cut_weights
from stillhouse.distill.logits import Logits
from stillhouse.errors import UserError
from stillhouse.models import load_model, resized_model
from tests.stillhouse.train.tiny_training import as_input, make_job, same, weights

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 24}


def distill(root, name, taught, sizes, **settings):
    job = make_job(root, name, taught[0], inputs={"teachers": [as_input(taught[1], "model.torch")]})
    given = {"student_config": sizes, "learning_rate": 1e-30, "num_train_epochs": 0.1, **settings}
    return job, Logits.model_validate(given).run(job)


def test_the_student_begins_as_the_beginning_of_its_teacher(tmp_path, taught):
    """Two heads of 16 dimensions become two of 8: the first 8 of each; layers 0 and 3 of four."""
    job, figures = distill(tmp_path, "a", taught, SMALL)
    student, teacher = weights(job.out), weights(taught[1])
    config = json.loads((job.out / "config.json").read_text())
    assert {name: config[name] for name in SMALL} == SMALL and figures["layers"] == 2
    rows = [*range(8), *range(16, 24)]
    for ours, theirs in ((0, 0), (1, 3)):
        small, large = (f"bert.encoder.layer.{layer}." for layer in (ours, theirs))
        key, out = "attention.self.key", "attention.output.dense.weight"
        assert torch.equal(student[f"{small}{key}.weight"], teacher[f"{large}{key}.weight"][rows, :16])
        assert torch.equal(student[f"{small}{key}.bias"], teacher[f"{large}{key}.bias"][rows])
        assert torch.equal(student[f"{small}{out}"], teacher[f"{large}{out}"][:16, rows])
        up = "intermediate.dense.weight"
        assert torch.equal(student[f"{small}{up}"], teacher[f"{large}{up}"][:24, :16])
    assert torch.equal(student["classifier.weight"], teacher["classifier.weight"][:, :16])


def test_of_the_same_sizes_it_is_the_teacher(tmp_path, taught):
    job, _ = distill(tmp_path, "a", taught, {"num_hidden_layers": 4})
    assert same(weights(job.out), weights(taught[1]))


def test_what_a_cut_leaves_out_may_be_silent(taught):
    """With its last units and its second head silenced, the teacher says what the cut says."""
    teacher = load_model(taught[1])
    silenced = copy.deepcopy(teacher)
    sizes = {"intermediate_size": 40}
    student = resized_model(taught[1], sizes, seed=3).eval()
    cut_weights(student, teacher, [0, 1, 2, 3])
    with torch.no_grad():
        for layer in silenced.bert.encoder.layer:
            layer.output.dense.weight[:, 40:] = 0
        ids = torch.tensor([[2, 4, 5, 6, 3]])
        torch.testing.assert_close(student(input_ids=ids).logits, silenced(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("begin", ["teacher", "random"])
def test_it_learns(tmp_path, taught, begin):
    settings = {"learning_rate": 5e-3, "num_train_epochs": 8, "per_device_train_batch_size": 8, "dropout": 0.0}
    _, figures = distill(tmp_path, "a", taught, SMALL, student_weights=begin, train_embeddings=True, **settings)
    assert figures["f1_macro"] > 0.9


def test_random_weights_follow_the_seed_and_not_the_teacher(taught):
    one, other, again = (resized_model(taught[1], SMALL, seed=seed).state_dict() for seed in (1, 2, 1))
    assert same(one, again) and not same(one, other)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"hidden_size": 48}, "would be"),
        ({"num_hidden_layers": 5}, "layers: 5 is not possible"),
        ({"num_attention_heads": 1}, "1 heads of 32 cannot be cut out of 2 of 16"),
        ({"num_attention_heads": 5}, "5 heads do not divide hidden_size 32"),
    ],
)
def test_impossible_sizes_are_named(tmp_path, taught, sizes, message):
    with pytest.raises(UserError, match=message):
        distill(tmp_path, "a", taught, sizes)


def test_settings_that_do_not_fit():
    with pytest.raises(UserError, match="layers and student_config"):
        Logits(layers=2, student_config={"hidden_size": 16}).check({"data", "teachers"})
    with pytest.raises(UserError, match="random needs"):
        Logits(student_config={"hidden_size": 16}, student_weights="random").check({"data", "teachers"})
    Logits(student_config={"hidden_size": 16}).check({"data", "teachers"})
    with pytest.raises(ValueError, match="student_config"):
        Logits.model_validate({"student_config": {"width": 3}})

import json
import math
from pathlib import Path

import pytest
import torch

from stillhouse.distill._student import evenly_spread, kept_layers
from stillhouse.distill.logits import Logits
from stillhouse.errors import UserError
from stillhouse.models import load_model
from stillhouse.train import _teachers
from stillhouse.train._soft import confidences, soft_loss, soft_targets
from stillhouse.train.stage import Stage
from tests.stillhouse.train.tiny_training import WORDS, as_input, make_base, make_data, make_job, same, weights


def distill(root: Path, name: str, taught, teachers: int = 1, derived=None, base: Path | None = None, **settings):
    data, teacher, _ = taught
    more = {} if derived is None else {"derived": derived}
    job = make_job(root, name, data, base, inputs={"teachers": [as_input(teacher, "model.torch")] * teachers}, **more)
    chosen = {"layers": 2, "learning_rate": 3e-3, "num_train_epochs": 4, **settings}
    chosen |= {"base": "tiny"} if base else {}
    return job, Logits.model_validate(chosen).run(job)


def test_soft_loss_by_hand():
    """Teacher (0, ln 9) and student (0, ln 3) at temperature 2: odds 1:3 and 1:sqrt 3."""
    teacher, student = torch.tensor([[0.0, math.log(9)]]), torch.tensor([[0.0, math.log(3)]])
    soft = soft_targets([teacher], 2.0)
    torch.testing.assert_close(soft, torch.tensor([[0.25, 0.75]]))
    q = [1 / (1 + math.sqrt(3)), math.sqrt(3) / (1 + math.sqrt(3))]
    expected = 4 * (0.25 * math.log(0.25 / q[0]) + 0.75 * math.log(0.75 / q[1]))
    assert soft_loss(student, soft, 2.0).item() == pytest.approx(expected, rel=1e-5)


def test_several_teachers_are_averaged_as_probabilities():
    soft = soft_targets([torch.tensor([[0.0, math.log(3)]]), torch.tensor([[math.log(3), 0.0]])], 1.0)
    torch.testing.assert_close(soft, torch.tensor([[0.5, 0.5]]))


def test_teachers_are_weighted_as_a_whole_or_row_by_row():
    """Teachers 1:3 and 3:1 in two rows: weighted one to three, and by row all to the first or all to the second."""
    first, second = torch.tensor([[0.0, math.log(3)]] * 2), torch.tensor([[math.log(3), 0.0]] * 2)
    whole = soft_targets([first, second], 1.0, torch.tensor([1.0, 3.0]))
    torch.testing.assert_close(whole, torch.tensor([[0.625, 0.375]] * 2))
    rows = soft_targets([first, second], 1.0, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    torch.testing.assert_close(rows, torch.tensor([[0.25, 0.75], [0.75, 0.25]]))
    sure = confidences([torch.tensor([[0.0, math.log(3)]]), torch.tensor([[0.0, 0.0]])])
    torch.testing.assert_close(sure, torch.tensor([[0.75], [0.5]]))


@pytest.mark.parametrize("weights_of", ["validation", "confidence", [2.0, 1.0]])
def test_a_bad_teacher_counts_less(tmp_path, taught, weights_of):
    """The second teacher knows nothing: its share is smaller than by the plain mean, so the student does better."""
    data, good, base = taught
    job = make_job(tmp_path, "bad", data, base)
    Stage.model_validate({"base": "tiny", "train": "head", "learning_rate": 1e-6, "num_train_epochs": 0.1}).run(job)

    def soft_part(name, **settings):
        inputs = {"teachers": [as_input(good, "model.torch"), as_input(job.out, "model.torch")]}
        given = {"layers": 4, "alpha": 1.0, "learning_rate": 1e-30, "num_train_epochs": 1, "dropout": 0.0, **settings}
        return Logits.model_validate(given).run(make_job(tmp_path, name, data, inputs=inputs))["train_loss"]

    # The student begins as the good teacher: what it loses is what the bad one says.
    assert soft_part("weighted", teacher_weights=weights_of) < 0.95 * soft_part("uniform")


@pytest.mark.parametrize("wrong", [[1.0], [-1.0, 2.0], [0.0, 0.0]])
def test_weights_must_fit_the_teachers(tmp_path, taught, wrong):
    with pytest.raises((UserError, ValueError), match="weights"):
        distill(tmp_path, "a", taught, teachers=2, teacher_weights=wrong)


def test_a_student_trained_from_above_learns_the_same_with_kept_states(tmp_path, taught):
    learned = {}
    for frozen_states in ("auto", "never"):
        job, figures = distill(tmp_path, frozen_states, taught, train="last-1", frozen_states=frozen_states)
        assert figures["states_of_layers"] == (1 if frozen_states == "auto" else 0)
        lines = (job.out / "metrics.jsonl").read_text().splitlines()
        learned[frozen_states] = [json.loads(line)["train_loss"] for line in lines], weights(job.out)
    assert learned["auto"][0] == pytest.approx(learned["never"][0], abs=1e-4)
    kept, plain = (found for _, found in learned.values())
    assert all(torch.allclose(kept[name], plain[name], atol=1e-3) for name in plain)
    begun = weights(taught[1])
    lowest = [name for name in plain if ".layer.0." in name]
    assert lowest and all(torch.equal(plain[name], begun[name]) for name in lowest), "what is frozen stays"


def test_a_student_like_its_teacher_has_no_soft_loss():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert soft_loss(logits, soft_targets([logits], 3.0), 3.0).item() == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize(
    ("count", "layers", "expected"),
    [(3, 6, [0, 2, 5]), (2, 6, [0, 5]), (1, 6, [0]), (6, 6, [0, 1, 2, 3, 4, 5]), (4, 12, [0, 4, 7, 11])],
)
def test_layers_are_evenly_spread(count, layers, expected):
    assert evenly_spread(count, layers) == expected


@pytest.mark.parametrize("asked", [0, 5, [], [1, 0], [0, 0], [-1], [2, 4]])
def test_impossible_layers_are_named(asked):
    with pytest.raises(UserError, match=r"the teacher has 4 layers: a number of them, or a list out of 0 to 3"):
        kept_layers(asked, 4)


def test_the_student_is_smaller_and_learns_from_the_teacher(tmp_path, taught):
    job, figures = distill(tmp_path, "a", taught, num_train_epochs=6, per_device_train_batch_size=8, dropout=0.0)
    assert figures["f1_macro"] > 0.9
    config = json.loads((job.out / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    assert not [name for name in weights(job.out) if "layer.2" in name]
    assert load_model(job.out).num_parameters() < load_model(taught[1]).num_parameters()
    info = json.loads((job.out / "stillhouse.json").read_text())
    assert info == json.loads((taught[1] / "stillhouse.json").read_text())


def test_the_student_begins_as_the_chosen_layers_of_the_teacher(tmp_path, taught):
    job, _ = distill(tmp_path, "a", taught, layers=[1, 3], learning_rate=1e-30, num_train_epochs=0.1)
    student, teacher = weights(job.out), weights(taught[1])
    for name, value in student.items():
        source = name.replace("layer.1.", "layer.3.").replace("layer.0.", "layer.1.")
        assert torch.equal(value, teacher[source]), name


def test_teachers_are_asked_once_for_equal_teacher_and_data(tmp_path, taught, monkeypatch):
    forwards: list[int] = []
    original = _teachers.predict_logits

    def counted(model, tokens, on_batch=None):
        forwards.append(len(tokens))
        return original(model, tokens, on_batch)

    monkeypatch.setattr(_teachers, "predict_logits", counted)
    job, _ = distill(tmp_path, "a", taught)
    assert forwards == [96]
    distill(tmp_path, "b", taught, derived=job.derived, temperature=4.0, layers=1)
    assert forwards == [96]
    assert job.derived.built == ["tokens", "teacher-logits"]  # type: ignore[attr-defined]


def test_two_equal_teachers_are_as_good_as_one(tmp_path, taught):
    one, _ = distill(tmp_path, "a", taught, dropout=0.0, num_train_epochs=1)
    two, _ = distill(tmp_path, "b", taught, teachers=2, dropout=0.0, num_train_epochs=1)
    a, b = weights(one.out), weights(two.out)
    assert all(torch.allclose(a[name], b[name], atol=1e-5) for name in a)


def test_alpha_zero_is_plain_training(tmp_path, taught):
    """Same layers, seed and settings without a teacher's say: the loop sees the same loss up to rounding."""
    data, teacher, _ = taught
    _, figures = distill(tmp_path, "a", taught, alpha=0.0, layers=4, dropout=0.0, num_train_epochs=1)
    plain = make_job(tmp_path, "b", data, inputs={"model": [as_input(teacher, "model.torch")]})
    expected = Stage(learning_rate=3e-3, num_train_epochs=1, dropout=0.0).run(plain)
    assert figures["train_loss"] == pytest.approx(expected["train_loss"], abs=1e-6)


def test_micro_batches_make_the_same_step(tmp_path, taught):
    settings = {"dropout": 0.0, "class_weights": {"positive": 3.0}, "num_train_epochs": 1}
    whole, one = distill(tmp_path, "a", taught, **settings)
    parts, several = distill(tmp_path, "b", taught, max_tokens_per_batch=40, **settings)
    assert not same(weights(whole.out), weights(parts.out)), "the batches were split"
    assert several["train_loss"] == pytest.approx(one["train_loss"], abs=1e-4)


def test_another_base_can_be_the_student(tmp_path, taught):
    small = make_base(tmp_path / "small", layers=1, seed=9, hidden_size=16)
    job, figures = distill(tmp_path, "a", taught, base=small, layers=None, num_train_epochs=1)
    assert figures["layers"] == 1
    assert json.loads((job.out / "config.json").read_text())["hidden_size"] == 16


def test_a_base_with_another_tokenizer_is_refused(tmp_path, taught):
    small = make_base(tmp_path / "small", layers=1, words=WORDS[::-1])
    with pytest.raises(UserError, match="another tokenizer"):
        distill(tmp_path, "a", taught, base=small, layers=None)


def test_a_teacher_of_another_task_is_refused(tmp_path, taught):
    words = make_data(tmp_path / "words", "token-classification")
    with pytest.raises(UserError, match="teacher 1 does text-classification but the data is token-classification"):
        distill(tmp_path, "a", (words, *taught[1:]))


def test_words_are_distilled_too(tmp_path):
    base, data = make_base(tmp_path / "base", layers=3), make_data(tmp_path / "data", "token-classification")
    job = make_job(tmp_path, "teacher", data, base)
    settings = {"learning_rate": 3e-3, "num_train_epochs": 5, "train_embeddings": True, "max_length": 16}
    Stage.model_validate({"base": "tiny", **settings}).run(job)
    _, figures = distill(tmp_path, "a", (data, job.out, base), layers=1, num_train_epochs=5)
    assert figures["entity_f1"] > 0.9


@pytest.mark.parametrize("settings", [{}, {"layers": 2, "base": "x"}])
def test_exactly_one_student(settings):
    with pytest.raises(UserError, match="exactly one"):
        Logits.model_validate(settings).check({"data", "teachers"})
    Logits(layers=2).check({"data", "teachers"})
    Logits().check({"data", "teachers", "model"})
    with pytest.raises(UserError, match="layers and the input model"):
        Logits(layers=2).check({"data", "teachers", "model"})


def test_a_model_made_before_can_be_the_student(tmp_path, taught):
    data, teacher, _ = taught
    first, _ = distill(tmp_path, "first", taught, layers=1, num_train_epochs=0.1)
    inputs = {"teachers": [as_input(teacher, "model.torch")], "model": [as_input(first.out, "model.torch")]}
    job = make_job(tmp_path, "second", data, inputs=inputs)
    Logits(learning_rate=1e-30, num_train_epochs=0.1).run(job)
    assert same(weights(job.out), weights(first.out)), "it begins where the first one ended"

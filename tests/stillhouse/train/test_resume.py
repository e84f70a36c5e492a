"""A training that is interrupted and goes on gives the same bytes as one that is not."""

import errno
import os
import shutil
from pathlib import Path

import pytest

from stillhouse.errors import UserError
from stillhouse.train import _checkpoint
from stillhouse.train.stage import Stage
from tests.stillhouse.train.tiny_training import make_base, make_data, make_job, same, weights


class Killed(BaseException):
    """Stands for the signal: nothing may catch it."""


@pytest.fixture(scope="module")
def parts(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("parts")
    return make_base(root / "base"), make_data(root / "data", train=90)


def stage(**settings) -> Stage:
    """Dropout on, a last batch that is short, an evaluation in the middle of each epoch: 2.5 epochs of 12 steps."""
    chosen = {
        "learning_rate": 3e-3,
        "num_train_epochs": 2.5,
        "per_device_train_batch_size": 8,
        "evaluations_per_epoch": 2,
    }
    return Stage.model_validate({"base": "tiny", "save_steps": 4, "layer_decay": 0.8, **chosen, **settings})


def kill_at(point: str, count: int):
    """A `reached` that ends the run at the n-th `point`, and what it saw."""
    seen: list[str] = []

    def reached(name: str, **fields: object) -> None:
        seen.append(name)
        if name == point and seen.count(point) == count:
            raise Killed

    return reached, seen


@pytest.fixture(scope="module")
def whole(tmp_path_factory, parts):
    root = tmp_path_factory.mktemp("whole")
    job = make_job(root, "whole", parts[1], parts[0])
    stage(save_steps=None).run(job)
    return weights(job.out), (job.out / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("point", "count", "left"),
    [
        ("train.checkpoint", 1, "checkpoint-000000004"),
        ("train.checkpoint", 3, "checkpoint-000000012"),
        ("train.checkpoint", 6, "checkpoint-000000024"),
        ("train.checkpoint.writing", 6, "checkpoint-000000004"),
    ],
)
def test_a_resumed_run_equals_an_uninterrupted_one_to_the_bit(tmp_path, parts, whole, point, count, left):
    reached, _ = kill_at(point, count)
    job = make_job(tmp_path, "a", parts[1], parts[0], reached=reached)
    with pytest.raises(Killed):
        stage().run(job)
    assert (job.scratch / left / "manifest.json").exists()
    steps: list[int] = []
    reached, seen = kill_at("never", 1)
    again = make_job(
        tmp_path, "a", parts[1], parts[0], reached=reached, progress=lambda done, *rest: steps.append(done)
    )
    stage(save_steps=7, save_minutes=None).run(again)
    assert steps[0] == int(left[-9:]) + 1 and steps[-1] == 30
    assert "train.resumed" in seen
    assert same(weights(again.out), whole[0])
    assert (again.out / "metrics.jsonl").read_bytes() == whole[1]


def test_a_checkpoint_of_other_data_is_not_gone_on_with(tmp_path, parts, whole):
    other = make_data(tmp_path / "other", train=60)
    reached, _ = kill_at("train.checkpoint", 3)
    with pytest.raises(Killed):
        stage().run(make_job(tmp_path, "a", other, parts[0], reached=reached))
    reached, seen = kill_at("never", 1)
    job = make_job(tmp_path, "a", parts[1], parts[0], reached=reached)
    stage().run(job)
    assert "train.resumed" not in seen
    assert same(weights(job.out), whole[0])


def test_checkpoints_of_other_data_do_not_hide_the_new_ones(tmp_path, parts, whole):
    reached, _ = kill_at("train.checkpoint", 6)
    with pytest.raises(Killed):
        stage().run(make_job(tmp_path, "a", make_data(tmp_path / "other", train=90), parts[0], reached=reached))
    reached, _ = kill_at("train.checkpoint", 2)
    with pytest.raises(Killed):
        stage().run(make_job(tmp_path, "a", parts[1], parts[0], reached=reached))
    reached, seen = kill_at("never", 1)
    job = make_job(tmp_path, "a", parts[1], parts[0], reached=reached)
    assert sorted(path.name for path in job.scratch.glob("checkpoint-*"))[-1] == "checkpoint-000000008"
    stage().run(job)
    assert "train.resumed" in seen and same(weights(job.out), whole[0])


def test_two_newest_checkpoints_and_their_best_weights_are_kept(tmp_path, parts):
    reached, _ = kill_at("train.resumed", 1)
    job = make_job(tmp_path, "a", parts[1], parts[0], reached=reached)
    stage().run(job)
    names = sorted(path.name for path in job.scratch.iterdir())
    assert [name for name in names if name.startswith("checkpoint")] == ["checkpoint-000000024", "checkpoint-000000028"]
    assert 1 <= len([name for name in names if name.startswith("best")]) <= 2
    assert all(path.suffix in (".safetensors", ".json") for path in job.scratch.rglob("*") if path.is_file())


@pytest.mark.parametrize("damage", ["flip", "tear", "manifest", "best"])
def test_a_damaged_checkpoint_is_moved_aside_and_the_one_before_it_used(tmp_path, parts, whole, damage):
    reached, _ = kill_at("train.checkpoint", 5)
    job = make_job(tmp_path, "a", parts[1], parts[0], reached=reached)
    with pytest.raises(Killed):
        stage().run(job)
    newest = job.scratch / "checkpoint-000000020"
    victim = newest / "optimizer.safetensors"
    if damage == "flip":
        content = bytearray(victim.read_bytes())
        content[-5] ^= 1
        victim.write_bytes(content)
    elif damage == "tear":
        os.truncate(victim, 100)
    elif damage == "manifest":
        (newest / "manifest.json").unlink()
    else:
        for best in job.scratch.glob("best-*"):
            os.truncate(best, 10)
    reached, seen = kill_at("never", 1)
    again = make_job(tmp_path, "a", parts[1], parts[0], reached=reached)
    stage().run(again)
    assert "train.checkpoint.damaged" in seen
    assert ("train.resumed" in seen) == (damage != "best" or seen.count("train.checkpoint.damaged") == 1)
    assert (job.scratch / f"damaged-{newest.name}").exists()
    assert same(weights(again.out), whole[0])


def test_checkpoints_go_by_time_too(tmp_path, parts):
    reached, seen = kill_at("never", 1)
    job = make_job(tmp_path, "a", parts[1], parts[0], reached=reached)
    stage(save_steps=None, save_minutes=1e-9, num_train_epochs=0.5).run(job)
    assert seen.count("train.checkpoint") == 5, "one after every step but the last"


def test_a_full_disk_is_one_line_and_leaves_the_older_checkpoint(tmp_path, parts, monkeypatch):
    original = _checkpoint._write

    def full(path: Path, content: bytes, halfway) -> None:
        if path.parent.name == "checkpoint-000000008":
            raise OSError(errno.ENOSPC, "No space left on device")
        original(path, content, halfway)

    monkeypatch.setattr(_checkpoint, "_write", full)
    job = make_job(tmp_path, "a", parts[1], parts[0])
    with pytest.raises(UserError, match="no space left on the disk"):
        stage().run(job)
    assert [path.name for path in job.scratch.glob("checkpoint-*")] == ["checkpoint-000000004"]


def test_a_checkpoint_does_not_change_the_result(tmp_path, parts, whole):
    job = make_job(tmp_path, "a", parts[1], parts[0])
    stage(save_steps=1).run(job)
    assert same(weights(job.out), whole[0])
    shutil.rmtree(job.scratch)


def test_settings_of_checkpoints_are_not_in_the_key():
    assert {"save_steps", "save_minutes"} == Stage.not_in_key

"""SIGKILL at named points, of the worker and of the run: the next run completes, and nothing is lost or doubled."""

import os
import signal
import subprocess
import time

import pytest

from stillhouse.store import Store

ARGUMENTS = ("run", "{recipe}", "--local", "--until", "full")


def arguments(recipe) -> list[str]:
    return [part.format(recipe=recipe) for part in ARGUMENTS]


def content(cli, recipe) -> str:
    """Content digest of the trained model."""
    steps = cli.json("plan", str(recipe), "--until", "full")["steps"]
    manifest = Store(cli.home).hit(steps[-1]["key"])
    assert manifest is not None
    return manifest["content"]


@pytest.fixture(scope="module")
def uninterrupted() -> dict[str, str]:
    """Digest of the model of a run that nobody disturbed; filled by the first test that needs it."""
    return {}


def straight(uninterrupted, make_cli, recipe) -> str:
    if "content" not in uninterrupted:
        other = make_cli("uninterrupted")
        other(*arguments(recipe))
        uninterrupted["content"] = content(other, recipe)
    return uninterrupted["content"]


POINTS = (
    ("data", "store.locked:1"), ("data", "store.before-manifest:1"), ("data", "store.before-rename:1"),
    ("data", "store.after-rename:1"), ("full", "train.checkpoint:2"), ("full", "train.checkpoint.writing:6"),
)  # fmt: skip
"""Last step of the run, and where its worker dies; whether it trains or not, a step is published in the same way."""


def test_a_worker_killed_at_every_point_in_turn_costs_no_more_than_the_steps_since_its_checkpoint(
    cli, make_cli, tiny_recipe, uninterrupted
):
    """Retries are off for these steps, so each run fails, and the next one goes on."""
    saved = []
    for step, point in POINTS:
        name, count = point.split(":")
        before = len(cli.events())
        run = cli("run", str(tiny_recipe), "--local", "--until", step, fault=point, code=None)
        now = cli.events()[before:]
        assert [event["event"] for event in now].count(name) >= int(count), f"{point} was never reached"
        assert (cli.home / "logs" / f"fault-{name}").exists(), f"nothing was killed at {point}"
        assert run.returncode == 1 and "SIGKILL" in run.stderr and "Traceback" not in run.stderr
        resumed = [event["at"] for event in now if event["event"] == "train.resumed"]
        assert resumed == saved[-1:], f"{point}: more was repeated than the steps since the last checkpoint"
        saved += [event["at"] for event in now if event["event"] == "train.checkpoint"]
    before = len(cli.events())
    done = cli.json(*arguments(tiny_recipe))
    assert {step["name"]: step["state"] for step in done["steps"]} == {
        "data": "cached",
        "head": "cached",
        "full": "ran",
    }
    last = cli.events()[before:]
    assert [event["at"] for event in last if event["event"] == "train.resumed"] == saved[-1:]
    saved += [event["at"] for event in last if event["event"] == "train.checkpoint"]
    assert saved == sorted(set(saved)) and len(saved) > 5, "no step was saved twice"
    assert content(cli, tiny_recipe) == straight(uninterrupted, make_cli, tiny_recipe)


def test_a_killed_worker_is_replaced_within_the_run(cli_with_head, make_cli, tiny_recipe, uninterrupted):
    cli = cli_with_head
    expected = straight(uninterrupted, make_cli, tiny_recipe)
    done = cli(*arguments(tiny_recipe), "--set", "full.resources.retries=1", fault="train.checkpoint:2")
    assert "trying again" in done.stderr
    assert len(cli.events("train.resumed")) == 1
    assert content(cli, tiny_recipe) == expected


def test_a_killed_run_takes_its_worker_with_it_and_is_resumed(cli_with_head, make_cli, tiny_recipe, uninterrupted):
    cli = cli_with_head
    expected = straight(uninterrupted, make_cli, tiny_recipe)
    process = cli.start(*arguments(tiny_recipe), "--set", "full.resources.timeout_seconds=600")
    deadline = time.monotonic() + 120
    while len(cli.events("train.checkpoint")) < 2 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    process.communicate()
    worker = cli.events("train.checkpoint")[-1]["pid"]
    assert process.returncode == -signal.SIGKILL and worker != process.pid
    deadline = time.monotonic() + 10
    while _alive(worker) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(worker), "the worker outlived its run"
    cli(*arguments(tiny_recipe))
    assert len(cli.events("train.resumed")) == 1
    assert content(cli, tiny_recipe) == expected


def test_ctrl_c_says_how_to_go_on(cli_with_head, tiny_recipe):
    cli = cli_with_head
    process = cli.start(*arguments(tiny_recipe), start_new_session=True)
    deadline = time.monotonic() + 120
    while not cli.events("train.checkpoint") and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Type the same command again" in err and "Traceback" not in err
    assert err.strip().endswith("go on where it was") and "trying again" not in err, "nothing comes after the last word"
    cli(*arguments(tiny_recipe))
    assert len(cli.events("train.resumed")) == 1


def test_two_runs_at_once_end_with_one_artifact_and_two_happy_processes(cli, tiny_recipe):
    processes = [cli.start(*arguments(tiny_recipe)) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    started = [event["key"] for event in cli.events("step.started")]
    assert len(started) == len(set(started)) == 3


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_stopped_process_is_not_mistaken_for_a_running_one():
    process = subprocess.Popen(["true"])
    process.wait()
    assert not _alive(process.pid)

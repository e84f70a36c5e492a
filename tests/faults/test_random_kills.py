"""Twenty SIGKILLs at random, repeatable places of whole runs: nothing is lost, doubled or left half done."""

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from stillhouse.store import Store

SEEDS = 5
KILLS = 4
"""For each seed, one after the other."""
RUN_SECONDS = 240
LONGEST_PAUSE = 0.4
"""Seconds, at most, from the chosen event to the kill: it lands between two events, not only right after one."""
MEASURED = ("scores", "release")
"""Steps whose content says how fast something was: those are compared by verdict instead."""
RETRIED = ("student", "onnx", "int8", "scores", "release")


@pytest.fixture(scope="module")
def undisturbed() -> dict:
    """What a run that nobody kills ends with; filled by the first test."""
    return {}


def run_arguments(recipe: Path) -> list[str]:
    # How fast a tiny model runs is noise; whether int8 is accepted must not hang on it here.
    once = [part for name in RETRIED for part in ("--set", f"{name}.resources.retries=0")]
    return ["run", str(recipe), "--local", "--set", "int8.min_speedup=0", *once]


def outcome(cli, arguments: list[str]) -> dict:
    """Run to the end; the content of every step, the verdict and what is registered."""
    result = cli.json(*arguments)
    store = Store(cli.home)
    manifests = {step["name"]: store.hit(step["key"]) for step in result["steps"]}
    assert all(manifests.values()), manifests
    return {
        "contents": {name: found["content"] for name, found in manifests.items() if name not in MEASURED},
        "gate": result["gate"]["passed"],
        "models": [(m["name"], [(v["version"], v["aliases"]) for v in m["versions"]]) for m in cli.json("models")],
        "events": len(cli.events()),
    }


def wait_for_event(cli, process: "subprocess.Popen[str]", number: int) -> None:
    """Until the event log has `number` lines, or the run is over."""
    deadline = time.monotonic() + RUN_SECONDS
    while len(cli.events()) < number and process.poll() is None:
        assert time.monotonic() < deadline, "the run hangs"
        time.sleep(0.01)


def kill_somewhere(cli, arguments: list[str], rng: random.Random, last: int) -> tuple[str, bool]:
    """Start a run and kill its worker, or the run itself, near a random event; (whom, "" if too late; is it done?)."""
    before = len(cli.events())
    process = cli.start(*arguments)
    wait_for_event(cli, process, rng.randint(before + 1, max(before + 1, last)))
    time.sleep(rng.uniform(0, LONGEST_PAUSE))
    workers = {event["pid"] for event in cli.events()[before:]} - {process.pid}
    whom = rng.choice(["run", "worker"]) if workers else "run"
    alive = process.poll() is None
    if alive:
        try:
            os.kill(process.pid if whom == "run" else max(workers), signal.SIGKILL)
        except ProcessLookupError:
            alive = False
    _, err = process.communicate(timeout=RUN_SECONDS)
    assert "Traceback" not in err, err
    if alive and whom == "run" and process.returncode == 0:  # it ended between the look and the kill
        alive = False
    assert process.returncode in ((-signal.SIGKILL,) if alive and whom == "run" else (0, 1)), err
    return whom if alive else "", process.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(SEEDS))
def test_killed_again_and_again_a_run_ends_as_if_nothing_had_been(seed, make_cli, shared_recipe, undisturbed):
    """Each kill falls into its own part of the run, from where the last one left it."""
    rng, arguments = random.Random(seed), run_arguments(shared_recipe)
    if not undisturbed:
        undisturbed.update(outcome(make_cli("undisturbed"), arguments))
    killed: list[str] = []
    homes = 0
    cli = make_cli("home-0")
    while len(killed) < KILLS:
        whom, done = kill_somewhere(cli, arguments, rng, undisturbed["events"] * (len(killed) + 1) // (KILLS + 1))
        killed += [whom] if whom else []
        if done and len(killed) < KILLS:  # an idle worker was killed, and replaced: on with another run
            check_undamaged(cli, arguments, undisturbed)
            homes += 1
            assert homes < KILLS, "the runs end before they are killed"
            cli = make_cli(f"home-{homes}")
    print(f"seed {seed}: killed {killed}")
    check_undamaged(cli, arguments, undisturbed)


def check_undamaged(cli, arguments: list[str], undisturbed: dict) -> None:
    """The next run completes, everything is as without kills, and then there is nothing left to do."""
    assert {**outcome(cli, arguments), "events": 0} == {**undisturbed, "events": 0}
    assert cli.json("store", "verify")["damaged"] == []
    again = cli.json(*arguments)
    assert {step["state"] for step in again["steps"]} == {"cached"}
    assert json.loads((cli.home / "store" / "artifacts" / again["steps"][-1]["key"] / "verdict.json").read_text())

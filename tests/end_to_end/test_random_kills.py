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

HOMES = 5
KILLS_PER_HOME = 4
RUN_SECONDS = 240
LONGEST_PAUSE = 0.4
"""Seconds, at most, from the chosen event to the kill: it lands between two events, not only right after one."""
MEASURED = ("scores", "release")
"""Steps whose content says how fast something was, in words: those are compared by verdict instead."""


@pytest.fixture(scope="module")
def undisturbed() -> dict:
    """What a run that nobody kills ends with; filled by the first test."""
    return {}


def run_arguments(recipe: Path) -> list[str]:
    # How fast a tiny model runs is noise; whether int8 is accepted must not hang on it here.
    return ["run", str(recipe), "--local", "--set", "int8.min_speedup=0"]


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


def kill_somewhere(cli, arguments: list[str], rng: random.Random, last: int) -> str:
    """Start a run and kill its worker, or the run itself, near a random event; says which, or "" if it was too late."""
    before = len(cli.events())
    process = cli.start(*arguments)
    wait_for_event(cli, process, rng.randint(before + 1, max(before + 1, last - 1)))
    time.sleep(rng.uniform(0, LONGEST_PAUSE))
    whom = rng.choice(["run", "worker"])
    events = cli.events()
    workers = {event["pid"] for event in events[before:]} - {process.pid}
    target = process.pid if whom == "run" or not workers else max(workers)
    if process.poll() is not None:
        process.communicate()
        return ""
    try:
        os.kill(target, signal.SIGKILL)
    except ProcessLookupError:
        process.communicate(timeout=RUN_SECONDS)
        return ""
    _, err = process.communicate(timeout=RUN_SECONDS)
    assert "Traceback" not in err, err
    if target == process.pid:
        assert process.returncode == -signal.SIGKILL
    else:
        assert process.returncode in (0, 1), err  # a retry may have mended it
    return "run" if target == process.pid else "worker"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(HOMES))
def test_killed_again_and_again_a_run_ends_as_if_nothing_had_been(seed, make_cli, tiny_recipe, undisturbed):
    rng = random.Random(seed)
    arguments = run_arguments(tiny_recipe)
    if not undisturbed:
        undisturbed.update(outcome(make_cli("undisturbed"), arguments))
    cli = make_cli("home")
    killed: list[str] = []
    for attempt in range(1, KILLS_PER_HOME + 1):
        # Each kill falls into its own part of the run, from where the last one left it.
        reach = undisturbed["events"] * attempt // KILLS_PER_HOME
        killed.append(kill_somewhere(cli, arguments, rng, reach))
    print(f"seed {seed}: killed {killed}")
    assert sum(bool(one) for one in killed) >= KILLS_PER_HOME - 1, "too few kills hit a living process"
    found = outcome(cli, arguments)
    assert {**found, "events": 0} == {**undisturbed, "events": 0}
    assert cli.json("store", "verify")["damaged"] == []
    again = cli.json(*arguments)
    assert {step["state"] for step in again["steps"]} == {"cached"}
    assert json.loads((cli.home / "store" / "artifacts" / again["steps"][-1]["key"] / "verdict.json").read_text())

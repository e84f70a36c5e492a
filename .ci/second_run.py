"""The demo's second run: every step cached, nothing heavy imported or started, in seconds; after a rollback too."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

HOME = sys.argv[1]
STILLHOUSE = str(Path(sys.executable).with_name("stillhouse"))
LIMIT_SECONDS = 6.0
PROBE = """
import atexit, json, os, sys
def tell():
    heavy = sorted({"torch", "prefect", "transformers"} & set(sys.modules))
    json.dump(heavy, open(os.environ["PROBE_FILE"], "w"))
atexit.register(tell)
from flows.cli import main
sys.argv[0] = "stillhouse"
main()
"""


def second_run(*overrides: str) -> dict:
    """Run the recipe again; fail unless all is cached, light and quick."""
    probe = Path(HOME) / "logs" / "probe.json"
    environment = {**os.environ, "STILLHOUSE_HOME": HOME, "PROBE_FILE": str(probe)}
    before = (Path(HOME) / "logs" / "worker.log").stat().st_mtime_ns
    command = [sys.executable, "-c", PROBE, "run", "opinions", "--json", *overrides]
    started = time.monotonic()
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    seconds = time.monotonic() - started
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert {step["state"] for step in result["steps"]} == {"cached"}, result
    assert result["flow_run"] is None
    assert json.loads(probe.read_text()) == [], probe.read_text()
    assert (Path(HOME) / "logs" / "worker.log").stat().st_mtime_ns == before, "a worker was started"
    print(f"second run: {seconds:.1f} s, model {result['model']}")
    assert seconds <= LIMIT_SECONDS, f"{seconds:.1f} s"
    return result


def stillhouse(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "STILLHOUSE_HOME": HOME}
    return subprocess.run([STILLHOUSE, *arguments], env=environment, capture_output=True, text=True, check=True)


second_run()
OTHER = "int8.per_channel=false"
states = {
    step["name"]: step["state"]
    for step in json.loads(stillhouse("run", "opinions", "--json", "--set", OTHER).stdout)["steps"]
}
changed = {name for name, state in states.items() if state == "ran"}
assert changed == {"int8", "cheapest", "sure", "scores", "release"}, states
second_run("--set", OTHER)
print(stillhouse("rollback", "opinions").stdout.strip())
second_run("--set", OTHER)
second_run()

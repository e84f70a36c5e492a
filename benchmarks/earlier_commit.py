"""The opinions recipe of an earlier commit, run by the code of that commit and by the code as it is now, in turn.

The present code runs it with the settings of the shipped recipe of today that concern the same steps (`SETTINGS`).

    python -m benchmarks.earlier_commit            against the commit that ended the backbone, two rounds (half an hour)

Result: `benchmarks/results/earlier_commit.json`: seconds by step, their ratio, and the quality of both.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, ROOT
from stillhouse.launcher import MEMORY, QUIET

BACKBONE = "27f23d4"
SETTINGS = ["student.train=last-2", "int8.max_rows=2000", "int8.speed_seconds=0.5", "scores.speed_seconds=1"]
RECIPE = "pipelines/recipes/opinions.yaml"
SEED = 42
GOAL = 0.6


def run(checkout: Path, recipe: Path, overrides: list[str], home: Path) -> dict[str, Any]:
    """One cold run of the recipe with the code in `checkout`: seconds of every step, and the released figures."""
    sets = [part for override in overrides for part in ("--set", override)]
    environment = {**QUIET, **MEMORY, **os.environ, "PYTHONPATH": str(checkout), "STILLHOUSE_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", str(recipe), "--local", "--json", *sets],
        cwd=checkout, env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    steps = json.loads(done.stdout)["steps"]
    metrics = next(step["metrics"] for step in steps if step["name"] == "scores")
    assert all(step["state"] in ("ran", "refused") for step in steps), steps
    return {"seconds": {step["name"]: step["seconds"] for step in steps}, "metrics": metrics}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commit", default=BACKBONE)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    from stillhouse.machine import fingerprint

    runs: dict[str, list[dict[str, Any]]] = {"earlier": [], "now": []}
    with tempfile.TemporaryDirectory() as scratch:
        earlier = Path(scratch) / "earlier"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "-q", "--detach", str(earlier), options.commit], check=True)
        try:
            for turn in range(options.rounds):
                sides: list[tuple[str, Path, list[str]]] = [("earlier", earlier, []), ("now", ROOT, SETTINGS)]
                for name, checkout, overrides in sides if turn % 2 == 0 else sides[::-1]:
                    home = Path(scratch) / f"home-{name}-{turn}"
                    runs[name].append(run(checkout, earlier / RECIPE, [*overrides, f"seed={SEED + turn}"], home))
                    print(name, runs[name][-1]["seconds"], flush=True)
        finally:
            subprocess.run([*git, "remove", "--force", str(earlier)], check=True)
    steps = list(runs["earlier"][0]["seconds"])
    sums = {name: [sum(one["seconds"][step] for step in steps) for one in each] for name, each in runs.items()}
    shares = [now / before for now, before in zip(sums["now"], sums["earlier"], strict=True)]
    result = {
        "commit": options.commit, "settings_of_now": SETTINGS, "steps": steps, "seconds": sums,
        "share": round(statistics.median(shares), 3), "shares": [round(share, 3) for share in shares], "goal": GOAL,
        "runs": runs, "machine": fingerprint(),
    }  # fmt: skip
    print(f"the earlier steps take {result['share']} of their time, goal {GOAL}")
    (RESULTS / "earlier_commit.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

"""How many all-cached runs at once the servers of `up` bear: `python benchmarks/concurrent_runs.py [--most 64]`.

The documented point where Postgres is needed. Starts an `up` in an empty home, runs a recipe of one short step once,
then again 1, 2, 4, … times at once, as a user types it, and stops where a run fails or takes more than `--patience`
times one run alone for each run (that is, where the servers queue, not only the processor). With
PREFECT_SERVER_DATABASE_CONNECTION_URL set, the Prefect server uses that database: run it once with and once without.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "concurrent_runs.json"
BUSY = "sqlite3.OperationalError: database is locked"
"""In the Prefect server's log when another wrote between a transaction's read and its write; clients then ask again."""
RECIPE = """\
name: at-once
steps:
  data: {{uses: prepare.text, with: {{source: {data}, near_duplicates: false}}}}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=64, help="the largest number of runs at once")
    parser.add_argument(
        "--patience", type=float, default=2.0, help="times one run alone, for each run, before it stops"
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory) / "home"
        environment = {**os.environ, "STILLHOUSE_HOME": str(home), "PYTHONPATH": str(ROOT)}
        recipe = _write_recipe(Path(directory))
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "up", "--json"], env=environment, stdout=subprocess.PIPE, text=True
        )
        try:
            rows = _measure(_addresses(process), home, recipe, environment, given.most, given.patience)
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
    _keep(rows, given.output)


def _write_recipe(directory: Path) -> Path:
    rows = [
        f"some words number {i} {word},{label}" for i in range(300) for word, label in (("good", "a"), ("bad", "b"))
    ]
    (directory / "rows.csv").write_text("text,label\n" + "\n".join(rows) + "\n")
    recipe = directory / "recipe.yaml"
    recipe.write_text(RECIPE.format(data=directory / "rows.csv"))
    return recipe


def _addresses(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line == "}\n":
            return json.loads("".join(lines))
    raise SystemExit("`up` did not start")


def _measure(
    addresses: dict[str, Any], home: Path, recipe: Path, environment: dict[str, str], most: int, patience: float
) -> list[dict[str, Any]]:
    command = [sys.executable, "-m", "flows.cli", "run", str(recipe), "--json"]
    subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
    rows: list[dict[str, Any]] = []
    count = 1
    while count <= most:
        rows.append(_row(addresses, home, command, environment, count))
        print(json.dumps(rows[-1]), flush=True)
        if rows[-1]["failed"] or rows[-1]["seconds"] > patience * count * rows[0]["seconds"]:
            break
        count = count * 2 if count < 16 else count + 16
    return rows


def _row(
    addresses: dict[str, Any], home: Path, command: list[str], environment: dict[str, str], count: int
) -> dict[str, Any]:
    log = home / "logs" / "prefect-server.log"
    busy = log.read_text(errors="replace").count(BUSY)
    answers: list[float] = []
    over = threading.Event()
    asking = threading.Thread(target=_ask, args=(f"{addresses['api']}/flows/count", answers, over))
    asking.start()
    started = time.monotonic()
    processes = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        for _ in range(count)
    ]
    failed = 0
    for process in processes:
        out, _ = process.communicate()
        states = {step["state"] for step in json.loads(out)["steps"]} if process.returncode == 0 else set()
        failed += states != {"cached"}
    seconds = time.monotonic() - started
    over.set()
    asking.join()
    answers.sort()
    return {
        "at_once": count, "seconds": round(seconds, 2), "failed": failed,
        "database_busy": log.read_text(errors="replace").count(BUSY) - busy,
        "answer_median_seconds": round(answers[len(answers) // 2], 3), "answer_slowest_seconds": round(answers[-1], 3),
    }  # fmt: skip


def _ask(address: str, answers: list[float], over: threading.Event) -> None:
    """How long one short question takes meanwhile; a refused one counts as its waiting time."""
    while not over.is_set() or not answers:
        started = time.monotonic()
        try:
            request = urllib.request.Request(address, b"{}", {"Content-Type": "application/json"})
            urllib.request.urlopen(request, timeout=120).read()
        except OSError:
            pass
        answers.append(time.monotonic() - started)
        time.sleep(0.1)


def _keep(rows: list[dict[str, Any]], path: Path) -> None:
    from stillhouse.keys import library_versions
    from stillhouse.machine import fingerprint

    database = os.environ.get("PREFECT_SERVER_DATABASE_CONNECTION_URL", "sqlite").partition("+")[0].partition(":")[0]
    kept = json.loads(path.read_text()) if path.exists() else {}
    kept[database] = {
        "machine": fingerprint(), "versions": library_versions(("prefect", "mlflow")), "rows": rows,
        "most_without_failure": max((row["at_once"] for row in rows if not row["failed"]), default=0),
    }  # fmt: skip
    path.write_text(json.dumps(kept, indent=2, sort_keys=True) + "\n")


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    main()

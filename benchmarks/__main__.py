"""Run benchmarks and write their table: `python -m benchmarks [NAME…] [--quick]`; without names all of them."""

import argparse
import importlib
import json
import os
import sys

from benchmarks.harness import RESULTS
from benchmarks.table import write_table
from stillhouse.launcher import MEMORY, QUIET

BENCHMARKS = (
    "scoring_fp32", "scoring_int8", "ladder", "fine_tuning", "unfreezing", "distillation", "pruning", "orchestration",
    "rerun", "retrain",
)  # fmt: skip
LIBRARIES = (
    "torch",
    "transformers",
    "accelerate",
    "onnxruntime",
    "tokenizers",
    "sentence-transformers",
    "prefect",
    "mlflow",
)


def run(name: str, quick: bool) -> None:
    from stillhouse.keys import library_versions
    from stillhouse.machine import fingerprint

    benchmark = importlib.import_module(f"benchmarks.{name}")
    print(f"{name}: {benchmark.WORK}", flush=True)
    result = {"work": benchmark.WORK, **benchmark.measure(quick)}
    for row in result["rows"]:
        measured, target = row["ratio"], row["target"]
        goal = "" if target is None else f", goal {target}: {'met' if row['met'] else 'missed'}"
        print(f"  {row['against']}: {measured['median']}x [{measured['low']}, {measured['high']}]{goal}", flush=True)
    if quick:
        return
    result |= {"machine": fingerprint(), "versions": library_versions(LIBRARIES)}
    path = RESULTS / f"bench_{name}.json"
    path.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="a try on little data; nothing is saved")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"no benchmark {unknown[0]}: any of {', '.join(BENCHMARKS)}")
    if any(name not in os.environ for name in MEMORY):  # every side runs in the environment of our worker
        command = [sys.executable, "-m", "benchmarks", *sys.argv[1:]]
        os.execve(sys.executable, command, {**QUIET, **MEMORY, **os.environ})
    for name in options.names or BENCHMARKS:
        run(name, options.quick)
    if not options.quick:
        write_table(BENCHMARKS)


if __name__ == "__main__":
    main()

"""Run shipped recipes in full, several split seeds where asked, and commit what came out.

    python benchmarks/recipes.py                     news and entities, once each
    python benchmarks/recipes.py opinions --seeds 3  the demo's figures with their interval

Results: `benchmarks/results/NAME.json`, with machine and versions. `seconds` is the sum over the steps.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from stillhouse.keys import library_versions
from stillhouse.machine import fingerprint

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"
LIBRARIES = ("torch", "transformers", "onnxruntime", "tokenizers", "scikit-learn")
WNUT = ROOT.parent / "shared" / "data" / "wnut17"
LIMIT_SECONDS = 900


def run(name: str, seed: int, home: Path, overrides: list[str]) -> dict[str, Any]:
    """One whole run; its scores, rungs and times. Steps that the home has count with the time they took there."""
    command = [sys.executable, "-m", "flows.cli", "run", name, "--json", "--set", f"seed={seed}", "--local"]
    command += [part for override in overrides for part in ("--set", override)]
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "STILLHOUSE_HOME": str(home)}
    )
    if done.returncode not in (0, 3):
        raise SystemExit(f"{name}, seed {seed}: exit {done.returncode}\n{done.stdout}")
    result = json.loads(done.stdout)
    steps = {step["name"]: step for step in result["steps"]}
    store = home / "store" / "artifacts"
    scores = json.loads((store / steps["scores"]["key"] / "scores.json").read_text())
    rung = json.loads((store / steps["int8"]["key"] / "rung.json").read_text())
    manifests = {name: json.loads((store / step["key"] / "manifest.json").read_text()) for name, step in steps.items()}
    seconds = {name: manifest["measured"]["seconds"] for name, manifest in manifests.items()}
    source = manifests["data"]["sources"]["source"]
    called = source["name"] if "://" in source["name"] else Path(source["name"]).name
    return {
        "seed": seed, "seconds": round(sum(seconds.values()), 1), "gate": result["gate"], "rung": rung,
        "step_seconds": seconds, "data": {"source": called, "digest": source["digest"]},
        **{key: scores.get(key) for key in ("rows", "candidate", "baseline", "references", "differences", "problem")},
    }  # fmt: skip


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the seeds of what the recipe promises, with a 95 % t-interval where there are several."""
    metric = "entity_f1" if runs[0]["problem"] == "token-classification" else "f1_macro"
    columns: dict[str, list[float]] = {
        "teacher": [r["baseline"]["metrics"][metric] for r in runs],
        "student": [r["candidate"]["metrics"][metric] for r in runs],
        "kept": [r["candidate"]["metrics"][metric] / r["baseline"]["metrics"][metric] for r in runs],
        "smaller": [r["baseline"]["bytes"] / r["candidate"]["bytes"] for r in runs],
        "faster": [r["differences"]["baseline"]["measured"]["speedup"]["median"] for r in runs],
        "seconds": [r["seconds"] for r in runs],
    }
    linear = [(r["references"] or {}).get("linear") for r in runs]
    if all(linear):
        columns["linear"] = [figures[metric] for figures in linear]
        columns["teacher_over_linear"] = [
            t - n for t, n in zip(columns["teacher"], columns["linear"], strict=True)
        ]  # fmt: skip
        columns["student_over_linear"] = [
            t - n for t, n in zip(columns["student"], columns["linear"], strict=True)
        ]  # fmt: skip
    return {"metric": metric, **{name: interval(values) for name, values in columns.items()}}


def interval(values: list[float]) -> dict[str, float]:
    mean = statistics.fmean(values)
    if len(values) < 2:
        return {"mean": round(mean, 4)}
    from scipy.stats import t

    half = t.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return {"mean": round(mean, 4), "low": round(mean - half, 4), "high": round(mean + half, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=["news", "entities"])
    parser.add_argument("--seeds", type=int, default=1, help="how many split seeds, from 42 up")
    parser.add_argument("--home", type=Path, default=ROOT / ".stillhouse" / "benchmarks")
    parser.add_argument("--set", dest="overrides", action="append", default=[], metavar="STEP.KEY=VALUE")
    parser.add_argument("--no-save", action="store_true", help="only print")
    options = parser.parse_args()
    for name in options.recipes:
        overrides = list(options.overrides)
        if name == "entities" and WNUT.is_dir():
            overrides.append(f"data.source={WNUT}")
        runs = [run(name, 42 + i, options.home, overrides) for i in range(options.seeds)]
        said = [override.replace(f"{ROOT.parent}/", "../") for override in overrides]
        report = {
            "recipe": name, "overrides": said, "summary": summary(runs),
            "machine": fingerprint(), "versions": library_versions(LIBRARIES), "runs": runs,
        }  # fmt: skip
        print(json.dumps({"recipe": name, **report["summary"]}, indent=1))
        if not options.no_save:
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
        slow = [r["seconds"] for r in runs if r["seconds"] > LIMIT_SECONDS]
        if slow:
            raise SystemExit(f"{name}: {max(slow):.0f} s, more than {LIMIT_SECONDS} s")


if __name__ == "__main__":
    main()

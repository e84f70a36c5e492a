"""What a person should know about a step that just ran, beyond its figures."""

from pathlib import Path
from typing import Any

from pipelines.listener import Outcome
from stillhouse.files import read_json
from stillhouse.store import Store

CUT_SHARE = 0.02
"""From this share of the training texts on, their being cut is worth a line."""


def step_notes(outcome: Outcome, home: Path) -> list[str]:
    """Lines for the terminal: rows left out and why, warnings of the data report, texts longer than `max_length`."""
    if outcome["state"] != "ran":
        return []
    store = Store(home)
    directory = store.path(outcome["key"])
    if outcome["uses"].startswith("prepare."):
        return _of_data(read_json(directory / "data.json")["report"])
    manifest = store.manifest(outcome["key"])
    if manifest and manifest["settings"].get("base") and (directory / "stillhouse.json").is_file():
        return _of_lengths(outcome, read_json(directory / "stillhouse.json")["max_length"])
    return []


def _of_data(report: dict[str, Any]) -> list[str]:
    reasons = [f"{count:,} {reason.replace('_', ' ')}" for reason, count in report["dropped"].items()]
    return [*(["left out: " + ", ".join(reasons)] if reasons else []), *report["warnings"]]


def _of_lengths(outcome: Outcome, length: int) -> list[str]:
    cut, rows = outcome["metrics"].get("texts_cut", 0), outcome["metrics"].get("train_rows", 0)
    if not rows or cut < CUT_SHARE * rows:
        return []
    what = f"{cut:,.0f} of {rows:,.0f} training texts are longer than {length} tokens and lose their end"
    return [f"{what}; to read more of them: --set {outcome['name']}.max_length={min(512, 2 * length)}"]

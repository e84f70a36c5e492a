"""The data report: what was read, what was left out and why, what is worth a warning."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np

from stillhouse.data._decide import BEYOND, SPLIT_NAMES

REASONS = (
    "malformed",
    "empty",
    "no_label",
    "mapped_to_null",
    "low_confidence",
    "contradictory",
    "duplicate",
    "near_duplicate",
    "near_held_out",
    BEYOND,
)
"""Why a row was left out; `near_held_out`: a training row that is near a validation or test row."""
FEW = 5
_NAMED = 10


def build_report(
    counts: Counter[str],
    rows: list[np.ndarray],
    by_label: list[dict[str, int]],
    words: np.ndarray,
    class_of: Callable[[str], str | None],
) -> dict[str, Any]:
    """`rows`, `by_label`: per split. Every row that was read is in `rows` or in `dropped`."""
    classes = {name: _by_class(found, class_of) for name, found in zip(SPLIT_NAMES, by_label, strict=True)}
    report = {
        "rows": {
            "read": counts["read"] + counts["malformed"],
            **{name: len(chosen) for name, chosen in zip(SPLIT_NAMES, rows, strict=True)},
        },
        "classes": classes,
        "dropped": {reason: counts[reason] for reason in REASONS if counts[reason]},
        "repaired_lines": counts["repaired_lines"],
        "repaired_bytes": counts["repaired_bytes"],
        "words": _lengths(words[np.concatenate(rows)]),
        "warnings": [],
    }
    report["warnings"] = _warnings(report)
    return report


def _by_class(found: dict[str, int], class_of: Callable[[str], str | None]) -> dict[str, int]:
    counted: dict[str, int] = {}
    for label in sorted(found):
        if name := class_of(label):
            counted[name] = counted.get(name, 0) + found[label]
    return counted


def _lengths(words: np.ndarray) -> dict[str, float]:
    if not len(words):
        return {"mean": 0.0, "p50": 0.0, "p95": 0.0, "max": 0.0}
    middle, high = np.percentile(words, [50, 95])
    return {"mean": round(float(words.mean()), 2), "p50": float(middle), "p95": float(high), "max": float(words.max())}


def _warnings(report: dict[str, Any]) -> list[str]:
    warnings = []
    classes, dropped = report["classes"], report["dropped"]
    names = sorted({name for found in classes.values() for name in found})
    for split in ("validation", "test"):
        few = [f"{name}: {classes[split].get(name, 0)}" for name in names if classes[split].get(name, 0) < FEW]
        if few:
            more = f" and {len(few) - _NAMED} more" if len(few) > _NAMED else ""
            warnings.append(f"fewer than {FEW} {split} rows for {', '.join(few[:_NAMED])}{more}")
    unseen = [name for name in names if not classes["train"].get(name)]
    if unseen:
        warnings.append(f"no training rows for {', '.join(unseen[:_NAMED])}")
    if report["repaired_lines"]:
        lines, wrong = report["repaired_lines"], report["repaired_bytes"]
        warnings.append(f"{lines} lines were not UTF-8: {wrong} bytes were read as Windows-1252")
    if dropped.get("malformed"):
        warnings.append(f"{dropped['malformed']} rows could not be read and were left out")
    return warnings

"""Names of the figures that settings may mention, here so that a recipe is checked before anything is imported."""

from stillhouse.errors import UserError, nearest

CLASSIFICATION = "text-classification"
TOKENS = "token-classification"

QUALITY: dict[str, list[str]] = {
    CLASSIFICATION: ["accuracy", "f1_macro", "f1_micro", "precision_macro", "recall_macro", "roc_auc"],
    TOKENS: ["entity_f1", "entity_precision", "entity_recall", "accuracy"],
}
"""Quality figures of each problem, between 0 and 1, larger is better."""
COST = ["size_mb", "texts_per_second", "latency_p50_ms", "latency_p95_ms"]
"""Size in millions of bytes; the rest is measured on the machine."""


def check_names(names: list[str], setting: str, *, cost: bool = False) -> None:
    """Raise `UserError` for a name that no problem has as a figure; `cost` allows size and speed too."""
    known = {name for figures in QUALITY.values() for name in figures} | set(COST if cost else [])
    for name in names:
        if name not in known:
            raise UserError(f'{setting}: unknown figure "{name}"', nearest(name, known))


def check_known(name: str, problem: str, setting: str) -> None:
    """Raise `UserError` for a quality figure that this problem does not have."""
    if name not in QUALITY[problem]:
        raise UserError(f'{setting}: {problem} has no figure "{name}"', nearest(name, set(QUALITY[problem])))

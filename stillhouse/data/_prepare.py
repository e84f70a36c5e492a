"""From sources to a `data` artifact: read, clean, decide, write, report. The same for every problem."""

from collections import Counter
from typing import Any

import numpy as np

from stillhouse.data._decide import BEYOND, SPLIT_NAMES, TEST, VALIDATION, Index, Role, Rules, decide
from stillhouse.data._epochs import epochs_of
from stillhouse.data._intake import Preparation, previous_labels, read_all
from stillhouse.data._report import REASONS, build_report
from stillhouse.data._spool import label_counts, sorted_rows, text_reader, write_split
from stillhouse.errors import UserError
from stillhouse.files import write_json
from stillhouse.method import Job, Metrics


def prepare(job: Job, how: Preparation) -> Metrics:
    """Fill `job.out`; a row's split depends on its text and the seed alone."""
    counts: Counter[str] = Counter()
    known = previous_labels(job, how.problem)
    job.scratch.mkdir(parents=True, exist_ok=True)
    spooled = job.scratch / "rows.arrow"
    try:
        table, index, words = read_all(job, how, counts, spooled)
        _check_usable(job, counts, index)
        given = frozenset(
            split
            for split, role in ((VALIDATION, Role.VALIDATION_GIVEN), (TEST, Role.TEST_GIVEN))
            if (index.roles == role).any()
        )
        rules = Rules(how.threshold, how.max_train_rows, how.stratified, given)
        text_column = how.schema.names[0]
        split, dropped = decide(index, rules, text_reader(table, text_column), job.progress)
        counts.update(dropped)
        rows = [sorted_rows(index, split == code) for code in range(len(SPLIT_NAMES))]
        by_label = [label_counts(table, chosen, how.label_column) for chosen in rows]
        used = [label for counted in by_label for label in counted]
        labels = known + [label for label in how.order_labels(used) if label not in known]
        _check_splits(job, rows, index, counts)
        report = build_report(counts, rows, by_label, words, how.class_of)
        report["warnings"] += how.notes(counts)
        _check_classes(job, how, report)
        epochs = epochs_of(index, job.path("previous") if job.has("previous") else None)
        for name, chosen in zip(SPLIT_NAMES, rows, strict=True):
            write_split(table, chosen, epochs, how.label_column, labels, job.out / f"{name}.parquet")
    finally:
        spooled.unlink(missing_ok=True)
    _write_info(job, how, labels, report)
    sizes = {f"{name}_rows": len(chosen) for name, chosen in zip(SPLIT_NAMES, rows, strict=True)}
    classes = len(report["classes"]["train"])
    unused = report["dropped"].get(BEYOND, 0)  # sound rows, only not in the training sample
    dropped = sum(report["dropped"].values()) - unused
    rows = {"rows": sum(sizes.values()), **sizes}
    return {"classes": classes, "dropped": dropped, "not_sampled": unused, **rows}


def _write_info(job: Job, how: Preparation, labels: list[str], report: dict[str, Any]) -> None:
    source = job.sources["source"]
    write_json(job.out / "labels.json", labels)
    info = {
        "problem": how.problem,
        "language": how.language,
        "columns": how.columns,
        "normalize": how.normalize,
        "source": {"name": source.title, "digest": source.digest},
        "licence": how.licence,
        "report": report,
    }
    write_json(job.out / "data.json", info)


def _check_usable(job: Job, counts: Counter[str], index: Index) -> None:
    new = int((index.roles == Role.NEW).sum())
    if new or job.has("previous"):
        return
    name, read = job.sources["source"].name, counts["read"] + counts["malformed"]
    if read == 0:
        raise UserError(f"{name} has no rows", "Name a file with at least a few rows of each class")
    reasons = {reason: counts[reason] for reason in REASONS if counts[reason]}
    if list(reasons) == ["no_label"]:
        raise UserError(f"{name}: not one of its {read} rows has a label", "Name the column that holds the labels")
    listing = ", ".join(f"{reason.replace('_', ' ')}: {number}" for reason, number in reasons.items())
    raise UserError(f"{name}: none of its {read} rows can be used ({listing})", "Check columns, delimiter and labels")


def _check_splits(job: Job, rows: list[np.ndarray], index: Index, counts: Counter[str]) -> None:
    for name, chosen in zip(SPLIT_NAMES, rows, strict=True):
        distinct = len(np.unique(index.ids[chosen]))
        if distinct < 2:
            total = len(np.unique(np.concatenate([index.ids[each] for each in rows])))
            raise UserError(
                f"{job.sources['source'].name}: {distinct} distinct row(s) in the {name} split, "
                f"{total} in all, of {counts['read']} read",
                "Give more rows, or a file of its own for that split",
            )


def _check_classes(job: Job, how: Preparation, report: dict[str, Any]) -> None:
    classes = report["classes"]["train"]
    # Where words are told apart, "outside of any entity" is the second class.
    least = 2 if how.label_column == "label" else 1
    if len(classes) < least:
        found = ", ".join(classes) or "none"
        raise UserError(
            f"{job.sources['source'].name}: too few classes in the training rows ({found})",
            "Check the label column: there must be something to tell apart",
        )

"""All tests of one run on the rows of a prediction log: what is compared with what, and what to say of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillhouse.errors import UserError, nearest
from stillhouse.monitor.drift import input_drift, prediction_drift, spread
from stillhouse.monitor.quality import estimate_quality, figures, learn_estimator, measured_quality
from stillhouse.monitor.settings import DAY, FAMILIES, HOUR, MOST_WATCHED, MonitorSettings
from stillhouse.monitor.significance import Test, share_of
from stillhouse.monitor.watch import Found, SurgeSettings, count, watch

Embed = Callable[[pd.DataFrame], NDArray[np.floating] | None]
"""Embeddings [n, hidden] of rows of the log; None where neither they nor their texts were kept."""
LOG_REFERENCE_ROWS = 2000
QUALITY_ROWS = 2000
"""The newest rows with labels that quality is measured on."""


@dataclass(frozen=True)
class Reference:
    """What a version of a model was released with; parts may be missing."""

    labels: list[str]
    embeddings: NDArray[np.floating] | None = None
    predicted: NDArray[np.str_] | None = None
    """The label the model gave to each row that it was judged on [n]."""
    true: NDArray[np.str_] | None = None
    confidence: NDArray[np.floating] | None = None
    """Largest probability of those rows [n]."""


@dataclass
class Examination:
    """What a run found; `notes` say what was not tested, and why."""

    rows: int = 0
    tests: list[Test] = field(default_factory=list)
    surge: Found = field(default_factory=Found)
    quality: dict[str, Any] | None = None
    estimate: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)


def examine(
    log: pd.DataFrame, truth: pd.DataFrame, reference: Reference, embed: Embed,
    settings: MonitorSettings, surges: dict[str, Any], first: pd.DataFrame | None = None,
) -> Examination:  # fmt: skip
    """Examine the rows of `log` that are marked `new`; `truth` (`id`, `label`) came later.

    `log`: rows of one version by time, also those to compare with. Of the new ones only those that are `fresh` are
    tested for surges: no run has tested them before. `surges` is the state of `stillhouse.monitor.watch`, read and
    changed. `first`: the version's first rows, to compare with in place of the release's.
    """
    new: Any = log[log["new"]]
    found = Examination(rows=len(new))
    # The rows of the test: the new ones, and as many as it takes of the others.
    others: Any = log[~log["new"]].tail(max(0, settings.sample_rows - len(new)))
    tested = pd.concat([others, new])
    rules = settings, share_of(settings.false_alarm_rate, FAMILIES)
    against = reference
    if first is not None:
        before: Any = first[first["time"] < others["time"].min()] if len(others) else first
        against = _from_log(before, reference.labels, embed, settings)
    if len(new) and len(tested) < settings.min_rows:
        found.notes.append(f"{len(tested)} rows: no drift test below {settings.min_rows}")
    elif len(new):
        if first is not None and against.predicted is None:
            found.notes.append(f"no drift test: fewer than {settings.min_rows} earlier rows of this version in the log")
        else:
            _drift(tested, against, embed, rules, found)
        _estimate(tested, reference, found)
    _quality(log, truth, reference, rules, found)
    _surges(log, reference, (*rules, surges), found)
    return found


def _from_log(log: pd.DataFrame, labels: list[str], embed: Embed, settings: MonitorSettings) -> Reference:
    """The oldest rows of `log` as a reference; an empty one where they are too few."""
    first = log.head(LOG_REFERENCE_ROWS)
    if len(first) < settings.min_rows:
        return Reference(labels)
    sample = first.iloc[spread(len(first), settings.sample_rows)]
    return Reference(labels, embed(sample), _words(first["label"]))


def _drift(
    rows: pd.DataFrame, reference: Reference, embed: Embed, rules: tuple[MonitorSettings, float], found: Examination
) -> None:
    settings, level = rules
    if reference.embeddings is None:
        found.notes.append("no input drift: there are no embeddings to compare with")
    else:
        embedded = embed(rows.iloc[spread(len(rows), settings.sample_rows)])
        if embedded is None or len(embedded) < settings.min_rows:
            found.notes.append("no input drift: the log holds neither texts nor embeddings")
        else:
            known = reference.embeddings[spread(len(reference.embeddings), settings.sample_rows)]
            found.tests.append(input_drift(known, embedded, level, settings.min_auc))
    answers = _words(rows["label"].dropna())
    if reference.predicted is None or not len(answers):
        found.notes.append("no prediction drift: there are no answers to compare with")
        return
    counts = [[int((side == name).sum()) for name in reference.labels] for side in (reference.predicted, answers)]
    found.tests.append(prediction_drift(reference.labels, counts[0], counts[1], level, settings.min_change))


def _estimate(rows: pd.DataFrame, reference: Reference, found: Examination) -> None:
    confidence = _confidence(rows, reference.labels)
    if reference.confidence is None or reference.true is None or reference.predicted is None or not len(confidence):
        return
    learnt = learn_estimator(reference.confidence, reference.predicted == reference.true)
    found.estimate = estimate_quality(learnt, confidence)


def _words(column: Any) -> NDArray[np.str_]:
    return np.asarray(column, dtype=str)


def _confidence(rows: pd.DataFrame, labels: list[str]) -> NDArray[np.float64]:
    """Largest probability of each row that has any."""
    columns = [f"p_{label}" for label in labels if f"p_{label}" in rows]
    return rows[columns].max(axis=1).dropna().to_numpy(dtype=np.float64) if columns else np.empty(0)


def _quality(
    log: pd.DataFrame, truth: pd.DataFrame, reference: Reference, rules: tuple[MonitorSettings, float],
    found: Examination,
) -> None:  # fmt: skip
    settings, level = rules
    known = pd.DataFrame({"id": truth["id"], "true": truth["label"]})
    answered = pd.DataFrame({"id": log["id"], "label": log["label"]}).dropna()
    # A row that was asked for twice counts once, as it was answered last.
    rows = answered.drop_duplicates("id", keep="last").merge(known, on="id").tail(QUALITY_ROWS)
    if len(rows) < settings.min_rows:
        if len(rows):
            found.notes.append(f"labels of {len(rows)} rows: quality is not tested below {settings.min_rows}")
        return
    names = sorted({*reference.labels, *rows["label"], *rows["true"]})
    given, true = (np.searchsorted(names, _words(rows[column])) for column in ("label", "true"))
    found.quality = {"rows": len(rows), **figures(given, true, len(names))}
    if reference.true is None or reference.predicted is None:
        found.notes.append("quality is shown and not tested: the release's own predictions are not in this store")
        return
    right = (int((given == true).sum()), len(rows))
    before = (int((reference.predicted == reference.true).sum()), len(reference.true))
    found.tests.append(measured_quality(*right, *before, level, settings.min_drop))


def _surges(
    log: pd.DataFrame, reference: Reference, rules: tuple[MonitorSettings, float, dict[str, Any]], found: Examination
) -> None:
    settings, level, state = rules
    watched = list(settings.surge_labels or reference.labels)
    if not settings.surge_labels and len(watched) > MOST_WATCHED:
        found.notes.append(f"no surges: name the labels to watch, the model has {len(watched)}")
        return
    rows: Any = log[log["label"].notna()]
    known = {*reference.labels, *rows["label"].unique()}
    for label in settings.surge_labels or ():
        if label not in known:
            raise UserError(f'surge_labels: the model has no label "{label}"', nearest(label, known))
    times = rows["time"].to_numpy()
    topics: Any = rows[settings.topic] if settings.topic in rows else pd.Series("", index=rows.index)
    seconds = settings.window_minutes * 60
    before = count(times, topics, rows["label"], watched, seconds)
    new = count(times, topics, rows["label"], watched, seconds, rows["fresh"].to_numpy())
    limits = SurgeSettings(
        window=seconds, baseline=settings.baseline_days * DAY, min_count=settings.min_count,
        min_rise=settings.min_rise, rate=level, cool_down=settings.cool_down_hours * HOUR,
    )  # fmt: skip
    found.surge = watch(before, new, state, limits)
    if found.surge.learning and not found.surge.tested:
        found.notes.append(f"no surge test before {limits.min_windows} windows of {settings.window_minutes:g} minutes")

"""Surges over a stream: window after window against the windows before, and one alert for one surge.

A surge that was told is not told again for `cool_down` seconds, however long it lasts; its windows stay out of the
baseline. What lasts longer is no surge but the new level: the baseline of that topic begins again there.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from stillhouse.monitor.significance import share_of
from stillhouse.monitor.surge import Baseline, learn_baseline, overall_p, topic_p

OVERALL = "(all)"
OTHER = "(other topics)"
MOST_TOPICS = 200
STILL_UP = 0.05
"""p-value at which a told surge counts as still there."""
MIN_ROWS = 10


@dataclass(frozen=True)
class SurgeSettings:
    window: float = 3600.0
    """Seconds."""
    baseline: float = 28 * 86400.0
    """Seconds of earlier windows to compare with."""
    min_windows: int = 8
    """Earlier windows with rows; with fewer nothing is tested."""
    min_count: int = 10
    min_rise: float = 0.1
    rate: float = 0.0005
    """Of false alarms for a tested window, all topics and labels together."""
    cool_down: float = 86400.0


@dataclass
class Counts:
    """Rows and hits by window and topic; `windows` are numbers of windows since the epoch, in order."""

    windows: NDArray[np.int64]
    topics: list[str]
    rows: NDArray[np.int64]
    hits: dict[str, NDArray[np.int64]]


@dataclass
class Found:
    """What a pass over new windows found. `alerts` and `table` hold one entry for a topic and label that rose."""

    tested: int = 0
    tests: int = 0
    learning: int = 0
    alerts: list[dict[str, Any]] = field(default_factory=list)
    table: list[dict[str, Any]] = field(default_factory=list)


def count(
    times: NDArray[np.float64], topics: pd.Series, labels: pd.Series, watched: list[str], window: float,
    only: NDArray[np.bool_] | None = None,
) -> Counts:  # fmt: skip
    """Counts of the rows, or of those that `only` marks; beyond the largest `MOST_TOPICS` topics all are one.

    Topics are named from all rows, so that the counts of some have the columns of the counts of all.
    """
    topics = topics.fillna("").astype(str)
    largest = topics.value_counts().index[:MOST_TOPICS]
    place, names = pd.factorize(topics.where(topics.isin(set(largest)), OTHER), sort=True)
    some = np.ones(len(times), dtype=bool) if only is None else only
    number, windows = pd.factorize(np.floor(times[some] / window).astype(np.int64), sort=True)
    rows = np.zeros((len(windows), len(names)), dtype=np.int64)
    np.add.at(rows, (number, place[some]), 1)
    hits = {}
    for label in watched:
        mine = (labels == label).to_numpy()[some]
        hits[label] = np.zeros_like(rows)
        np.add.at(hits[label], (number[mine], place[some][mine]), 1)
    return Counts(np.asarray(windows), [str(name) for name in names], rows, hits)


def watch(before: Counts, new: Counts, state: dict[str, Any], settings: SurgeSettings) -> Found:
    """Test every window of `new` in order, each against the windows before it; `state` is read and changed.

    `before` counts all rows of the log up to the end of `new`; `new` only those that no run has tested, so that its
    first window may be a part of one. Both have the same topics and labels.
    """
    found = Found()
    for index, window in enumerate(new.windows):
        earlier = (before.windows < window) & (before.windows >= window - settings.baseline / settings.window)
        if (before.rows[earlier].sum(axis=1) > 0).sum() < settings.min_windows:
            found.learning += 1
            continue
        found.tested += 1
        _window(before, new, (index, int(window)), np.flatnonzero(earlier), (state, settings, found))
    return found


def _window(
    before: Counts, new: Counts, at: tuple[int, int], earlier: NDArray[np.int64],
    about: tuple[dict[str, Any], SurgeSettings, Found],
) -> None:  # fmt: skip
    index, window = at
    state, settings, found = about
    rows = new.rows[index]
    topics: list[int] = np.flatnonzero(rows >= MIN_ROWS).tolist() if len(new.topics) > 1 else []
    tests = (len(topics) + 1) * len(new.hits)
    level = share_of(settings.rate, tests)
    found.tests += tests
    for label in new.hits:
        hits = new.hits[label][index]
        known, known_hits = _without_surges(before, earlier, label, state, settings)
        baseline = learn_baseline(known, known_hits)
        judge = _Judge(new.topics, label, window, state, settings, found, level)
        calm = np.ones(len(rows), dtype=bool)
        for topic in topics:
            p = topic_p(baseline, topic, int(rows[topic]), int(hits[topic]))
            told = judge(new.topics[topic], int(rows[topic]), int(hits[topic]), float(baseline.expected[topic]), p)
            calm[topic] = not told
        if rows[calm].sum() >= MIN_ROWS:
            p, mean = overall_p(baseline, np.where(calm, rows, 0), int(hits[calm].sum()))
            if judge(OVERALL, int(rows[calm].sum()), int(hits[calm].sum()), mean, p) == "alert":
                judge.hold(_drivers(baseline, rows, hits, topics, settings))


def _without_surges(
    before: Counts, earlier: NDArray[np.int64], label: str, state: dict[str, Any], settings: SurgeSettings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and hits of the earlier windows, those of told surges and those before a new level left out."""
    rows, hits = before.rows[earlier].copy(), before.hits[label][earlier].copy()
    times = before.windows[earlier]
    for key, surge in state.items():
        topic, of = key.rsplit("\t", 1)
        if of != label or (topic != OVERALL and topic not in before.topics):
            continue
        columns = slice(None) if topic == OVERALL else [before.topics.index(topic)]
        out = np.isin(times, np.asarray(surge["windows"], dtype=np.int64))
        out |= times < surge.get("level_from", 0)
        rows[np.ix_(out, np.arange(rows.shape[1])[columns])] = 0
        hits[np.ix_(out, np.arange(rows.shape[1])[columns])] = 0
    if rows.sum() < before.rows[earlier].sum() / 4:  # nearly all of it was one long surge: that is the level now
        return before.rows[earlier], before.hits[label][earlier]
    return rows, hits


def _drivers(
    baseline: Baseline, rows: NDArray[np.int64], hits: NDArray[np.int64], topics: list[int], settings: SurgeSettings
) -> list[int]:
    """Topics that rose with the whole: told with it, not once more on their own in the next window."""
    return [
        topic
        for topic in topics
        if hits[topic] / rows[topic] - baseline.expected[topic] >= settings.min_rise / 2
        and topic_p(baseline, topic, int(rows[topic]), int(hits[topic])) < STILL_UP
    ]


class _Judge:
    """Decides what a p-value means beside what was told before; one for a label in a window."""

    def __init__(
        self, topics: list[str], label: str, window: int, state: dict[str, Any], settings: SurgeSettings, found: Found,
        level: float,
    ) -> None:  # fmt: skip
        self.topics, self.label, self.window, self.level = topics, label, window, level
        self.state, self.settings, self.found = state, settings, found

    def __call__(self, topic: str, rows: int, hits: int, expected: float, p: float) -> str:
        """ "" (calm), "held" (told before, within its cool-down) or "alert"."""
        settings, key = self.settings, f"{topic}\t{self.label}"
        rise = hits / rows - expected
        fires = p <= self.level and hits >= settings.min_count and rise >= settings.min_rise
        known = self.state.get(key)
        cooling = known is not None and (self.window - known["from"]) * settings.window < settings.cool_down
        up = p < STILL_UP and rise >= settings.min_rise / 2
        entry = {
            "topic": topic, "label": self.label, "time": self.window * settings.window, "rows": rows, "count": hits,
            "share": hits / rows, "expected": expected, "p_value": p, "level": self.level,
        }  # fmt: skip
        if known is not None and cooling:
            known["seen"] += 1
            if up:
                self._remember(known)
                self.found.table.append({**entry, "state": "going on"})
            return "held"
        if known is not None and up and len(known["windows"]) > known["seen"] / 2 + 1:
            self.state[key] = {"from": known["from"], "level_from": known["from"], "windows": [], "seen": 0}
            self.found.table.append({**entry, "state": "new level"})
            return "held"
        if not fires:
            return ""
        self._begin(key)
        self.found.table.append({**entry, "state": "alert"})
        self.found.alerts.append({**entry, "with": []})
        return "alert"

    def hold(self, topics: list[int]) -> None:
        """Name these topics in the alert just made, and count them as told."""
        names = [self.topics[topic] for topic in topics]
        self.found.alerts[-1]["with"] = names
        for name in names:
            self._begin(f"{name}\t{self.label}")

    def _begin(self, key: str) -> None:
        level = {name: value for name, value in self.state.get(key, {}).items() if name == "level_from"}
        self.state[key] = {**level, "from": self.window, "windows": [self.window], "seen": 1}

    def _remember(self, surge: dict[str, Any]) -> None:
        oldest = self.window - self.settings.baseline / self.settings.window
        surge["windows"] = sorted({window for window in [*surge["windows"], self.window] if window >= oldest})

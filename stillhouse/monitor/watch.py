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
        tests = found.tests
        _window(before, new, (index, int(window)), np.flatnonzero(earlier), (state, settings, found))
        found.tested += found.tests > tests
        found.learning += found.tests == tests  # a new level that is still young
    if len(new.windows):
        forget = new.windows[-1] - max(settings.baseline, settings.cool_down) / settings.window
        for key in [key for key, surge in state.items() if surge["from"] < forget]:
            del state[key]
    return found


def _window(
    before: Counts, new: Counts, at: tuple[int, int], earlier: NDArray[np.int64],
    about: tuple[dict[str, Any], SurgeSettings, Found],
) -> None:  # fmt: skip
    index, window = at
    state, settings, found = about
    rows = new.rows[index]
    topics: list[int] = np.flatnonzero(rows >= MIN_ROWS).tolist() if len(new.topics) > 1 else []
    level = share_of(settings.rate, (len(topics) + 1) * len(new.hits))
    for label in new.hits:
        hits = new.hits[label][index]
        known, known_hits = _without_surges(before, earlier, label, state, settings)
        if (known.sum(axis=1) > 0).sum() < settings.min_windows:
            continue
        found.tests += len(topics) + 1
        baseline = learn_baseline(known, known_hits)
        judge = _Judge(label, window, state, settings, found, level)
        calm = np.array([not judge.is_cooling(name) for name in new.topics])
        seen = {topic: _seen_in(baseline, new.topics, topic, rows, hits) for topic in topics}
        kinds = {topic: judge.kind(one) for topic, one in seen.items()}
        for topic, kind in kinds.items():
            calm[topic] &= kind != "new level"
        together = list(kinds.values()).count("alert") > 1  # what rises everywhere is told once, with its topics
        told = _overall(judge, baseline, (rows, hits), calm, seen) if together else []
        for topic, one in seen.items():
            if topic not in told and judge(one):
                calm[topic] = False
        if not together:
            _overall(judge, baseline, (rows, hits), calm, seen)


def _seen_in(
    baseline: Baseline, topics: list[str], topic: int, rows: NDArray[np.int64], hits: NDArray[np.int64]
) -> "_Seen":
    p = topic_p(baseline, topic, int(rows[topic]), int(hits[topic]))
    return _Seen(topics[topic], int(rows[topic]), int(hits[topic]), float(baseline.expected[topic]), p)


def _overall(
    judge: "_Judge", baseline: Baseline, counts: tuple[NDArray[np.int64], NDArray[np.int64]], calm: NDArray[np.bool_],
    seen: dict[int, "_Seen"],
) -> list[int]:  # fmt: skip
    """Judge all calm topics together; where they rose, those of `seen` that rose with the whole: told with it, not once
    more on their own in this window or the next."""
    rows, hits = (np.where(calm, counted, 0) for counted in counts)
    if rows.sum() < MIN_ROWS:
        return []
    p, mean = overall_p(baseline, rows, int(hits.sum()))
    if judge(_Seen(OVERALL, int(rows.sum()), int(hits.sum()), mean, p)) != "alert":
        return []
    drivers = [topic for topic, one in seen.items() if calm[topic] and judge.is_up(one)]
    judge.hold([seen[topic].topic for topic in drivers])
    return drivers


def _without_surges(
    before: Counts, earlier: NDArray[np.int64], label: str, state: dict[str, Any], settings: SurgeSettings
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rows and hits of the earlier windows, those of told surges and those before a new level left out."""
    times, topics = before.windows[earlier], np.arange(len(before.topics))
    surges = np.zeros((len(times), len(topics)), dtype=bool)
    old_level = surges.copy()
    for key, surge in state.items():
        topic, of = key.rsplit("\t", 1)
        if of != label or (topic != OVERALL and topic not in before.topics):
            continue
        columns = topics if topic == OVERALL else topics[[before.topics.index(topic)]]
        surges[np.ix_(np.isin(times, np.asarray(surge["windows"], dtype=np.int64)), columns)] = True
        old_level[np.ix_(times < surge.get("level_from", 0), columns)] = True
    out = surges | old_level
    whole = before.rows[earlier]
    if whole[~out].sum() < whole[~old_level].sum() / 4:  # nearly all of it was one long surge: that is the level now
        out = old_level
    return np.where(out, 0, whole), np.where(out, 0, before.hits[label][earlier])


@dataclass(frozen=True)
class _Seen:
    """One topic, or all together, in a window: `count` of `rows` have the label, a share `expected` was to be."""

    topic: str
    rows: int
    count: int
    expected: float
    p: float

    @property
    def rise(self) -> float:
        return self.count / self.rows - self.expected


class _Judge:
    """Decides what a p-value means beside what was told before; one for a label in a window."""

    def __init__(
        self, label: str, window: int, state: dict[str, Any], settings: SurgeSettings, found: Found, level: float
    ) -> None:
        self.label, self.window, self.level = label, window, level
        self.state, self.settings, self.found = state, settings, found

    def is_cooling(self, topic: str) -> bool:
        known = self.state.get(f"{topic}\t{self.label}")
        if known is None:
            return False
        return (
            abs(self.window - known["from"]) * self.settings.window < self.settings.cool_down
        )  # a late one lies before

    def is_up(self, seen: _Seen) -> bool:
        return seen.p < STILL_UP and seen.rise >= self.settings.min_rise / 2

    def kind(self, seen: _Seen) -> str:
        """ "" (calm), "cooling" (told before, within its cool-down), "new level" (it stayed that long) or "alert"."""
        known = self.state.get(f"{seen.topic}\t{self.label}")
        if self.is_cooling(seen.topic):
            return "cooling"
        if (
            known is not None
            and self.window > known["from"]
            and self.is_up(seen)
            and len(known["windows"]) > known["seen"] / 2 + 1
        ):
            return "new level"
        fires = seen.p <= self.level and seen.count >= self.settings.min_count and seen.rise >= self.settings.min_rise
        return "alert" if fires else ""

    def __call__(self, seen: _Seen) -> str:
        """The kind of what was seen, remembered and recorded."""
        key, kind = f"{seen.topic}\t{self.label}", self.kind(seen)
        entry = {
            "topic": seen.topic, "label": self.label, "time": self.window * self.settings.window, "rows": seen.rows,
            "count": seen.count, "share": seen.count / seen.rows, "expected": seen.expected, "p_value": seen.p,
            "level": self.level,
        }  # fmt: skip
        if kind == "cooling":
            self.state[key]["seen"] += 1
            if self.is_up(seen):
                self._remember(self.state[key])
                self.found.table.append({**entry, "state": "going on"})
        elif kind == "new level":
            begun = self.state[key]["from"]
            self.state[key] = {"from": begun, "level_from": begun, "windows": [], "seen": 0}
            self.found.table.append({**entry, "state": "new level"})
        elif kind == "alert":
            self._begin(key)
            self.found.table.append({**entry, "state": "alert"})
            self.found.alerts.append({**entry, "with": []})
        return kind

    def hold(self, topics: list[str]) -> None:
        """Name these topics in the alert just made, and count them as told."""
        self.found.alerts[-1]["with"] = topics
        for name in topics:
            self._begin(f"{name}\t{self.label}")

    def _begin(self, key: str) -> None:
        if key in self.state and self.window < self.state[key]["from"]:  # the newest surge stays the known one
            self._remember(self.state[key])
            return
        level = {name: value for name, value in self.state.get(key, {}).items() if name == "level_from"}
        self.state[key] = {**level, "from": self.window, "windows": [self.window], "seen": 1}

    def _remember(self, surge: dict[str, Any]) -> None:
        oldest = self.window - self.settings.baseline / self.settings.window
        surge["windows"] = sorted({window for window in [*surge["windows"], self.window] if window >= oldest})

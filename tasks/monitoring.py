"""One monitor run of a model: read the log from where the last run ended, test, record, and tell what is new.

`HOME/monitor/NAME/state.json` says how far the log was examined, what was told when, and what is still to be written
and told; `history.jsonl` has a line for each run. A window is examined once: doing it again shows the result and tells
nothing.
"""

import copy
import json
import os
import time
import uuid
from pathlib import Path
from typing import Any

import pandas as pd

from stillhouse.errors import UserError, nearest
from stillhouse.events import reached
from stillhouse.files import flush, read_json, write_json
from stillhouse.monitor.examine import LOG_REFERENCE_ROWS, Examination, examine
from stillhouse.monitor.settings import DAY, HOUR, MonitorSettings
from stillhouse.prediction_log import SCHEMA, PredictionLog
from tasks.alerts import tell
from tasks.mlflow_home import lock
from tasks.released import embedder, reference_of
from tasks.versions import find, read_models

CLOCK_TICK = 0.02
"""Seconds: twice as far as a file's times may lie behind the clock."""
JUST_AFTER = 1e-3
"""Seconds: the end of a window lies behind its newest row."""
LEAST_SHARE = 0.1
"""Of the new rows: a version that answered fewer of them, by a run that is pinned to it, is not the one to look at."""
MOST_SPANS = 100
"""Spans that were asked for since the last run for all; beyond that the oldest are examined once more."""
NOTHING: dict[str, Any] = {
    "version": None, "until": None, "read": None, "spans": [], "told": {}, "surges": {}, "line": None, "pending": [],
}  # fmt: skip
KINDS = {
    "version": (int, type(None)),
    "until": (int, float, type(None)), "read": (int, float, type(None)), "spans": list, "told": dict, "surges": dict,
    "line": (str, type(None)), "pending": list,
}  # fmt: skip
DRIFT = ("input drift", "prediction drift")


def monitor_model(
    home: Path, name: str, settings: MonitorSettings, since: float | None = None, until: float | None = None
) -> dict[str, Any]:
    """Examine the rows of `[since, until)` (by default those that no run has seen) and tell what is alarming.

    Returns a line of the history (`docs/artifacts.md`), with `recorded`: whether it is a new one.
    """
    name = find(read_models(home, name), name).name
    directory = home / "monitor" / name
    directory.mkdir(parents=True, exist_ok=True)
    with lock(home, f"monitor-{name}"):
        state = _load(directory)
        _settle(home, name, directory, state)
        reached(home, "monitor.begun", name=name)
        line = _run(home, name, settings, (since, until), state)
        if line["recorded"]:
            kept = {key: value for key, value in line.items() if key != "recorded"}
            state["line"] = json.dumps(kept) + "\n"
            write_json(directory / "state.json", state)
            reached(home, "monitor.decided", name=name)
            _settle(home, name, directory, state)
    return line


def _load(directory: Path) -> dict[str, Any]:
    path = directory / "state.json"
    if not path.is_file():
        return copy.deepcopy(NOTHING)
    try:
        found = read_json(path)
        state = {key: found.get(key, value) for key, value in copy.deepcopy(NOTHING).items()}
        wrong = [key for key, kinds in KINDS.items() if not isinstance(state[key], kinds)]
        wrong += [] if wrong or all(map(_is_span, state["spans"])) else ["spans"]
        json.dumps(state, allow_nan=False)
    except (ValueError, AttributeError) as error:
        state, wrong = {}, [str(error)]
    if wrong:
        raise UserError(f"{path} is damaged ({', '.join(wrong)})", "Move it away; the next run begins anew")
    return state


def _is_span(value: Any) -> bool:
    numbers = isinstance(value, list) and all(isinstance(one, int | float | None) for one in value)
    return numbers and len(value) == 3 and value[2] is not None


def _settle(home: Path, name: str, directory: Path, state: dict[str, Any]) -> None:
    """Write and tell what the state says is still to be; after a kill in between each is there once all the same."""
    if state["line"] is None and not state["pending"]:
        return
    if state["line"] is not None:
        _append(directory / "history.jsonl", state["line"])
        reached(home, "monitor.written", name=name)
    for alert in state["pending"]:
        tell(home, alert["event"], name, **alert["payload"])  # again with the same id, which Prefect takes once
    state |= {"line": None, "pending": []}
    write_json(directory / "state.json", state)


def _append(path: Path, line: str) -> None:
    """Append a line, unless it is the last one already; half a line that a full disk left is closed first."""
    with path.open("a+b") as file:
        size = file.tell()
        file.seek(max(0, size - 2 * len(line.encode()) - 1))
        end = file.read()
        if end.endswith(line.encode()):
            return
        file.write((b"\n" if end and not end.endswith(b"\n") else b"") + line.encode())
        file.flush()
        os.fsync(file.fileno())
    flush(path.parent)


def _run(
    home: Path, name: str, settings: MonitorSettings, asked: tuple[float | None, float | None], state: dict[str, Any]
) -> dict[str, Any]:
    log, seen = PredictionLog(home, name), state["until"]
    columns = ["version", "arrived"] if settings.topic in SCHEMA.names else _no_column(settings.topic)
    # What came before `cut` is there once the clock's next tick is over: this run has it, the next one what came after.
    cut = time.time() + CLOCK_TICK / 2
    time.sleep(CLOCK_TICK)
    marks = asked[0], state, cut
    marked = _mark(log.read(None, asked[1], columns=["time", *columns]), *marks)
    new = marked[marked["new"]]
    line = _line(name, settings)
    if new.empty:
        line["notes"] = ["no new rows in the prediction log" if len(marked) else "the prediction log is empty"]
        return line
    start, end = float(new["time"].iloc[0]), float(new["time"].iloc[-1]) + JUST_AFTER  # later ones may still come
    version = _version_in(new["version"])
    reference, bundle = reference_of(home, name, version)
    first = None
    if settings.reference == "log":
        first = _first_rows(log, marked[(marked["version"] == version) & ~marked["new"]], settings, reference.labels)
        first = _mark(first[first["version"] == version], *marks)
        first = first[~first["new"]]
    span = (start - settings.baseline_days * DAY, end)
    rows = _mark(_read(log, span, settings, reference.labels), *marks)
    rows = rows[rows["version"] == version].reset_index(drop=True)
    fresh = bool(new["fresh"].any())
    surges = copy.deepcopy(state["surges"]) if state["version"] in (None, version) else {}
    found = examine(rows, log.labels(), reference, embedder(bundle), settings, surges, first)
    _describe(line, found, (start, end), version, int((new["version"] != version).sum()))
    line["recorded"] = fresh
    if fresh:
        state |= {"surges": surges, "version": version}
        if asked == (None, None):
            state |= {"until": max(end, seen or end), "read": cut, "spans": []}
        else:
            state["spans"] = [*state["spans"], [*asked, cut]][-MOST_SPANS:]
        _decide(home, name, line, found, settings, state)
    else:
        line["notes"].append(
            "an earlier run examined these rows: no surge is tested, nothing is recorded or told again"
        )
    return line


def _mark(rows: Any, since: float | None, state: dict[str, Any], cut: float) -> Any:
    """The `rows` that came before `cut`, with `new`, which are to be examined, and `fresh`, which of those no run has
    examined: whatever their times, what came since the cut of the last run, and what lies after its end; less what runs
    for a span of time have examined meanwhile."""
    rows = rows[rows["arrived"] < cut]
    seen, read = state["until"], state["read"]
    fresh = pd.Series(True, rows.index) if seen is None else rows["time"] >= seen
    fresh = fresh if read is None else fresh | (rows["arrived"] >= read)
    for start, end, until_then in state["spans"]:
        inside = (rows["time"] >= (start or 0)) & (True if end is None else rows["time"] < end)
        fresh &= ~(inside & (rows["arrived"] < until_then))
    new = fresh if since is None else rows["time"] >= since
    return rows.assign(new=new, fresh=new & fresh)


def _no_column(column: str) -> list[str]:
    raise UserError(f'the prediction log has no column "{column}"', nearest(column, set(SCHEMA.names)))


def _version_in(column: Any) -> int:
    """The version that answered last, of those that answered at least a tenth of the rows; 0 where none is known."""
    known = column.dropna().astype(int)
    if known.empty:
        return 0
    shares = known.value_counts(normalize=True)
    least = min(LEAST_SHARE, shares.max())  # of many versions none may have a tenth
    return int(known[known.map(shares) >= least].iloc[-1])


def _first_rows(log: PredictionLog, old: Any, settings: MonitorSettings, labels: list[str]) -> Any:
    """The first of the rows `old`, which are of one version, as `_read` gives them."""
    if old.empty:
        return old
    times = old["time"].head(LOG_REFERENCE_ROWS)
    return _read(log, (float(times.iloc[0]), float(times.iloc[-1]) + JUST_AFTER), settings, labels)


def _read(log: PredictionLog, span: tuple[float, float], settings: MonitorSettings, labels: list[str]) -> Any:
    """What the tests need of the rows; texts and embeddings come with them, their columns are read once."""
    wanted = [
        "time",
        "arrived",
        "id",
        "version",
        "label",
        settings.topic,
        "text",
        "embedding",
        *(f"p_{name}" for name in labels),
    ]
    return log.read(*span, columns=list(dict.fromkeys(wanted)))


def _line(name: str, settings: MonitorSettings) -> dict[str, Any]:
    return {
        "time": time.time(), "name": name, "version": None, "window": None, "rows": 0, "other_versions": 0,
        "tests": [], "surge": {"windows": 0, "tests": 0, "learning": 0, "table": []}, "quality": None,
        "estimate": None, "alarms": [], "alerts": [], "notes": [], "recorded": False,
        "settings": settings.model_dump(mode="json"),
    }  # fmt: skip


def _describe(line: dict[str, Any], found: Examination, window: tuple[float, float], version: int, others: int) -> None:
    surge = found.surge
    alarms = {_event(test.name) for test in found.tests if test.alarm} | ({"surge"} if surge.alerts else set())
    line |= {
        "version": version, "window": {"start": window[0], "end": window[1]}, "rows": found.rows,
        "other_versions": others, "tests": [test.as_json() for test in found.tests],
        "surge": {
            "windows": surge.tested, "tests": surge.tests, "learning": surge.learning, "table": surge.table,
        },
        "quality": found.quality, "estimate": found.estimate, "alarms": sorted(alarms), "notes": found.notes,
    }  # fmt: skip
    if others:
        found.notes.append(f"{others} rows of other versions are left out")


def _event(test: str) -> str:
    return "drift" if test in DRIFT else test


def _decide(
    home: Path, name: str, line: dict[str, Any], found: Examination, settings: MonitorSettings, state: dict[str, Any]
) -> None:
    """Which alarms become alerts: what was not told within the cool-down, and no surge that is long over."""
    end, version = line["window"]["end"], line["version"]
    cool_down = settings.cool_down_hours * HOUR
    about = {"version": version, "rows": line["rows"], "window_start": line["window"]["start"], "window_end": end}
    for event in ("drift", "quality"):
        tests = [test for test in found.tests if test.alarm and _event(test.name) == event]
        told = state["told"].get(event)
        before = told["time"] if told is not None and told["version"] == version else None
        if tests and (before is None or abs(end - before) >= cool_down):
            state["told"][event] = {"time": end if before is None else max(end, before), "version": version}
            figures = {test.name: {"effect": test.effect, "p_value": test.p_value} for test in tests}
            _alert(home, name, line, state, event, {**about, "figures": figures, "reason": _reason(tests)})
    for surge in found.surge.alerts:
        if end - surge["time"] <= max(cool_down, 2 * settings.window_minutes * 60):
            words = f"{surge['label']} rose from {surge['expected']:.0%} to {surge['share']:.0%}"
            _alert(home, name, line, state, "surge", {**about, **surge, "reason": f"{words} in {surge['topic']}"})


def _reason(tests: list[Any]) -> str:
    return "; ".join(
        f"{test.name}: {test.detail['statistic']} {test.effect:.2f}, alarm from {test.threshold:.2f}" for test in tests
    )


def _alert(
    home: Path, name: str, line: dict[str, Any], state: dict[str, Any], event: str, payload: dict[str, Any]
) -> None:
    key = "|".join(
        str(part) for part in (home, name, event, payload.get("topic"), payload.get("label"), line["window"])
    )
    payload = {"alert_id": str(uuid.uuid5(uuid.NAMESPACE_URL, key)), **payload}
    state["pending"].append({"event": event, "payload": payload})
    line["alerts"].append({"event": event, "reason": payload["reason"]})

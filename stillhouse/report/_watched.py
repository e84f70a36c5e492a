"""Sections about the model in use: drift, retraining. Other releases may have written the files: lenient."""

import time
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from stillhouse.report._plots import over_time
from stillhouse.report._text import is_number, metric_name

Section = dict[str, Any]
Facts = dict[str, Any]
Points = list[tuple[float, float]]
ALARMS = 20
"""Alarms that the table shows, the newest; the plots show all."""
RETRAININGS = 30
DAYS = 3 * 86_400.0
"""A longer history is told by days, a shorter one by minutes."""


def drift(facts: Facts) -> Section | None:
    """Each monitor run's effect sizes against their thresholds, quality where labels came, and the alarms."""
    history = _history(facts.get("history") or [])
    if not history:
        return None
    show = _clock(history[-1]["time"] - history[0]["time"])
    plots = [*_test_plots(history, show), *_quality_plots(history, show)]
    alarms = [alarm for run in history for alarm in _alarms(run)]
    last = history[-1]
    return {
        "id": "drift", "title": "Drift over time", "runs": len(history), "first": history[0]["time"],
        "last": last["time"], "rows": sum(run["rows"] for run in history if is_number(run.get("rows"))), "plots": plots,
        "alarms": alarms[::-1][:ALARMS], "alarm_count": len(alarms), "tests": _tests(last),
        "notes": [str(note) for note in _items(last.get("notes"), str)],
    }  # fmt: skip


def _history(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs by the end of their window, which becomes their `time`; a line that a kill had written twice once."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for line in lines:
        window = line["window"] if isinstance(line.get("window"), dict) else {}
        at = window["end"] if is_number(window.get("end")) else line.get("time")
        if is_number(at):
            found[str(line.get("version")), str(window.get("start")), at] = {**line, "time": float(at)}
    return sorted(found.values(), key=lambda run: run["time"])


def _clock(seconds: float) -> Callable[[float], str]:
    form = "%Y-%m-%d" if seconds > DAYS else "%m-%d %H:%M"
    return lambda moment: time.strftime(form, time.gmtime(moment))


def _items(value: Any, kind: type) -> list[Any]:
    return [item for item in value if isinstance(item, kind)] if isinstance(value, list) else []


def _tests(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [test for test in _items(run.get("tests"), dict) if isinstance(test.get("name"), str)]


def _test_plots(history: list[dict[str, Any]], show: Callable[[float], str]) -> list[Markup]:
    """For each kind of test its effect over time, its threshold, and the runs that raised an alarm."""
    kinds: dict[str, list[tuple[float, dict[str, Any]]]] = {}
    for run in history:
        for test in _tests(run):
            if is_number(test.get("effect")):
                kinds.setdefault(test["name"], []).append((run["time"], test))
    found = []
    for name, entries in kinds.items():
        detail = entries[-1][1].get("detail")
        statistic = str(detail.get("statistic", "effect")) if isinstance(detail, dict) else "effect"
        limit = entries[-1][1].get("threshold")
        found.append(
            over_time(
                [(statistic, [(at, float(test["effect"])) for at, test in entries])], name, f"drift-{_slug(name)}",
                show_x=show, limit=float(limit) if is_number(limit) else None,
                alarms=[at for at, test in entries if test.get("alarm")],
            )
        )  # fmt: skip
    return [plot for plot in found if plot]


def _quality_plots(history: list[dict[str, Any]], show: Callable[[float], str]) -> list[Markup]:
    """Quality by the labels that arrived, beside what is estimated without them."""
    series: dict[str, Points] = {}
    for run in history:
        for source, words in (("quality", "measured"), ("estimate", "estimated")):
            for name, figure in (run[source] if isinstance(run.get(source), dict) else {}).items():
                value = figure.get("value") if isinstance(figure, dict) else figure
                if name in ("accuracy", "f1_macro", "entity_f1") and is_number(value):
                    series.setdefault(f"{metric_name(name)}, {words}", []).append((run["time"], float(value)))
    plot = over_time(list(series.items()), "quality in use", "drift-in-use", show_x=show)
    return [plot] if plot else []


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() and letter.isascii() else "-" for letter in name.lower())[:40]


def _alarms(run: dict[str, Any]) -> list[dict[str, Any]]:
    """Tests that raised one, and surges that were new."""
    found = [
        {"time": run["time"], "what": test["name"], "effect": test.get("effect"), "limit": test.get("threshold"),
         "p": test.get("p_value"), "note": ""}
        for test in _tests(run) if test.get("alarm")
    ]  # fmt: skip
    surge = run["surge"] if isinstance(run.get("surge"), dict) else {}
    for alert in [rise for rise in _items(surge.get("table"), dict) if rise.get("state") == "alert"]:
        note = f"{alert.get('label', '')} in {alert.get('topic', '')}"
        if is_number(alert.get("count")) and is_number(alert.get("rows")):
            note += f": {alert['count']} of {alert['rows']} rows"
        share, expected = alert.get("share"), alert.get("expected")
        at = alert["time"] if is_number(alert.get("time")) else run["time"]
        found.append(
            {"time": at, "what": "surge", "effect": share, "limit": expected, "p": alert.get("p_value"), "note": note}
        )
    return found


def retrains(facts: Facts) -> Section | None:
    """What asked for retraining, what came of it, and the quality before and after."""
    rows = []
    for trigger in reversed(facts.get("retrains") or []):
        quality = trigger["quality"] if isinstance(trigger.get("quality"), dict) else {}
        epochs = quality["epochs"] if isinstance(quality.get("epochs"), dict) else {}
        rows.append({
            "created": trigger.get("created"), "id": trigger["id"], "reason": trigger.get("reason"),
            "state": trigger.get("state"), "why": trigger.get("why"), "times": trigger.get("times"),
            "version": trigger.get("version"), "seconds": _seconds(trigger),
            "metric": quality.get("metric"), "new": quality.get("candidate"), "old": quality.get("champion"),
            "epochs": [
                {"epoch": epoch, "new": figures.get("candidate"), "old": figures.get("champion")}
                for epoch, figures in epochs.items() if isinstance(figures, dict)
            ],
        })  # fmt: skip
    if not rows:
        return None
    shown = rows[:RETRAININGS]
    return {"id": "retrains", "title": "Retraining", "rows": shown, "more": len(rows) - len(shown)}


def _seconds(trigger: dict[str, Any]) -> float | None:
    created, ended = trigger.get("created"), trigger.get("ended")
    return ended - created if is_number(created) and is_number(ended) else None

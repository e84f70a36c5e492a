"""Plots of figures: values with intervals, label shares, learning curves, curves over time."""

from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup

from stillhouse.report._svg import (
    SHAPES,
    WIDTH,
    Scale,
    axis_x,
    axis_y,
    drawing,
    line,
    marker,
    padded,
    path,
    plain,
    rect,
    text,
)
from stillhouse.report._text import fitted, letter_width, metric_name, number, percent, signed, span

LABELS = 25
"""Labels that a plot shows at most; tables show more."""


def interval_dots(rows: Sequence[dict[str, Any]], title: str, name: str, *, zero: bool = False) -> Markup:
    """Rows `{name, value, low?, high?, tone}`: a marker, its interval, and the value in words.

    `zero` marks where nothing differs. `tone` numbers colour and shape.
    """
    left, right, pitch, top = 146, 62, 27, 10
    known = [row[part] for row in rows for part in ("value", "low", "high") if row.get(part) is not None]
    low, high = padded([*known, 0.0] if zero else known)
    scale = Scale(low, high, left, WIDTH - right)
    bottom = top + pitch * len(rows)
    parts = axis_x(scale, bottom, top - 4, title, plain)
    if zero:
        parts.append(line(scale(0), top - 4, scale(0), bottom, "zero"))
    for place, row in enumerate(rows):
        y, tone = top + pitch * (place + 0.5), row.get("tone", 0)
        value, shown = row["value"], signed(row["value"]) if zero else number(row["value"])
        tip = f"{row['name']}: {shown}"
        parts.append(text(left - 10, y + 4, row["name"], "name", left - 12, text_anchor="end"))
        if row.get("low") is not None:
            parts.append(line(scale(row["low"]), y, scale(row["high"]), y, f"range tone{tone}"))
            tip += f" ({span(row['low'], row['high'])})"
        parts.append(marker(scale(value), y, SHAPES[tone % 4], f"mark tone{tone}", tip))
        parts.append(text(WIDTH - right + 12, y + 4, shown, "value"))
    words = "; ".join(f"{row['name']} {number(row['value'])}" for row in rows)
    return drawing(bottom + 38, parts, f"{title}: {words}", name)


def label_shares(classes: dict[str, dict[str, int]], of: str = "rows") -> Markup | None:
    """Share of each label in each split: a bar for the first split, a marker for each other one; `of`: what counts."""
    splits = [split for split in ("train", "validation", "test") if sum(classes.get(split, {}).values())]
    if not splits:
        return None
    totals = {split: sum(classes[split].values()) for split in splits}
    names = sorted({label for split in splits for label in classes[split]}, key=lambda each: _rank(classes, each))
    shares = {
        label: [classes[split].get(label, 0) / totals[split] for split in splits] for label in names[:LABELS]
    }  # fmt: skip
    left, right, pitch, top = 118, 16, 24, 30
    scale = Scale(0, max(max(row) for row in shares.values()) * 1.06, left, WIDTH - right)
    bottom = top + pitch * len(shares)
    parts = _legend([(split, place, "bar" if place == 0 else "mark") for place, split in enumerate(splits)], left)
    parts += axis_x(scale, bottom, top - 4, f"share of the split's {of}", lambda tick: percent(tick, 0))
    for place, (label, row) in enumerate(shares.items()):
        y = top + pitch * (place + 0.5)
        tip = ", ".join(f"{split} {percent(share)}" for split, share in zip(splits, row, strict=True))
        parts.append(text(left - 10, y + 4, label, "name", left - 12, text_anchor="end"))
        parts.append(rect(left, y - 7, scale(row[0]) - left, 14, "bar tone0", f"{label}: {tip}"))
        for tone, share in list(enumerate(row))[1:]:
            aside = 3.5 if tone == 1 else -3.5  # two equal shares stay two marks
            parts.append(marker(scale(share), y - aside, SHAPES[tone], f"mark tone{tone}", f"{label}: {tip}", 4))
    words = "; ".join(f"{label} {percent(row[0])}" for label, row in shares.items())
    return drawing(bottom + 38, parts, f"Label shares in {splits[0]}: {words}", "label-shares")


def _rank(classes: dict[str, dict[str, int]], label: str) -> tuple[int, str]:
    return -sum(found.get(label, 0) for found in classes.values()), label


def _legend(entries: Sequence[tuple[str, int, str]], x: float) -> list[Markup]:
    """Entries `(words, tone, kind)` in one line at the top; kind is `bar`, `mark` or `line`."""
    parts, at, room = [], x, (WIDTH - x) / max(1, len(entries)) - 30
    for words, tone, kind in entries:
        if kind == "bar":
            parts.append(rect(at, 3, 10, 10, f"bar tone{tone}"))
        elif kind == "line":
            parts += [
                line(at - 2, 8, at + 12, 8, f"curve tone{tone}"),
                marker(at + 5, 8, SHAPES[tone % 4], f"mark tone{tone}", size=3),
            ]
        else:
            parts.append(marker(at + 5, 8, SHAPES[tone % 4], f"mark tone{tone}"))
        shown = fitted(words, room)
        parts.append(text(at + 16, 12, words, "label", room))
        at += 28 + sum(letter_width(letter) for letter in shown)
    return parts


def learning_curve(stage: str, rows: Sequence[dict[str, Any]], metric: str, best: float | None) -> Markup | None:
    """One stage: training loss above, the validation metric below; `best` is the step whose weights were kept."""
    loss, quality = _points(rows, "train_loss"), _points(rows, metric)
    panels = [("training loss", loss, 0), (f"{metric_name(metric)} (validation)", quality, 1)]
    panels = [panel for panel in panels if panel[1]]
    if not panels or max(len(points) for _, points, _ in panels) < 2:
        return None  # one point is no curve: the table says it
    steps = [x for _, points, _ in panels for x, _ in points]
    across = Scale(min(0.0, *steps), max(steps) * 1.02 or 1.0, 48, WIDTH - 14)
    parts: list[Markup] = []
    height, top = 96, 28
    for place, (title, points, tone) in enumerate(panels):
        start = top + place * (height + 44)
        scale = Scale(*padded([y for _, y in points], 0.15, 0.004), start + height, start)
        parts += axis_y(scale, 48, WIDTH - 14, title, plain, 4)
        last = place == len(panels) - 1
        parts += axis_x(across, start + height, start, "optimizer step" if last else "", plain)
        if best is not None:
            parts.append(line(across(best), start, across(best), start + height, "best"))
        parts.append(path([(across(x), scale(y)) for x, y in points], f"curve tone{tone}"))
        for x, y in points:
            kept = x == best
            ring = " kept" if kept else ""
            tip = f"{title} {number(y, 4)} at step {x:g}{', kept' if kept else ''}"
            parts.append(marker(across(x), scale(y), SHAPES[tone], f"mark tone{tone}{ring}", tip, 5.5 if kept else 3.5))
            if kept:
                parts.append(_beside(across(x), scale(y), number(y), across))
    words = "; ".join(f"{title} from {number(points[0][1])} to {number(points[-1][1])}" for title, points, _ in panels)
    kept_words = f", weights of step {best:g} kept" if best is not None else ""
    end = top + len(panels) * (height + 44) - 8
    return drawing(end, parts, f"Learning curve of {stage}: {words}{kept_words}", "learning-curve")


def stages_curve(stages: Sequence[tuple[str, Sequence[dict[str, Any]]]], metric: str) -> Markup | None:
    """The validation metric from stage to stage, one after the other; `stages`: name and rows of each."""
    found, start = [], 0.0
    for name, rows in stages:
        points = [(start + x, y) for x, y in _points(rows, metric)]
        end = start + max((float(row["step"]) for row in rows if "step" in row), default=0.0)
        if points and end > start:
            found.append((name, start, end, points))
            start = end
    if len(found) < 2:
        return None
    across = Scale(0, start * 1.02, 48, WIDTH - 14)
    top, bottom = 52, 218
    scale = Scale(*padded([y for *_, points in found for _, y in points], 0.12), bottom, top)
    parts = axis_y(scale, 48, WIDTH - 14, "", plain)
    parts += axis_x(across, bottom, top, "optimizer steps of all stages, one after the other", plain)
    parts.append(text(0, 12, f"{metric_name(metric)} (validation)", "label"))
    for place, (name, first, end, points) in enumerate(found):
        tone = place % 4
        if first:
            parts.append(line(across(first), top - 6, across(first), bottom, "best"))
        middle, high = across((first + end) / 2), top - 10 if place % 2 == 0 else top - 24
        parts.append(text(middle, high, name, "name", 90, text_anchor="middle"))
        parts.append(path([(across(x), scale(y)) for x, y in points], f"curve tone{tone}"))
        for x, y in points:
            tip = f"{name}: {number(y, 4)} at its step {x - first:g}"
            parts.append(marker(across(x), scale(y), SHAPES[tone], f"mark tone{tone}", tip))
    words = "; ".join(f"{name} {number(points[-1][1])}" for name, _, _, points in found)
    return drawing(bottom + 38, parts, f"{metric_name(metric)} on validation rows after each stage: {words}", "stages")


def _points(rows: Sequence[dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [(float(row["step"]), float(row[name])) for row in rows if row.get(name) is not None and "step" in row]


def _beside(x: float, y: float, words: str, across: Scale) -> Markup:
    """A value at the side of its point where there is room."""
    right = x > (across.start + across.end) / 2
    return text(x - 10 if right else x + 10, y - 8, words, "value", text_anchor="end" if right else "start")


def over_time(
    series: Sequence[tuple[str, Sequence[tuple[float, float]]]], title: str, name: str, *,
    show_x: Callable[[float], str], limit: float | None = None, alarms: Sequence[float] = (),
) -> Markup | None:  # fmt: skip
    """Lines `(name, points)` over time; a dashed line at `limit`, a flag above each time in `alarms`."""
    series = [(words, points) for words, points in series if points][:4]
    if not series:
        return None
    times = [x for _, points in series for x, _ in points]
    values = [y for _, points in series for _, y in points] + ([limit] if limit is not None else [])
    first, last = min(times), max(times)
    spread = (last - first) * 0.03 or 1.0
    across = Scale(first - spread, last + spread, 48, WIDTH - 14)
    top, bottom = 46, 196
    scale = Scale(*padded(values, 0.12), bottom, top)
    parts = _legend([(words, tone, "line") for tone, (words, _) in enumerate(series)], 0)
    parts += axis_y(scale, 48, WIDTH - 14, title, plain)
    parts.append(line(48, bottom, WIDTH - 14, bottom, "axis"))
    for tick in (first, last) if last > first else (first,):
        anchor = "start" if tick == first and last > first else "end" if last > first else "middle"
        parts.append(text(across(tick), bottom + 14, show_x(tick), "tick", text_anchor=anchor))
    if limit is not None:
        parts.append(line(48, scale(limit), WIDTH - 14, scale(limit), "zero"))
        parts.append(text(WIDTH - 14, scale(limit) - 4, "threshold", "tick", text_anchor="end"))
    for at in alarms:
        parts.append(line(across(at), top, across(at), bottom, "best"))
        parts.append(marker(across(at), top, "triangle", "mark tone3", f"alarm, {show_x(at)}"))
    for tone, (words, points) in enumerate(series):
        parts.append(path([(across(x), scale(y)) for x, y in points], f"curve tone{tone}"))
        for x, y in points:
            parts.append(
                marker(across(x), scale(y), SHAPES[tone], f"mark tone{tone}", f"{words} {number(y)}, {show_x(x)}", 3)
            )
    words = "; ".join(f"{label} from {number(points[0][1])} to {number(points[-1][1])}" for label, points in series)
    return drawing(bottom + 26, parts, f"{title} over time: {words}", name)

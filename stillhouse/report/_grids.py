"""Plots in two dimensions: confusion matrix, reliability diagram, the ladder, the graph of steps."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from stillhouse.report._svg import (
    SHAPES,
    WIDTH,
    Scale,
    axis_x,
    axis_y,
    drawing,
    element,
    line,
    marker,
    padded,
    padded_log,
    path,
    plain,
    rect,
    text,
)
from stillhouse.report._text import metric_name, number, percent, size

Place = tuple[float, float, float]
"""Middle, top and width of a box."""
NUMBERED = 12
"""So many classes, and the cells of a confusion matrix still have room for their numbers."""


def heat_map(
    rows: Sequence[str], columns: Sequence[str], counts: Sequence[Sequence[int]], totals: Sequence[int]
) -> Markup:
    """Counts [rows, columns]; a cell is as dark as its share of the row's total, and says both where there is room."""
    left, top = 92, 88 if len(columns) > 4 else 42
    turned_ones = len(columns) > 4
    cell_width = (WIDTH - left - (44 if turned_ones else 4)) / len(columns)
    cell_height = min(cell_width, 62.0) if len(columns) <= NUMBERED else cell_width
    bottom = top + cell_height * len(rows)
    parts = [text(left, 12, "predicted →", "label"), text(0, top - 6, "true ↓", "label")]
    numbered = len(columns) <= NUMBERED and len(rows) <= NUMBERED
    for column, label in enumerate(columns):
        x = left + cell_width * (column + 0.5)
        if not turned_ones:
            parts.append(text(x, top - 8, label, "name", cell_width - 2, text_anchor="middle"))
        else:
            turned = f"rotate(-55 {x:.1f} {top - 8})"
            parts.append(text(x, top - 8, label, "name" if numbered else "tick", 72, transform=turned))
    for row, label in enumerate(rows):
        y = top + cell_height * (row + 0.5)
        total = totals[row] or 1
        parts.append(text(left - 8, y + 4, label, "name" if numbered else "tick", left - 10, text_anchor="end"))
        for column, guess in enumerate(columns):
            found = counts[row][column]
            parts += _cell(
                (left + cell_width * column, top + cell_height * row, cell_width, cell_height), found, found / total,
                f"{label} → {guess}: {found:,} ({percent(found / total)} of {label})", numbered,
            )  # fmt: skip
    label = f"Confusion matrix of {len(rows)} classes; the table below says the commonest confusions"
    return drawing(bottom + 4, parts, label, "confusion")


def _cell(
    box: tuple[float, float, float, float], found: int, share: float, tip: str, numbered: bool
) -> list[Markup]:  # fmt: skip
    x, y, width, height = box
    gap = 1 if width > 12 else 0.4
    opacity = 0.03 if not found else 0.08 + 0.74 * share
    parts = [rect(x + gap, y + gap, width - 2 * gap, height - 2 * gap, "cell", tip, fill_opacity=round(opacity, 3))]
    if numbered and (found or width > 60):
        strong = " strong" if share > 0.62 else ""
        middle = y + height / 2
        roomy = height > 36
        parts.append(
            text(x + width / 2, middle + (-1 if roomy else 4), f"{found:,}", f"count{strong}", text_anchor="middle")
        )
        if roomy:
            parts.append(text(x + width / 2, middle + 14, percent(share), f"share{strong}", text_anchor="middle"))
    return parts


def reliability(bins: Sequence[dict[str, Any]], ece: float) -> Markup:
    """Bins `{low, high, rows, confidence, accuracy, least, most}`: how often a confidence was right; rows below."""
    left, right, top, bottom = 48, WIDTH - 20, 28, 268
    across, up = Scale(0, 1, left, right), Scale(0, 1, bottom, top)
    parts = axis_y(up, left, right, "share that was right", lambda tick: percent(tick, 0))
    parts += axis_x(across, bottom, top, "", lambda tick: percent(tick, 0))
    parts.append(line(across(0), up(0), across(1), up(1), "zero"))
    parts.append(
        text(across(0.28), up(0.33), "perfect", "tick", transform=f"rotate(-34 {across(0.28):.1f} {up(0.33):.1f})")
    )
    filled = [found for found in bins if found["rows"]]
    most = max(found["rows"] for found in filled)
    for found in filled:
        x = across(found["confidence"])
        tip = (
            f"confidence {percent(found['low'], 0)} to {percent(found['high'], 0)}: {percent(found['accuracy'])} right "
            f"of {found['rows']:,} rows, {percent(found['confidence'])} expected"
        )
        parts.append(line(x, up(found["least"]), x, up(found["most"]), "range tone0"))
        parts.append(marker(x, up(found["accuracy"]), "circle", "mark tone0", tip))
        height = 40 * found["rows"] / most
        start, end = across(found["low"]), across(found["high"])
        parts.append(rect(start + 1, bottom + 68 - height, end - start - 2, height, "bar tone0", tip))
    parts.append(path([(across(found["confidence"]), up(found["accuracy"])) for found in filled], "curve tone0 thin"))
    parts.append(line(left, bottom + 68, right, bottom + 68, "axis"))
    parts.append(text(left - 6, bottom + 66, "rows", "tick", text_anchor="end"))
    parts.append(text((left + right) / 2, bottom + 84, "confidence of the answer", "label", text_anchor="middle"))
    words = "; ".join(f"{percent(b['confidence'], 0)} sure, {percent(b['accuracy'], 0)} right" for b in filled)
    return drawing(bottom + 92, parts, f"Reliability diagram, ECE {number(ece)}: {words}", "reliability")


def ladder_plot(ladder: dict[str, Any], by: str) -> Markup:
    """Quality of each rung against its speed or its size (`by`: `speed`, `bytes`), in logarithms; the Pareto front."""
    rungs = ladder["rungs"]
    xs = {
        rung["name"]: rung["measured"]["texts_per_second"] if by == "speed" else rung["bytes"] / 1e6 for rung in rungs
    }
    lows = [
        value for rung in rungs for value in (rung["quality"]["low"], rung["quality"]["high"], rung["quality"]["value"])
    ]
    wanted = ladder.get("baseline")
    top, bottom, left, right = 28, 228, 52, WIDTH - 14
    across = Scale(*padded_log(list(xs.values())), left, right, log=True)
    up = Scale(*padded([*lows, wanted] if wanted is not None else lows), bottom, top)
    title = "texts per second (faster →)" if by == "speed" else "MB on disk (← smaller)"
    parts = axis_y(up, left, right, f"{metric_name(ladder['metric'])} (validation)", plain)
    parts += axis_x(across, bottom, top, title, plain)
    if wanted is not None:
        parts += [
            line(left, up(wanted), right, up(wanted), "zero"),
            text(right, up(wanted) - 5, "baseline", "tick", text_anchor="end"),
        ]
    if by == "speed":
        front = sorted((xs[r["name"]], r["quality"]["value"]) for r in rungs if r["measured"].get("pareto"))
        parts.append(path([(across(x), up(y)) for x, y in front], "curve tone0 thin"))
    for rung in rungs:
        parts += _rung(rung, ladder, across(xs[rung["name"]]), up)
    words = "; ".join(f"{r['name']} {number(r['quality']['value'])} at {xs[r['name']]:,.4g}" for r in rungs)
    return drawing(
        bottom + 38, parts, f"Ladder, quality against {by}: {words}; chosen {ladder['chosen']}", f"ladder-{by}"
    )


def _rung(rung: dict[str, Any], ladder: dict[str, Any], x: float, up: Scale) -> list[Markup]:
    chosen = rung["name"] == ladder["chosen"]
    tone = 1 if chosen else 2 if rung["over_budget"] else 0
    quality = rung["quality"]
    state = "chosen" if chosen else "over budget" if rung["over_budget"] else "within budget"
    tip = f"{rung['name']}, {state}: {number(quality['value'])}, {size(rung['bytes'])}"
    anchor, aside = ("end", -10) if x > WIDTH * 0.7 else ("start", 10)
    words = rung["name"] if tone == 0 else f"{rung['name']} ({state})"
    return [
        line(x, up(quality["low"]), x, up(quality["high"]), f"range tone{tone}"),
        marker(x, up(quality["value"]), SHAPES[(0, 2, 3)[tone]], f"mark tone{tone}", tip, 6 if chosen else 4.5),
        text(x + aside, up(quality["value"]) - 7, words, "name halo", 190, text_anchor=anchor),
    ]  # fmt: skip


def step_graph(steps: Sequence[dict[str, Any]], target: str) -> Markup:
    """Boxes from top to bottom, each step below what feeds it; a line that others imply is left out.

    `steps`: `{name, method, key, inputs: [{key}]}`, inputs before what they feed; `target` is the key reported on.
    """
    direct, level = _order(steps)
    far = {start for end, starts in direct.items() for start in starts if level[end] - level[start] > 1}
    layers: list[list[dict[str, Any]]] = [[] for _ in range(1 + max(level.values(), default=0))]
    for step in sorted(steps, key=lambda each: each["key"] in far):  # those to the right, where their lines leave
        layers[level[step["key"]]].append(step)
    pitch, height, room = 58, 36, WIDTH - (46 if far else 0)
    places: dict[str, Place] = {}
    for row, layer in enumerate(layers):
        width = min(190.0, room / len(layer) - 12)
        for column, step in enumerate(layer):
            places[step["key"]] = (room * (column + 0.5) / len(layer), 4.0 + row * pitch, width)
    parts: list[Markup] = []
    aside = 0
    for end, starts in direct.items():
        for start in starts:
            long = level[end] - level[start] > 1
            lane = WIDTH - 6 - 8 * (aside % 5) if long else 0
            aside += long
            parts.append(_edge(places[start], places[end], height, lane))
    for step in steps:
        parts += _box(step, places[step["key"]], height, step["key"] == target)
    words = "; ".join(f"{step['name']} ({step['method']})" for step in steps)
    return drawing(len(layers) * pitch - pitch + height + 10, parts, f"Steps, first to last: {words}", "lineage")


def _order(steps: Sequence[dict[str, Any]]) -> tuple[dict[str, list[str]], dict[str, int]]:
    """(Keys that feed each step and are not implied by others that do, the layer of each step), by key."""
    known = {step["key"] for step in steps}
    feeds = {step["key"]: [item["key"] for item in step["inputs"] if item["key"] in known] for step in steps}
    above: dict[str, set[str]] = {}
    level: dict[str, int] = {}
    for key, own in feeds.items():
        above[key] = set(own).union(*(above[each] for each in own))
        level[key] = 1 + max((level[each] for each in own), default=-1)
    direct = {key: [k for k in dict.fromkeys(own) if not any(k in above[o] for o in own)] for key, own in feeds.items()}
    return direct, level


def _edge(start: Place, end: Place, height: float, lane: float) -> Markup:
    """From box to box; past other layers along a `lane` at the right."""
    (x1, y1, width1), (x2, y2, width2) = start, end
    if lane:
        x1, x2, y1, y2 = x1 + width1 / 2, x2 + width2 / 2, y1 + height / 2, y2 + height / 2
        turn = f"H{lane - 8:.1f} Q{lane:.1f} {y1:.1f} {lane:.1f} {y1 + 8:.1f} V{y2 - 8:.1f}"
        return element(
            "path", d=f"M{x1:.1f} {y1:.1f} {turn} Q{lane:.1f} {y2:.1f} {lane - 8:.1f} {y2:.1f} H{x2:.1f}", class_="edge"
        )
    y1 += height
    bend = (y2 - y1) / 2
    curve = f"C{x1:.1f} {y1 + bend:.1f} {x2:.1f} {y2 - bend:.1f} {x2:.1f} {y2:.1f}"
    return element("path", d=f"M{x1:.1f} {y1:.1f} {curve}", class_="edge")


def _box(step: dict[str, Any], place: Place, height: float, target: bool) -> list[Markup]:
    x, y, width = place
    room = width - 8
    tip = f"{step['name']}: {step['method']}, {step['key'][:12]}"
    return [
        rect(x - width / 2, y, width, height, "box target" if target else "box", tip, rx=6),
        text(x, y + 15, step["name"], "name strong-name", room, text_anchor="middle"),
        text(x, y + 29, step["method"], "tick", room, text_anchor="middle"),
    ]

"""Drawing in SVG by hand: elements, scales, axes. Colours are CSS classes, so that one drawing suits light and dark.

Every drawing is a few hundred units wide, about the width of a phone: text in it stays legible wherever it is shown.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from stillhouse.report._text import clean, clip, fitted

WIDTH = 440
SHAPES = ("circle", "square", "diamond", "triangle")
"""Markers beside colours: nothing is told by colour alone."""


def element(name: str, *children: Any, **attributes: Any) -> Markup:
    """One element; strings are cleaned and escaped, `class_` and `stroke_width` are attributes."""
    parts = [f"<{name}"]
    for key, value in attributes.items():
        if value is not None:
            value = f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else value
            parts.append(f' {key.rstrip("_").replace("_", "-")}="{escape(clean(str(value)))}"')
    inner = "".join(escape(clean(child)) for child in children)
    return Markup("".join([*parts, f">{inner}</{name}>"]))  # each part was escaped above


def drawing(height: float, parts: Iterable[Markup], label: str, name: str, width: float = WIDTH) -> Markup:
    """The whole picture. `label` is what a screen reader says, `name` what tests and styles find it by."""
    return element(
        "svg", *parts, viewBox=f"0 0 {width:.0f} {height:.0f}", role="img", aria_label=label, class_=f"plot {name}",
        data_plot=name, xmlns="http://www.w3.org/2000/svg",
    )  # fmt: skip


def text(x: float, y: float, words: Any, class_: str = "", room: float = WIDTH - 20, **attributes: Any) -> Markup:
    """A label, cut to `room` units; more of it as a tooltip where it was cut."""
    shown = fitted(words, room)
    tooltip = [element("title", clip(words, 300))] if shown.endswith("…") else []
    return element("text", shown, *tooltip, x=float(x), y=float(y), class_=class_ or None, **attributes)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return element("line", x1=float(x1), y1=float(y1), x2=float(x2), y2=float(y2), class_=class_)


def rect(x: float, y: float, width: float, height: float, class_: str, tip: str = "", **more: Any) -> Markup:
    children = [element("title", tip)] if tip else []
    return element(
        "rect", *children, x=float(x), y=float(y), width=float(max(0.0, width)), height=float(max(0.0, height)),
        class_=class_, **more,
    )  # fmt: skip


def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """A line through `points`."""
    steps = " ".join(f"{'L' if number else 'M'}{x:.2f} {y:.2f}" for number, (x, y) in enumerate(points))
    return element("path", d=steps, class_=class_)


def marker(x: float, y: float, shape: str, class_: str, tip: str = "", size: float = 4.5) -> Markup:
    children = [element("title", tip)] if tip else []
    if shape == "circle":
        return element("circle", *children, cx=float(x), cy=float(y), r=float(size), class_=class_)
    if shape == "square":
        corners = [(-size, -size), (size, -size), (size, size), (-size, size)]
    elif shape == "diamond":
        corners = [(0.0, -1.35 * size), (1.35 * size, 0.0), (0.0, 1.35 * size), (-1.35 * size, 0.0)]
    else:
        corners = [(0.0, -1.2 * size), (1.2 * size, size), (-1.2 * size, size)]
    outline = " ".join(f"{x + dx:.2f},{y + dy:.2f}" for dx, dy in corners)
    return element("polygon", *children, points=outline, class_=class_)


@dataclass(frozen=True)
class Scale:
    """Values → positions, linear or logarithmic."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        low, high, at = self.low, self.high, value
        if self.log:
            low, high, at = math.log(low), math.log(high), math.log(max(value, 1e-12))
        share = (at - low) / (high - low) if high > low else 0.5
        return self.start + min(1.05, max(-0.05, share)) * (self.end - self.start)

    def ticks(self, most: int = 6) -> list[float]:
        return _log_ticks(self.low, self.high) if self.log else nice_ticks(self.low, self.high, most)


def nice_ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers within the range, at most about `most`."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    base = 10.0 ** math.floor(math.log10(rough))
    step = next(base * factor for factor in (1, 2, 2.5, 5, 10) if base * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    found = []
    while (first + len(found)) * step <= high + 1e-9 * step and len(found) < 50:
        found.append(round((first + len(found)) * step, 12))
    return found


def _log_ticks(low: float, high: float) -> list[float]:
    found = []
    for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1):
        found += [factor * 10.0**power for factor in (1, 2, 5) if low <= factor * 10.0**power <= high]
    if len(found) < 4:
        fine = (1, 1.5, 2, 3, 4, 5, 7)
        power = math.floor(math.log10(low))
        found = [f * 10.0**p for p in (power, power + 1) for f in fine if low <= f * 10.0**p <= high]
    return found if len(found) <= 7 else [tick for tick in found if f"{tick:e}".startswith("1")]


def padded(values: Sequence[float], share: float = 0.08, least: float = 1e-6) -> tuple[float, float]:
    """A range around the values with some air."""
    low, high = min(values), max(values)
    air = max((high - low) * share, abs(high) * 0.005, least)
    return low - air, high + air


def padded_log(values: Sequence[float], factor: float = 1.35) -> tuple[float, float]:
    positive = [value for value in values if value > 0] or [1.0]
    return min(positive) / factor, max(positive) * factor


def axis_x(scale: Scale, y: float, top: float, title: str, show: Callable[[float], str]) -> list[Markup]:
    """Grid lines upward from `y` to `top`, tick labels and a title below."""
    parts = []
    for tick in scale.ticks():
        at = scale(tick)
        parts += [line(at, top, at, y, "grid"), text(at, y + 14, show(tick), "tick", text_anchor="middle")]
    parts.append(line(scale.start, y, scale.end, y, "axis"))
    if title:
        parts.append(text((scale.start + scale.end) / 2, y + 30, title, "label", text_anchor="middle"))
    return parts


def axis_y(
    scale: Scale, x: float, right: float, title: str, show: Callable[[float], str], most: int = 5
) -> list[Markup]:
    """Grid lines from `x` to `right`, tick labels at the left, the title above."""
    parts = []
    for tick in scale.ticks(most):
        at = scale(tick)
        parts += [line(x, at, right, at, "grid"), text(x - 6, at + 3.5, show(tick), "tick", text_anchor="end")]
    if title:
        parts.append(text(0, scale.end - 12, title, "label"))
    return parts


def plain(value: float) -> str:
    """A tick label."""
    if abs(value) >= 1000:
        return f"{value / 1000:g}k".replace("-", "−") if abs(value) < 1e6 else f"{value / 1e6:g}M".replace("-", "−")
    return f"{value:.6g}".replace("-", "−")

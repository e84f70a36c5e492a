"""Words and numbers of the report: what comes from data is hostile until it went through `clean`."""

import math
import time
from typing import Any, TypeGuard

CLIPPED = 500
"""Characters of a text of the data that are shown."""
_BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}
_CONTROL = {code: chr(0x2400 + code) for code in range(32) if chr(code) not in "\t\n"} | {0x7F: "␡"}
_CODES = (
    _CONTROL
    | dict.fromkeys([*range(0x80, 0xA0), *range(0xD800, 0xE000), 0xFFFE, 0xFFFF], "\ufffd")
    | {code: f"⟨U+{code:04X}⟩" for code in _BIDI}
)
"""What would break a page or turn its text around → something that can be seen instead."""


def clean(value: Any) -> Any:
    """A text without control characters, lone surrogates and bidirectional overrides; anything else as it is.

    Jinja calls it for each value of a template, before it escapes; None is shown as nothing.
    """
    if value is None:
        return ""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return value.translate(_CODES)
    return value


def clip(text: Any, most: int = CLIPPED) -> str:
    """The beginning of a text, and how much more of it there is; "" for None."""
    text = "" if text is None else str(text)
    return text if len(text) <= most else f"{text[:most]}… ({len(text) - most:,} more characters)"


def fitted(text: Any, room: float) -> str:
    """As a label of a plot: cut so that it is at most about `room` units wide at 12 units a letter's height."""
    text = clean(str(text)).replace("\n", " ")
    width = 0.0
    for place, letter in enumerate(text):
        width += letter_width(letter)
        if width > room:
            return text[: max(1, place - 1)] + "…"
    return text


def letter_width(letter: str) -> float:
    """Of a wide sans serif, so that another one fits too."""
    if letter in "iIjl.,:;'|![]()":
        return 5.0
    if ord(letter) > 0x1100:
        return 13.0
    return 11.5 if letter in "mwMWQ@%—" else 8.4 if letter.isupper() else 7.6


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def number(value: Any, digits: int = 3) -> str:
    """A figure with a fixed number of decimals; "" for what is none."""
    return f"{value:.{digits}f}".replace("-", "−") if is_number(value) else ""


def signed(value: Any, digits: int = 3) -> str:
    return (f"+{value:.{digits}f}" if value > 0 else number(value, digits)) if is_number(value) else ""


def count(value: Any) -> str:
    return f"{value:,.0f}".replace("-", "−") if is_number(value) else ""


def percent(value: Any, digits: int = 1) -> str:
    return f"{100 * value:.{digits}f} %" if is_number(value) else ""


def size(value: Any) -> str:
    """Bytes in a unit a person reads."""
    if not is_number(value):
        return ""
    for unit, factor in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if value >= factor:
            return f"{value / factor:.1f} {unit}"
    return f"{value:.0f} B"


def duration(seconds: Any) -> str:
    """`45 s`, `3 min 20 s`, `2 h 5 min`."""
    if not is_number(seconds):
        return ""
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def moment(seconds: Any) -> str:
    """A time in UTC: a report travels."""
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds)) if is_number(seconds) else ""
    except (OverflowError, ValueError, OSError):
        return ""


def figure(value: Any) -> str:
    """Any number of a step, with as many digits as it needs."""
    if not is_number(value):
        return str(value)
    if float(value).is_integer() and abs(value) < 1e15:
        return count(value)
    return f"{value:.4g}".replace("-", "−") if abs(value) < 1000 else count(value)


def span(low: Any, high: Any, digits: int = 3) -> str:
    """An interval."""
    return f"{number(low, digits)} to {number(high, digits)}" if is_number(low) and is_number(high) else ""


NAMES = {
    "accuracy": "accuracy", "f1_macro": "macro F1", "f1_micro": "micro F1", "precision_macro": "macro precision",
    "recall_macro": "macro recall", "roc_auc": "ROC AUC", "entity_f1": "entity F1",
    "entity_precision": "entity precision", "entity_recall": "entity recall",
}  # fmt: skip


def metric_name(name: str) -> str:
    return NAMES.get(name, name.replace("_", " "))


FILTERS = {
    function.__name__: function
    for function in (clip, number, signed, count, percent, size, duration, moment, figure, span, metric_name)
}

"""One text, cleaned: the form that is stored, hashed and compared."""

import json
import math
import re
import unicodedata
from typing import Any, Literal

Form = Literal["NFC", "NFKC"] | None

# Control characters, soft hyphen, zero-width space and direction marks. The zero-width joiners stay: emoji and
# several scripts need them.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u200b\u200e\u200f\u202a-\u202e\u2060\u2066-\u2069\ufeff]"
)
_MISSING = {"", "nan", "NaN", "<NA>"}


def clean_text(text: str, form: Form) -> str:
    """`text` in Unicode normal form, without control characters, each run of white space one space."""
    if not text.isascii():
        text = storable(text)
        if form:
            text = unicodedata.normalize(form, text)
    return " ".join(_INVISIBLE.sub("", text).split())


def storable(text: str) -> str:
    """`text` without half surrogate pairs, which a broken JSON escape leaves and no file can hold."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def as_text(value: Any) -> str | None:
    """A cell as text; None when it is missing. Whole floats (`1.0`, what a gap makes of `1`) read like integers."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if math.isnan(value):
            return None
        return str(int(value)) if value.is_integer() else str(value)
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return str(value)


def as_label(value: Any) -> str | None:
    """A label as text; None when it is missing."""
    label = as_text(value)
    if label is None:
        return None
    label = clean_text(label, "NFC")
    return None if label in _MISSING else label


def as_number(value: Any) -> float | None:
    """A finite number, or None."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # an integer of 400 digits
        return None
    return number if math.isfinite(number) else None

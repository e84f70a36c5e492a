"""Printing for machines."""

import json
from typing import Any


def visible(text: object) -> str:
    """`text` on one line for a terminal: what would move its cursor or forge a line is shown as an escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))

"""Printing for machines."""

import json
from typing import Any


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=str))

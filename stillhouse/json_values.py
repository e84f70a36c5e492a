"""Any cell of a table as JSON can say it."""

import math
from datetime import date, time
from decimal import Decimal
from typing import Any

from stillhouse.data._clean import storable


def plain(value: Any) -> Any:
    """`value` of strings, finite numbers, lists and objects; None for what is no number, moments as ISO 8601."""
    if isinstance(value, str):
        return storable(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, Decimal):
        return plain(float(value)) if value % 1 else int(value)
    if isinstance(value, dict):
        return {storable(str(name)): plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, date | time) else storable(str(value))

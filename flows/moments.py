"""Moments as people write them: `7d`, `12h`, `30m` ago, or a date with or without a time."""

import re
import time
from datetime import UTC, datetime

from stillhouse.errors import UserError

SECONDS = {"m": 60, "h": 3600, "d": 86400}


def moment(text: str, name: str) -> float | None:
    """Epoch seconds of `text`, None for an empty one; `name` is what the user called it. A time without a zone is
    this machine's."""
    if not text:
        return None
    ago = re.fullmatch(r"(\d+(?:\.\d+)?)([mhd])", text.strip())
    try:
        if ago:
            found = time.time() - float(ago[1]) * SECONDS[ago[2]]
        else:
            found = datetime.fromisoformat(text.strip()).timestamp()
        datetime.fromtimestamp(found, UTC)
    except (ValueError, OverflowError, OSError):  # also before the year 1
        raise UserError(
            f'{name}: "{text}" is no moment', "Write 7d, 12h or 30m for so long ago, or 2026-11-25T08:00"
        ) from None
    return found

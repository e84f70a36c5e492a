"""Where everything of one installation lives: store, MLflow database, Prefect state, logs."""

import os
from pathlib import Path

from stillhouse.errors import UserError

VARIABLE = "STILLHOUSE_HOME"
DIRECTORY = ".stillhouse"


def find_home(start: Path | None = None) -> Path:
    """`$STILLHOUSE_HOME`, else the nearest `.stillhouse/` upward from `start`, else a new one there (not yet made)."""
    if os.environ.get(VARIABLE):
        return _addressable(Path(os.environ[VARIABLE]).expanduser().resolve())
    start = (start or Path.cwd()).resolve()
    for directory in (start, *start.parents):
        if (directory / DIRECTORY).is_dir():
            return _addressable(directory / DIRECTORY)
    return _addressable(start / DIRECTORY)


def _addressable(home: Path) -> Path:
    # The databases in it are named by URLs, where these characters mean something else.
    odd = next((character for character in str(home) if character in "%?#" or not character.isprintable()), None)
    if odd is not None:
        raise UserError(
            f"the path of the home directory holds {odd!r}: {str(home)!r}",
            f"Set {VARIABLE} to a directory without %, ?, # and control characters in its path",
        )
    if home.exists() and not home.is_dir():
        raise UserError(f"the home directory {home} is a file", f"Set {VARIABLE} to a directory")
    return home


def make_home(home: Path) -> Path:
    """Create the directory where it is missing; an error names the fix when it cannot be written."""
    try:
        (home / "logs").mkdir(parents=True, exist_ok=True)
        probe = home / "logs" / f".writable.{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"cannot write to the home directory {home}: {error.strerror}",
            f"Make it writable, or set {VARIABLE} to a directory that is",
        ) from None
    return home

"""`HOME/up.json`: where the servers of a running `stillhouse up` are. Importing this imports no prefect, no mlflow."""

from pathlib import Path
from typing import TypedDict

from stillhouse.files import read_json
from tasks.processes import process_start

FILE = "up.json"
POOL = "stillhouse"
WORKER = "up"
"""The name of its worker."""


class Addresses(TypedDict):
    """`api` is what `PREFECT_API_URL` takes, `prefect` the page of the same server."""

    pid: int
    process: str
    prefect: str
    api: str
    mlflow: str
    pool: str


def running(home: Path) -> Addresses | None:
    """The addresses of the `up` of this home, or None when none is running on this machine."""
    try:
        found = read_json(home / FILE)
        alive = process_start(found["pid"]) == found["process"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if alive else None

"""Ports on loopback for the servers of `up`: the usual or the next free ones, the same after a restart."""

import os
import socket
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from stillhouse.errors import UserError
from stillhouse.files import read_json, write_json

HOST = "127.0.0.1"
USUAL = {"prefect": 4200, "mlflow": 5000}
TRIES = 200
FILE = "ports.json"


@dataclass(frozen=True)
class Ports:
    prefect: int
    mlflow: int


class Reserved:
    """Chosen ports, held against other `up`s of this user until the process ends: a server binds seconds later."""

    def __init__(self) -> None:
        self.locks: list[FileLock] = []
        self.directory = Path(tempfile.gettempdir()) / f"stillhouse-ports-{os.getuid()}"
        try:
            self.directory.mkdir(mode=0o700, exist_ok=True)
            stranger = self.directory.stat().st_uid != os.getuid()
        except OSError:
            stranger = True
        if stranger:
            raise UserError(
                f"{self.directory} is not a folder of yours", "Remove it, or set TMPDIR to a folder of yours"
            )

    def take(self, port: int) -> bool:
        """Whether `port` was free and is ours now."""
        if not 0 < port < 65536 or not _is_free(port):
            return False
        lock = FileLock(self.directory / f"{port}.lock")
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            return False
        self.locks.append(lock)
        return True


def choose(home: Path, asked: dict[str, int | None], reserved: Reserved) -> Ports:
    """A free port for each server: what was asked for, else the one of last time, else from the usual one upward."""
    last = _last(home)
    chosen = {name: _choose(name, asked.get(name), last.get(name), reserved) for name in USUAL}
    ports = Ports(**chosen)
    write_json(home / FILE, asdict(ports))
    return ports


def _choose(name: str, asked: int | None, last: int | None, reserved: Reserved) -> int:
    if asked is not None:
        if not reserved.take(asked):
            raise UserError(f"port {asked} is taken", f"Name another --{name}-port, or leave it out for a free one")
        return asked
    usual = USUAL[name]
    for port in [*([last] if last else []), *range(usual, usual + TRIES)]:
        if reserved.take(port):
            return port
    raise UserError(f"no port from {usual} to {usual + TRIES - 1} is free", f"Name one with --{name}-port")


def _last(home: Path) -> dict[str, int]:
    try:
        found = read_json(home / FILE)
        return {name: int(found[name]) for name in USUAL if name in found}
    except (OSError, ValueError, TypeError):
        return {}


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the servers do: what just ended is free
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True

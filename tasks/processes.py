"""Processes of this machine, told apart from later ones with the same number."""

import contextlib
import functools
import hashlib
import socket
import subprocess
from pathlib import Path


@functools.cache
def machine() -> str:
    """A name for this machine that tells nobody what it is called."""
    identity = [socket.gethostname()]
    with contextlib.suppress(OSError):
        identity.append(Path("/etc/machine-id").read_text().strip())
    return hashlib.sha256("|".join(identity).encode()).hexdigest()[:16]


def process_start(pid: int) -> str | None:
    """When process `pid` of this machine began, told so that no later process with its number matches; None: dead."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return None if fields[0] == "Z" else f"{boot}:{fields[19]}"
    except OSError:
        if Path("/proc/self/stat").exists():
            return None
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return shown.stdout.strip() or None

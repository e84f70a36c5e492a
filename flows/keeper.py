"""Ends what `up` leaves behind when it is killed: once the pipe from `up` closes, it takes everything along.

A process of its own, since nothing in a process survives its SIGKILL, and since a server's own children (MLflow's has
one, a worker has one for each flow run) would survive the server.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path

from flows.marked import MARK, end, marked
from stillhouse.errors import BugError

GRACE_SECONDS = 5.0


def start(home: Path, grace_seconds: float = GRACE_SECONDS) -> "subprocess.Popen[bytes]":
    """The keeper of this process: close its standard input, or die, and it ends all that is marked."""
    environment = {name: value for name, value in os.environ.items() if name != MARK}
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "flows.keeper", str(home), str(grace_seconds)], env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip
    assert process.stdout
    with process.stdout as ready:
        if not ready.readline():
            raise BugError("the process that ends what a killed `up` leaves behind does not start", "See above")
    return process


def main() -> None:
    for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    os.write(1, b"ready\n")
    os.close(1)
    sys.stdin.buffer.read()
    end_all(Path(sys.argv[1]), float(sys.argv[2]))


def end_all(home: Path, grace_seconds: float) -> int:
    """End everything below an `up` of `home`; twice, for what was just being started. Returns how many there were."""
    first = marked(home)
    end(list(first), grace_seconds)
    end(list(marked(home)), 1.0)
    return len(first)


if __name__ == "__main__":
    main()

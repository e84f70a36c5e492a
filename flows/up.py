"""`stillhouse up`: the servers and the worker of a home, kept alive until they are asked to stop."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from flows import keeper, prefect_api, servers
from flows.environment import check_prefect_database
from flows.marked import SEEN, end, marked, send
from flows.ports import Ports, Reserved, choose
from flows.supervised import Supervised
from pipelines.recipe_files import recipe_names
from stillhouse.errors import BugError, UserError
from stillhouse.files import read_json, write_json
from stillhouse.home import make_home
from tasks.alerts import send_unsent
from tasks.automations import check_webhook, ensure_automations
from tasks.mlflow_home import DATABASE, lock
from tasks.processes import process_start
from tasks.running_up import FILE, POOL, Addresses, running

START_SECONDS = 240.0
DEPLOY_SECONDS = 180.0
GRACE_SECONDS = 6.0
TICK_SECONDS = 0.2
SWEEP_SECONDS = 30.0
"""How often flow runs without a process, and alerts that the server could not take, are looked for."""
ENDED = ("RUNNING", "CANCELLING")
Say = Callable[[str], None]


class Stopped(Exception):
    """Somebody asked for the end while things were being started."""


def bring_up(
    home: Path, asked: dict[str, int | None], webhook: str | None, say: Say, ready: Callable[[Addresses, bool], None]
) -> int:  # fmt: skip
    """Run until SIGINT, SIGTERM or SIGHUP; returns the exit code. Alerts go to `webhook` (see `ensure_automations`).

    `ready` gets the addresses once everything is healthy, and whether that was so before: a second `up` of the home
    only tells them. Raises `UserError` for ports that are taken, a home or database that cannot be used.
    """
    if webhook:
        check_webhook(webhook)
    make_home(home)
    claim = lock(home, "up")
    other = _acquire_or_find(claim, home, say)
    if other:
        ready(other, True)
        return 0
    try:
        _check(home)
        left = keeper.end_all(home, GRACE_SECONDS)
        if left:
            say(f"{left} processes of an earlier `up`, which was killed, have been ended")
        reserved = Reserved()
        ports = choose(home, asked, reserved)
        _agree_with_shell(ports)
        return _Up(home, ports, webhook, say).run(ready)
    finally:
        claim.release()


def _acquire_or_find(claim: FileLock, home: Path, say: Say) -> Addresses | None:
    """None once the home is ours, else the addresses of the `up` that has it; that may be just starting or stopping."""
    deadline = time.monotonic() + START_SECONDS
    told = False
    while True:
        try:
            claim.acquire(timeout=0)
        except Timeout:
            found = running(home)
        else:
            return None
        if found:
            return found
        if time.monotonic() > deadline:
            raise UserError(f"another `up` of {home} is starting or stopping", "Wait for it, or end it")
        if not told:
            say("another `up` of this home is starting or stopping")
            told = True
        time.sleep(TICK_SECONDS)


def _check(home: Path) -> None:
    from tasks.mlflow_home import ready_database

    check_prefect_database()
    if not (home / DATABASE).exists():
        # In a process of its own: it imports mlflow, 250 MB that this one would keep.
        code = "import sys, pathlib; from tasks.mlflow_home import *; h = pathlib.Path(sys.argv[1])"
        done = subprocess.run(
            [sys.executable, "-P", "-c", f"{code}; ready_database(h, h / DATABASE)", str(home)], check=False,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        if done.returncode:
            raise BugError(f"the MLflow database {home / DATABASE} could not be made", "See above")
    else:
        ready_database(home, home / DATABASE)


def _agree_with_shell(ports: Ports) -> None:
    """Refuse to start beside servers that this shell's other commands would use instead."""
    ours = {
        "PREFECT_API_URL": f"{servers.prefect_address(ports)}/api", "MLFLOW_TRACKING_URI": servers.mlflow_address(ports)
    }  # fmt: skip
    for name, address in ours.items():
        set_to = os.environ.get(name, "").rstrip("/")
        if set_to and set_to != address:
            raise UserError(
                f"{name} is set to {set_to}: commands would go there, not to the servers of `up`",
                "Unset it: `up` and the commands find each other through the home",
            )


class _Up:
    """The three processes, their keeper, and what to do when one ends or all are to end."""

    def __init__(self, home: Path, ports: Ports, webhook: str | None, say: Say) -> None:
        self.home, self.webhook, self.say = home, webhook, say
        self.api = f"{servers.prefect_address(ports)}/api"
        self.addresses: Addresses = {
            "pid": os.getpid(), "process": process_start(os.getpid()) or "", "prefect": servers.prefect_address(ports),
            "api": self.api, "mlflow": servers.mlflow_address(ports), "pool": POOL,
        }  # fmt: skip
        self.environment = servers.environment(home, ports)
        made = [Supervised(service, say) for service in servers.services(home, ports)]
        self.prefect, self.mlflow, self.worker = made
        self.keeper = keeper.start(home)
        self.signals = 0

    def run(self, ready: Callable[[Addresses, bool], None]) -> int:
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, self._asked_to_stop)
        try:
            self._start()
            ready(self.addresses, False)
            self._watch()
        except Stopped:
            pass
        finally:
            self._stop()
        return 0

    def _asked_to_stop(self, *given: object) -> None:
        self.signals += 1
        if self.signals > 1:  # twice: at once
            send(list(marked(self.home)), signal.SIGKILL)

    def _start(self) -> None:
        self.say("starting the Prefect server and the MLflow server (the first time in a home takes half a minute)")
        for server in (self.prefect, self.mlflow):
            server.start()
        self._until_healthy(self.prefect)
        prefect_api.mend_flow_runs(self.api, set, ("PENDING", *ENDED))
        prefect_api.make_pool(self.api, read_json(servers.shipped("process-pool.json")), self.home)
        self._deploy(servers.shipped("prefect.yaml"))
        if (self.home / "prefect.yaml").exists():
            self._deploy(self.home / "prefect.yaml")
        ensure_automations(self.api, self.webhook)
        self._until_healthy(self.mlflow)
        self.worker.start()
        self._until_healthy(self.worker)
        write_json(self.home / FILE, self.addresses)

    def _until_healthy(self, *wanted: Supervised) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not all([one.is_healthy() for one in wanted]):
            self._tick()
            if time.monotonic() > deadline:
                slow = next(one for one in wanted if not one.is_healthy())
                raise BugError(f"the {slow.name} is not healthy after {START_SECONDS:.0f} s", f"See {slow.log}")

    def _deploy(self, path: Path) -> None:
        """Prefect's own `deploy`: existing deployments are updated, schedules that the file does not name stay."""
        log = self.home / "logs" / "deploy.log"
        command = ["prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(path)]
        with log.open("ab") as output:
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", *command], env={**self.environment, "PREFECT_LOGGING_LEVEL": "WARNING"},
                cwd=self.home, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + DEPLOY_SECONDS
        while child.poll() is None and time.monotonic() < deadline:
            self._tick()
        if child.poll() != 0:
            end([child.pid], 1.0)
            child.wait()
            kind = UserError if path.parent == self.home else BugError
            raise kind(f"the deployments of {path} could not be made", f"See {log}")

    def _tick(self) -> None:
        """A moment of waiting, in which whatever has died is started again."""
        if self.signals:
            raise Stopped
        time.sleep(TICK_SECONDS)
        if self.keeper.poll() is not None:
            self.keeper = keeper.start(self.home)
        for server in (self.prefect, self.mlflow):
            server.revive()
        for one in (self.prefect, self.mlflow, self.worker):
            one.is_healthy()  # says so when it is back
        if self.worker.is_due() and self.prefect.is_healthy():
            self._mend("PENDING", *ENDED)
            self.worker.revive()

    def _watch(self) -> None:
        swept, tried, offered = time.monotonic(), list[str](), list[str]()
        while True:
            self._tick()
            names, due = recipe_names(self.home), time.monotonic() - swept > SWEEP_SECONDS
            if names != tried or (due and names != offered):  # without its server not twice in a tick, but later
                tried, offered = names, self._offer_recipes(names, offered)
            if due:
                swept = time.monotonic()
                self._mend(*ENDED)
                send_unsent(self.home, self.api)

    def _offer_recipes(self, names: list[str], offered: list[str]) -> list[str]:
        """A recipe was added to the home, or taken away: the form says so. Returns what it offers now."""
        with suppress(OSError, ValueError):
            prefect_api.offer_recipes(self.api, names)
            return names
        return offered

    def _mend(self, *states: str) -> None:
        """Flow runs that lost their process; the server may be away just now: the next time, then."""
        if not SEEN:
            return
        with suppress(OSError, ValueError):
            mended = prefect_api.mend_flow_runs(self.api, lambda: set(marked(self.home).values()), states)
            if mended:
                self.say(f"flow runs that lost their process: {len(mended)}; what became of them is on their pages")

    def _stop(self) -> None:
        """Runs first, while the servers can still record their end; then the servers; then whatever is left."""
        for name in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(name, self._asked_to_stop)
        with suppress(OSError):
            (self.home / FILE).unlink()
        self.say("stopping")
        group = [self.worker.pid] if self.worker.pid else []
        runs = [pid for pid, run in marked(self.home).items() if run]
        end([*group, *runs], GRACE_SECONDS)
        self.worker.ended()
        if self.prefect.alive():
            self._mend("PENDING", *ENDED)
        pids = [server.pid for server in (self.prefect, self.mlflow) if server.pid]
        end(pids, GRACE_SECONDS)
        keeper.end_all(self.home, 1.0)
        for one in (self.prefect, self.mlflow, self.worker):
            one.ended()
        assert self.keeper.stdin
        self.keeper.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self.keeper.wait(GRACE_SECONDS)

"""What ran, in MLflow: one parent run for a flow run, one nested run for each step that ran.

Runs are addressed by their id, never by MLflow's thread-local stack, so that threads can log side by side. Nothing here
may fail a training: what goes wrong is said once, and the run goes on.
"""

import contextlib
import functools
import json
import logging
import math
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from stillhouse.events import emit
from tasks.mlflow_home import experiment_id, is_fresh, open_client
from tasks.processes import machine, process_start
from tasks.versions import remember

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

MACHINE = "stillhouse.machine"
PID = "stillhouse.pid"
PROCESS = "stillhouse.process"
METRICS_PER_CALL = 800
WORDS_PER_CALL = 100
"""MLflow takes at most 100 parameters, 100 tags and 1,000 of everything in one call."""
STATES = {"failed": "FAILED", "refused": "FAILED", "interrupted": "KILLED"}
"""A step's state → MLflow's; anything else is FINISHED."""

P = ParamSpec("P")
R = TypeVar("R")
_log = logging.getLogger(__name__)
_warned: set[Path] = set()


def _harmless(otherwise: R) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Make a function whose first argument is the home return `otherwise` instead of raising."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def called(*args: P.args, **kwargs: P.kwargs) -> R:
            try:
                return function(*args, **kwargs)
            except Exception as error:  # whatever MLflow, its database or its server may raise
                home = Path(str(args[0]))
                _warn(home, function.__name__, error)
                return otherwise

        return called

    return wrap


def _warn(home: Path, where: str, error: Exception) -> None:
    first_line = (str(error).splitlines() or [""])[0]
    with contextlib.suppress(OSError):  # the same full disk, perhaps
        emit(home, "tracking.failed", where=where, error=f"{type(error).__name__}: {first_line}")
    if home not in _warned:
        _warned.add(home)
        _log.warning("MLflow does not record this run (%s: %s); the run goes on", type(error).__name__, first_line)


@_harmless("")
def start_parent(home: Path, recipe_name: str, config: dict[str, Any]) -> str:
    """Open the run of a flow run in the recipe's experiment; `config` becomes its parameters. Returns its id.

    "" when MLflow cannot be written: pass it on, the other functions then do nothing.
    """
    client = open_client(home)
    tags = {MACHINE: machine(), PID: str(os.getpid()), PROCESS: process_start(os.getpid()) or ""}
    run = client.create_run(
        experiment_id(home, recipe_name), run_name=recipe_name, tags={**tags, "stillhouse.recipe": recipe_name}
    )
    _log_all(client, run.info.run_id, flatten(config), [])
    return run.info.run_id


@_harmless("")
def log_step(
    home: Path, parent: str, step_name: str, manifest: dict[str, Any], artifact_dir: Path | None, state: str
) -> str:  # fmt: skip
    """Record one step that ran, or failed (then without an artifact): a run nested in `parent`, with settings, figures
    and, from the artifact's `metrics.jsonl`, curves. Returns its id."""
    if not parent:
        return ""
    client = open_client(home)
    measured = manifest.get("measured", {})
    end = int(1000 * measured.get("created", time.time()))
    tags = {
        "mlflow.parentRunId": parent, "stillhouse.state": state, "stillhouse.key": manifest.get("key", ""),
        "stillhouse.method": manifest.get("method", ""), "stillhouse.content": manifest.get("content", ""),
    }  # fmt: skip
    run = client.create_run(
        _experiment_of(home, parent),
        start_time=end - int(1000 * measured.get("seconds", 0)),
        tags={name: value for name, value in tags.items() if value},
        run_name=step_name,
    )
    run_id = run.info.run_id
    metrics, last = curves(artifact_dir / "metrics.jsonl" if artifact_dir else None, end - 1)
    metrics += _metrics({**manifest.get("metrics", {}), "seconds": measured.get("seconds")}, last, end)
    _log_all(client, run_id, flatten(manifest.get("settings", {})), metrics)
    client.set_terminated(run_id, STATES.get(state, "FINISHED"), end_time=end)
    return run_id


@functools.lru_cache(maxsize=64)
def _experiment_of(home: Path, run_id: str) -> str:
    return open_client(home).get_run(run_id).info.experiment_id


def _log_all(
    client: "MlflowClient", run_id: str, settings: dict[str, str], metrics: list["Metric"],
    words: dict[str, str] | None = None,
) -> None:  # fmt: skip
    """Parameters, figures and tags in as few calls as MLflow allows: each is several commits."""
    from mlflow.entities import Param, RunTag

    params = [Param(name[:250], value) for name, value in settings.items()]
    tags = [RunTag(name, value) for name, value in (words or {}).items()]
    while params or metrics or tags:
        client.log_batch(run_id, metrics[:METRICS_PER_CALL], params[:WORDS_PER_CALL], tags[:WORDS_PER_CALL])
        params, metrics, tags = params[WORDS_PER_CALL:], metrics[METRICS_PER_CALL:], tags[WORDS_PER_CALL:]


@_harmless(None)
def finish(home: Path, run_id: str, status: str, summary: dict[str, Any]) -> None:
    """Close a parent run with `status` FINISHED, FAILED or KILLED; numbers of `summary` become metrics, the rest tags.

    Also keeps the registry's answer for the next process (`remember`): these are a run's last writes.
    """
    if not run_id:
        return
    client = open_client(home)
    flat = flatten(summary)
    numbers = {name: value for name, value in flat.items() if _number(value) is not None}
    words = {f"stillhouse.{name}"[:250]: flat[name][:5000] for name in sorted(set(flat) - set(numbers))}
    _log_all(client, run_id, {}, _metrics(numbers, 0, int(1000 * time.time())), words)
    client.set_terminated(run_id, status)
    remember(home)


@_harmless([])
def close_dead_runs(home: Path) -> list[str]:
    """Mark as KILLED the runs that processes of this machine left open when they died; returns their ids."""
    if is_fresh(home):
        return []
    client = open_client(home)
    closed = []
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    condition = f"attributes.status = 'RUNNING' AND tags.`{MACHINE}` = '{machine()}'"
    for run in client.search_runs(experiments, filter_string=condition) if experiments else []:
        pid, started = run.data.tags.get(PID, ""), run.data.tags.get(PROCESS, "")
        if pid.isdigit() and process_start(int(pid)) != started:
            client.set_terminated(run.info.run_id, "KILLED")
            closed.append(run.info.run_id)
    return closed


def flatten(value: Any, prefix: str = "") -> dict[str, str]:
    """Nested settings as `{"a.b": text}`, names as MLflow allows them; a list is one JSON text."""
    if isinstance(value, dict) and value:
        found: dict[str, str] = {}
        for name, item in value.items():
            clean = "".join(c if c.isalnum() or c in "_-. /" else "_" for c in str(name))
            found.update(flatten(item, f"{prefix}.{clean}" if prefix else clean))
        return found
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return {prefix: text} if prefix else {}


def curves(path: Path | None, timestamp_ms: int) -> tuple[list["Metric"], int]:
    """The points of a `metrics.jsonl`, one for each figure and line, and its last step (0 without a file)."""
    metrics: list[Metric] = []
    last = 0
    for line in _lines(path):
        step = int(line.get("step", last + 1))
        last = max(last, step)
        metrics += _metrics({name: value for name, value in line.items() if name != "step"}, step, timestamp_ms)
    return metrics, last


def _lines(path: Path | None) -> Iterator[dict[str, Any]]:
    if path is None or not path.is_file():
        return
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue  # a line cut short by a kill
        if isinstance(line, dict):
            yield line


def _metrics(values: dict[str, Any], step: int, timestamp_ms: int) -> list["Metric"]:
    from mlflow.entities import Metric

    found = []
    for name, value in flatten(values).items():
        number = _number(value)
        if number is not None:
            found.append(Metric(name, number, timestamp_ms, step))
    return found


def _number(text: str) -> float | None:
    if text in ("true", "false"):
        return float(text == "true")
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None

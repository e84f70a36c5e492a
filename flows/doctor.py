"""What is installed, what is wrong, what to do."""

import importlib.util
import shutil
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from flows.environment import has_server
from stillhouse.errors import StillhouseError
from stillhouse.home import make_home
from stillhouse.machine import fingerprint
from stillhouse.store import Store
from stillhouse.upkeep import verify_all

LOW_BYTES = 3 << 30
CORE = ("prefect", "mlflow", "onnxruntime", "tokenizers")
TRAIN = ("torch", "transformers", "datasets", "accelerate", "onnx")


def examine(home: Path) -> dict[str, Any]:
    """`{"home", "checks": [{name, ok, detail, fix}]}`; closes runs whose process is dead."""
    checks = [_python(), *(_library(name, "pip install stillhouse") for name in CORE)]
    checks += [_library(name, "pip install 'stillhouse[train]' to train; prediction works without") for name in TRAIN]
    cpu = fingerprint()
    checks.append(_check("processor", True, f"{cpu['cpu']}, {cpu['cores']} cores, {' '.join(cpu['flags']) or 'plain'}"))
    try:
        make_home(home)
        checks.append(_check("home", True, str(home)))
    except StillhouseError as error:
        return {"home": str(home), "checks": [*checks, _check("home", False, error.message, error.fix)]}
    free = shutil.disk_usage(home).free
    checks.append(_check("disk", free > LOW_BYTES, f"{free / 1e9:.1f} GB free", "Run `stillhouse store gc`"))
    report = verify_all(Store(home))
    detail = f"{report['checked']} checked, {len(report['damaged'])} damaged and set aside"
    checks.append(_check("store", not report["damaged"], detail, "Run the recipe again: it rebuilds what is missing"))
    checks.append(_dead_runs(home))
    return {"home": str(home), "checks": checks}


def _check(name: str, ok: bool, detail: str, fix: str = "") -> dict[str, Any]:
    return {"name": name, "ok": ok, "detail": detail, "fix": fix}


def _python() -> dict[str, Any]:
    version = ".".join(str(part) for part in sys.version_info[:3])
    return _check("python", sys.version_info >= (3, 11), version, "Use Python 3.11 or newer")


def _library(name: str, fix: str) -> dict[str, Any]:
    if importlib.util.find_spec(name) is None:
        return _check(name, name in TRAIN, "not installed", fix)
    return _check(name, True, metadata.version(name))


def _dead_runs(home: Path) -> dict[str, Any]:
    from tasks.tracking import close_dead_runs

    closed = close_dead_runs(home)
    if has_server():  # without one, the next run starts Prefect and closes them itself
        from tasks.dead_flow_runs import close_dead_flow_runs

        closed += close_dead_flow_runs()
    return _check("runs", True, f"{len(closed)} of dead processes closed" if closed else "none left open")

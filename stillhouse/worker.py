"""The process that does the heavy work: `python -m stillhouse.worker`, one job in, one artifact out.

It reads jobs as JSON lines from standard input and answers with JSON lines on what was its standard output. It ends
when its standard input closes, so it never outlives the run that started it, however that ends.
"""

import contextlib
import functools
import importlib
import json
import os
import queue
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from filelock import Timeout

from stillhouse.code_digest import code_digests
from stillhouse.errors import StillhouseError, UserError
from stillhouse.events import emit, reached
from stillhouse.files import write_text
from stillhouse.keys import library_versions
from stillhouse.method import Input, Job, Method, Source
from stillhouse.methods import METHODS, load_method
from stillhouse.store import Manifest, Store, derived_directory

PROGRESS_SECONDS = 0.2

Answer = Callable[..., None]


def main() -> None:
    """Serve jobs until standard input closes."""
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print belongs in the log, not in the protocol
    sys.stdout = sys.stderr
    jobs: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read_jobs, args=(jobs,), daemon=True).start()

    def answer(**fields: object) -> None:
        channel.write(json.dumps(fields) + "\n")
        channel.flush()

    while True:
        job = json.loads(jobs.get())
        if "import" in job:
            _import(job["import"])
            continue
        try:
            answer(event="done", **perform(job, answer))
        except BrokenPipeError:
            os._exit(1)
        except Exception as error:
            answer(event="failed", **describe(error))


def _import(modules: list[str]) -> None:
    """Ahead of the first job; what is missing, the step that needs it will say."""
    for name in modules:
        with contextlib.suppress(ImportError):
            importlib.import_module(name)


def _read_jobs(jobs: "queue.SimpleQueue[str]") -> None:
    for line in sys.stdin:
        jobs.put(line.strip())
    os._exit(0)


def describe(error: Exception) -> dict[str, str]:
    """`{type, message, fix}`; anything unforeseen is a bug, except what a retry may mend (memory, disk)."""
    if isinstance(error, StillhouseError):
        return {"type": error.type, "message": error.message, "fix": error.fix}
    import traceback

    traceback.print_exc()
    if isinstance(error, MemoryError) or _is_out_of_memory(error):
        return {"type": "worker", "message": "not enough memory", "fix": "Lower per_device_train_batch_size"}
    if isinstance(error, OSError) and error.errno in (28, 27, 122):  # no space, file too large, quota
        return {
            "type": "worker",
            "message": f"the disk is full: {error.strerror}",
            "fix": "Free some space and run again: it goes on from the last checkpoint",
        }
    return {"type": "bug", "message": f"{type(error).__name__}: {error}", "fix": "See logs/worker.log in the home"}


def _is_out_of_memory(error: Exception) -> bool:
    """torch has an error of its own on GPUs, and says it in words alone on CPUs."""
    return type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in str(error)


def perform(spec: dict[str, Any], answer: Answer) -> dict[str, Any]:
    """Run one job under its key's lock, unless another process made the artifact meanwhile."""
    store = Store(Path(spec["home"]))
    key = spec["key"]
    with _locked(store, key, "another run builds the same artifact", answer):
        reached(store.home, "store.locked", key=key, step=spec["step"])
        manifest = None if spec.get("rebuild") else store.hit(key, locked=True)
        if manifest is not None:
            return {"state": "cached", "seconds": 0.0}
        method = load_method(spec["method"]).model_validate(spec["settings"])
        machine = (
            _locked(store, "machine", "another run uses this machine", answer)
            if method.heavy and not spec.get("share_machine")
            else contextlib.nullcontext()
        )
        with machine:
            answer(event="started")
            manifest = _build(store, method, spec, answer)
    return {"state": "ran", "seconds": manifest["measured"]["seconds"]}


@contextlib.contextmanager
def _locked(store: Store, name: str, why: str, answer: Answer) -> Iterator[None]:
    lock = store.lock(name)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        answer(event="progress", done=0, total=0, note=f"waiting: {why}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _build(store: Store, method: Method, spec: dict[str, Any], answer: Answer) -> Manifest:
    key, home = spec["key"], store.home
    out, scratch = store.work(key) / "out", store.work(key) / "scratch"
    shutil.rmtree(out, ignore_errors=True)
    if spec.get("rebuild"):
        _begin_rebuild(store, key)
    out.mkdir(parents=True)
    scratch.mkdir(exist_ok=True)
    _reset(spec["seed"])
    _check_code(spec)
    derived: list[str] = []

    def derive(kind: str, settings: dict[str, Any], contents: list[str], build: Callable[[Path], None]) -> Path:
        parts = {
            "settings": settings, "contents": contents, "code": code_digests(build.__module__),
            "libraries": library_versions(_all_libraries()),
        }  # fmt: skip
        name, path = derived_directory(store, kind, parts, build)
        derived.append(name)
        return path

    inputs = {slot: [_input(store, item) for item in items] for slot, items in spec["inputs"].items()}
    sources = {name: Source(**source) for name, source in spec["sources"].items()}
    job = Job(
        out=out, scratch=scratch, seed=spec["seed"], inputs=inputs, sources=sources, lineage=_lineage(store, inputs),
        recipe=spec["recipe"], against=spec.get("against"), progress=_progress(answer),
        reached=lambda point, **fields: reached(home, point, key=key, step=spec["step"], **fields), derived=derive,
    )  # fmt: skip
    emit(home, "step.started", key=key, step=spec["step"], method=spec["method"])
    started = time.monotonic()
    metrics = method.run(job)
    seconds = time.monotonic() - started
    _check_sources(method, sources)
    _check_code(spec)
    manifest: Manifest = {
        "key": key, "kind": spec["kind"], "method": spec["method"], "step": spec["step"],
        "recipe": spec["recipe"].get("name"), "settings": spec["settings"], "seed": spec["seed"],
        "parts": spec["parts"], "metrics": metrics, "derived": sorted(set(derived)),
        "inputs": {s: [{"key": i.key, "kind": i.kind, "content": i.content} for i in v] for s, v in inputs.items()},
        "sources": {name: asdict(source) for name, source in sources.items()},
        "versions": library_versions(method.libraries),
        "measured": {"seconds": round(seconds, 3), "created": time.time()},
    }  # fmt: skip
    if store.path(key).exists():
        store.set_aside(store.path(key), "replaced by a rebuild")
    manifest = store.publish(key, manifest)
    emit(home, "step.finished", key=key, step=spec["step"], seconds=seconds)
    return manifest


@functools.cache
def _all_libraries() -> tuple[str, ...]:
    """What any method lists: methods share derived data, so its key must not depend on which of them asks first."""
    return tuple(sorted({library for name in METHODS for library in load_method(name).libraries}))


def _begin_rebuild(store: Store, key: str) -> None:
    """Throw away what was begun, unless it was begun to replace the artifact that is there now: then go on with it."""
    replaced = (store.manifest(key) or {}).get("digest", "")
    mark = store.work(key) / "rebuild-of"
    if not mark.is_file() or mark.read_text(encoding="utf-8") != replaced:
        shutil.rmtree(store.work(key) / "scratch", ignore_errors=True)
        store.work(key).mkdir(parents=True, exist_ok=True)
        write_text(mark, replaced)


def _check_code(spec: dict[str, Any]) -> None:
    """Refuse to publish under a key what other code than the key's computed: modules are imported when first needed."""
    now = code_digests(load_method(spec["method"]).__module__)
    planned = spec["parts"]["code"]
    if now != planned:
        changed = next(name for name in sorted(now.keys() | planned.keys()) if now.get(name) != planned.get(name))
        raise UserError(f"the code of {changed} was changed while the run was under way", "Run again")


def _reset(seed: int) -> None:
    """The same start for every job, whatever ran before it in this process."""
    random.seed(seed)
    if "numpy" in sys.modules:
        import numpy

        numpy.random.seed(seed % 2**32)
    if "torch" in sys.modules:
        import torch

        from stillhouse.scoring import default_threads

        torch.manual_seed(seed)
        torch.set_num_threads(default_threads())
        torch.set_default_dtype(torch.float32)
        torch.set_grad_enabled(True)


def _input(store: Store, item: dict[str, str]) -> Input:
    manifest = store.hit(item["key"])
    if manifest is None:
        raise UserError(f"the input {item['key'][:12]} is gone from the store", "Run again: it will be rebuilt")
    return Input(store.path(item["key"]), item["key"], item["kind"], manifest["content"])


def _lineage(store: Store, inputs: dict[str, list[Input]]) -> list[Manifest]:
    found: dict[str, Manifest] = {}
    for item in (item for items in inputs.values() for item in items):
        found.update({manifest["key"]: manifest for manifest in store.lineage(item.key)})
    return list(found.values())


def _progress(answer: Answer) -> Callable[..., None]:
    last = [0.0]

    def progress(done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if now - last[0] >= PROGRESS_SECONDS or done >= total:
            last[0] = now
            answer(event="progress", done=done, total=total, note=note)

    return progress


def _check_sources(method: Method, sources: dict[str, Source]) -> None:
    """Refuse to publish what was computed from files that changed underneath."""
    from stillhouse.source import DigestMemo, resolve_source

    for name, source in sources.items():
        if source.path is None:
            continue
        now = resolve_source(source.path, method.external[name], Path.cwd(), {}, DigestMemo(None))
        if now.digest != source.digest:
            raise UserError(f'"{name}": {source.name} changed while it was read', "Run again when it is complete")


if __name__ == "__main__":
    main()

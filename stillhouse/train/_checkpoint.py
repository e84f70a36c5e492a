"""Checkpoints of a training run: safetensors and JSON, a manifest of digests last, nothing pickled.

`checkpoint-<step>/` holds `*.safetensors` and `state.json`; the best weights so far are large and change seldom, so
they lie beside as `best-<sha256>.safetensors` and the state names them.
"""

import json
import os
import shutil
from collections.abc import Callable
from errno import EDQUOT, ENOSPC
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save

from stillhouse.errors import UserError
from stillhouse.files import flush, read_json, write_json

Tensors = dict[str, torch.Tensor]
KEPT = 2
"""Should the newest checkpoint be damaged, the one before it is a few minutes older."""
MANIFEST = "manifest.json"


class Damaged(Exception):
    """A checkpoint that is incomplete or not what its manifest says."""


def save_checkpoint(
    scratch: Path, step: int, parts: dict[str, Tensors], state: dict[str, Any], reached: Callable[..., None]
) -> None:
    """Write a checkpoint of `parts` (file stem to tensors) and `state`; part `best` is stored once per content."""
    directory = scratch / f"checkpoint-{step:09d}"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    try:
        best = save(parts["best"])
        digest = sha256(best).hexdigest()
        if not (scratch / f"best-{digest}.safetensors").exists():
            _write(scratch / f"best-{digest}.safetensors", best, lambda: None)
        contents = {f"{name}.safetensors": save(tensors) for name, tensors in parts.items() if name != "best"}
        contents["state.json"] = json.dumps({**state, "best_digest": digest}, allow_nan=False).encode()
        for name, content in contents.items():
            _write(directory / name, content, lambda: reached("train.checkpoint.writing"))
        write_json(directory / MANIFEST, {name: sha256(content).hexdigest() for name, content in contents.items()})
        flush(scratch)
    except OSError as error:
        shutil.rmtree(directory, ignore_errors=True)
        if not is_disk_full(error):
            raise
        raise UserError(
            f"no space left on the disk for a checkpoint in {scratch}",
            "free some space and run again: training goes on from the last complete checkpoint",
        ) from error
    reached("train.checkpoint", at=step)
    _prune(scratch)


def is_disk_full(error: Exception) -> bool:
    """Whether writing failed for want of space; safetensors says so in words only."""
    if isinstance(error, OSError):
        return error.errno in (ENOSPC, EDQUOT)
    return isinstance(error, SafetensorError) and "No space left" in str(error)


def load_newest(scratch: Path, reached: Callable[..., None]) -> tuple[dict[str, Tensors], dict[str, Any]] | None:
    """Parts and state of the newest valid checkpoint; damaged ones are moved aside and reported. None: start afresh."""
    for directory in reversed(_checkpoints(scratch)):
        try:
            return _read(directory)
        except Damaged:
            aside = scratch / f"damaged-{directory.name}"
            shutil.rmtree(aside, ignore_errors=True)
            directory.rename(aside)
            reached("train.checkpoint.damaged")
    return None


def _read(directory: Path) -> tuple[dict[str, Tensors], dict[str, Any]]:
    try:
        manifest = read_json(directory / MANIFEST)
        contents = {name: _verified(directory / name, digest) for name, digest in manifest.items()}
        state = json.loads(contents.pop("state.json"))
        digest = state["best_digest"]
        contents["best.safetensors"] = _verified(directory.parent / f"best-{digest}.safetensors", digest)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise Damaged(str(error)) from error
    return {name.removesuffix(".safetensors"): load(content) for name, content in contents.items()}, state


def _verified(path: Path, digest: str) -> bytes:
    content = path.read_bytes()
    if sha256(content).hexdigest() != digest:
        raise Damaged(f"{path} is not what was written")
    return content


def _write(path: Path, content: bytes, halfway: Callable[[], None]) -> None:
    """Write under a temporary name, flush to the disk, rename."""
    beside = path.with_name(f".{path.name}")
    middle = len(content) // 2
    with beside.open("wb") as file:
        file.write(content[:middle])
        file.flush()
        halfway()
        file.write(content[middle:])
        file.flush()
        os.fsync(file.fileno())
    os.replace(beside, path)


def _prune(scratch: Path) -> None:
    """Keep the newest checkpoints and the best weights that they name."""
    checkpoints = _checkpoints(scratch)
    for directory in checkpoints[:-KEPT]:
        shutil.rmtree(directory)
    named: set[str] = set()
    for directory in checkpoints[-KEPT:]:
        try:
            named.add(f"best-{read_json(directory / 'state.json')['best_digest']}.safetensors")
        except (OSError, ValueError, KeyError):
            continue  # a torn checkpoint: the next resume moves it aside
    for path in [*scratch.glob("best-*.safetensors"), *scratch.glob(".best-*.safetensors")]:
        if path.name not in named:
            path.unlink()


def remove_checkpoints(scratch: Path) -> None:
    """Forget what was begun."""
    for directory in _checkpoints(scratch):
        shutil.rmtree(directory)
    for path in scratch.glob("best-*.safetensors"):
        path.unlink()


def _checkpoints(scratch: Path) -> list[Path]:
    return sorted(scratch.glob("checkpoint-*"))

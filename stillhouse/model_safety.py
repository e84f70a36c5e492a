"""What a model directory must look like before anything opens its weights."""

import json
from pathlib import Path
from typing import Any

from stillhouse.errors import UserError
from stillhouse.files import read_json

_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_CODE_KEYS = ("auto_map", "trust_remote_code", "_attn_implementation_internal")
_KERNEL_KEYS = ("attn_implementation", "_attn_implementation")
_LARGEST_HEADER = 100_000_000


def check_model_directory(path: Path) -> None:
    """Refuse a model whose loading could run code: plain configurations and real safetensors weights may pass.

    Links are followed: the Hub's own cache is made of them.
    """
    if not path.is_dir():
        raise UserError(f"{path} is not a model directory", "Name the directory that save_pretrained wrote")
    if not (path / "config.json").is_file():
        raise UserError(f"{path} has no config.json", "Name the directory that save_pretrained wrote")
    files = sorted(file for file in path.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    code = next((file.name for file in files if file.suffix == ".py"), None)
    if code:
        raise UserError(f"{path} brings code ({code}), which is never run", "Use a model that needs no own code")
    for config in (file for file in files if file.name.endswith("config.json")):
        _check_config(config)
    _check_weights(path, [file.name for file in files])
    for file in (file for file in files if file.suffix == ".safetensors"):
        _check_header(file)


def _check_weights(path: Path, names: list[str]) -> None:
    """The file that transformers opens must be safetensors, so it must have the name that is looked for first."""
    if (path / _WEIGHTS).is_file():
        return
    if (path / _INDEX).is_file():
        index = _read_object(path / _INDEX).get("weight_map")
        shards = set(index.values()) if isinstance(index, dict) else {"nothing"}
        wrong = sorted(str(name) for name in shards if not _is_shard(path, name))
        if wrong:
            raise UserError(f"{path / _INDEX} names {wrong[0]}, which is not a shard beside it", "Save the model again")
        return
    pickles = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".h5", ".msgpack")
    other = next((name for name in names if name.lower().endswith(pickles)), None)
    found = f"only {other}, which can run code when it is opened" if other else f"no {_WEIGHTS}"
    raise UserError(f"{path} has {found}", "Save the model again with save_pretrained, which writes safetensors")


def _is_shard(path: Path, name: Any) -> bool:
    beside = isinstance(name, str) and name == Path(name).name
    return beside and name.endswith(".safetensors") and (path / name).is_file()


def _check_config(path: Path) -> None:
    """No key may ask for code, at any depth (models of several parts nest their configurations)."""
    parts: list[Any] = [_read_object(path)]
    while parts:
        part = parts.pop()
        if isinstance(part, list):
            parts.extend(part)
        if not isinstance(part, dict):
            continue
        wanted = [key for key in _CODE_KEYS if part.get(key)]
        # "owner/name" as an attention implementation downloads a compiled kernel and runs it.
        wanted += [key for key in _KERNEL_KEYS if "/" in str(part.get(key))]
        if wanted:
            raise UserError(f'{path} asks for own code ("{wanted[0]}"), which is never run', "Use a model without it")
        parts.extend(part.values())


def _check_header(path: Path) -> None:
    """A safetensors file starts with the length of a JSON header (8 bytes, little endian) and that header."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        try:
            valid = 2 <= length <= min(size - 8, _LARGEST_HEADER) and isinstance(json.loads(file.read(length)), dict)
        except (ValueError, RecursionError):
            valid = False
    if not valid:
        raise UserError(f"{path} is not a safetensors file, whatever its name says", "Save the model again")


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except (OSError, ValueError, RecursionError):
        value = None
    # A list is what sentence-transformers may write; it configures no loading.
    if not isinstance(value, dict | list):
        raise UserError(f"{path} is not a JSON object", "Download or save the model again")
    return value if isinstance(value, dict) else {"parts": value}

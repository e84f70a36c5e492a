"""The work directory of a batch prediction, beside its output: finished chunks, and what they belong to.

`job.json` is the identity of the work and the model it began with; `progress.json`, replaced after each chunk, says
which chunks count. A chunk that it does not name is written again. Gone when the output is in its place.
"""

import contextlib
import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stillhouse.errors import UserError
from stillhouse.files import read_json, write_json
from stillhouse.keys import digest

WORDS = {"input": "the input changed", "libraries": "libraries have other versions"}


class Work:
    """`directory` and what is in it; use inside `locked()`."""

    def __init__(self, output: Path) -> None:
        if not output.name:
            raise UserError(f'the output "{output}" names no file', "Name one")
        self.output = output
        self.directory = output.with_name(f".{output.name}.stillhouse")

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time: a kernel lock, gone with its holder. Without a finished chunk nothing is kept."""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"cannot write {self.output}: {error.strerror}", "Name another --output") from None
        try:
            with FileLock(self.directory / "lock", timeout=0):
                try:
                    yield
                finally:
                    if self.directory.is_dir() and not (self.directory / "progress.json").exists():
                        self.remove()
        except Timeout:
            raise UserError(
                f"another process is writing {self.output}", "Wait for it, or name another --output"
            ) from None

    def pinned(self, spec: str) -> str | None:
        """The version that a run begun with the model `spec` stays with, as `name/version`."""
        job = self._read("job.json") or {}
        return job.get("pinned") if job.get("spec") == spec else None

    def begin(self, spec: str, pinned: str | None, identity: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """(progress, why earlier work cannot be used; "" where there is none or it can)."""
        before, wrong = self._read("job.json"), ""
        if before is not None:
            progress = self._read("progress.json") or {}
            wrong = _difference(before.get("identity"), identity) or self._damage(progress)
            if not wrong:
                return progress, ""
        self._clear()
        write_json(self.directory / "job.json", {"spec": spec, "pinned": pinned, "identity": identity})
        return {}, wrong

    def chunk(self, index: int, suffix: str) -> Path:
        return self.directory / f"chunk-{index:06d}{suffix}"

    def commit(self, progress: dict[str, Any]) -> None:
        """From here on the chunks that `progress` names count."""
        write_json(self.directory / "progress.json", progress)

    def remove(self) -> None:
        """Whole at once: half a work directory must not look like work."""
        gone = tempfile.mkdtemp(prefix=f"{self.directory.name}.done.", dir=self.directory.parent)
        os.replace(self.directory, gone)
        for path in self.directory.parent.glob(f"{glob.escape(self.directory.name)}.done.*"):  # and what a kill left
            shutil.rmtree(path, ignore_errors=True)

    def _read(self, name: str) -> dict[str, Any] | None:
        try:
            found = read_json(self.directory / name)
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) else None

    def _damage(self, progress: dict[str, Any]) -> str:
        for name, size in progress.get("chunks", []):
            path = self.directory / name
            if not path.is_file() or path.stat().st_size != size:
                return "finished chunks are damaged"
        return ""

    def _clear(self) -> None:
        for path in self.directory.iterdir():
            if path.name.startswith(("chunk-", "job.json", "progress.json")):
                path.unlink()


def run_id(identity: dict[str, Any]) -> str:
    """Equal work has an equal name, so that the log takes the rows of the same work done twice as the same rows."""
    return digest(identity)[:16]


def _difference(before: Any, now: dict[str, Any]) -> str:
    if before == now:
        return ""
    if not isinstance(before, dict):
        return "its record is damaged"
    changed = next((name for name in now if before.get(name) != now[name]), "")
    if changed == "model":
        return f"it began with another model ({before['model']['title']})"
    if changed == "settings":
        names = [name for name, value in now["settings"].items() if before["settings"].get(name) != value]
        return f"other settings: {', '.join(names)}"
    return WORDS.get(changed, "its record is damaged")

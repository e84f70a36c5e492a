"""The store: finished artifacts by key, published whole or not at all, verified before they are used.

Layout under `HOME/store`: `artifacts/KEY/` and `derived/NAME/` (finished), `work/KEY/` (being built), `damaged/` (set
aside), `locks/`. A directory counts as finished when its `manifest.json` is there; the manifest is written last.
"""

import contextlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from stillhouse.events import emit, reached
from stillhouse.files import flush, read_json, write_json
from stillhouse.keys import content_digest, digest, file_digest

MANIFEST = "manifest.json"
FULL_CHECK_BYTES = 2 << 30
"""Larger files are checked by size and time at a hit, by content in `verify`."""

Manifest = dict[str, Any]
_verified: dict[Path, int] = {}


class Store:
    """Artifacts of one home. Cheap to make; holds no open file."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "store"

    def path(self, key: str) -> Path:
        return self.root / "artifacts" / key

    def work(self, key: str) -> Path:
        """Where the holder of the key's lock builds; kept after a failure, so that it can go on."""
        return self.root / "work" / key

    def lock(self, name: str) -> FileLock:
        """A kernel lock: it is gone with its holder, however that ends."""
        directory = self.root / "locks"
        directory.mkdir(parents=True, exist_ok=True)
        return FileLock(directory / f"{name[:40]}.lock")

    def check(self, key: str) -> tuple[Manifest | None, str]:
        """The manifest of a sound artifact, or None and what is wrong; changes nothing."""
        return check_directory(self.path(key))

    def hit(self, key: str, *, locked: bool = False) -> Manifest | None:
        """The manifest of a sound artifact; a damaged one is set aside, with an event, and is a miss.

        A hit is a use: the manifest's time says when the last one was, for `store gc`. `locked`: the caller holds the
        key's lock.
        """
        manifest, wrong = self.check(key)
        if wrong and locked:
            self.set_aside(self.path(key), wrong)
        elif wrong:
            self.set_aside_damaged(self.path(key), key)
        elif manifest is not None:
            with contextlib.suppress(OSError):  # a home that may only be read
                os.utime(self.path(key) / MANIFEST)
        return manifest

    def publish(self, key: str, manifest: Manifest) -> Manifest:
        """Move `work/KEY/out` into place with its manifest; the caller holds the key's lock."""
        manifest = publish_directory(self.work(key) / "out", self.path(key), manifest, self.home)
        shutil.rmtree(self.work(key), ignore_errors=True)
        return manifest

    def set_aside(self, path: Path, why: str) -> None:
        """Move a directory out of the way, whatever is in it; the caller holds its lock."""
        aside = self.root / "damaged" / f"{path.name[:40]}-{time.time_ns()}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        os.replace(path, aside)
        emit(self.home, "store.damaged", name=path.name, why=why, moved_to=str(aside))

    def set_aside_damaged(self, path: Path, lock: str, *, full: bool = False) -> str:
        """What is wrong with a directory that looked damaged, once more under its lock; it is out of the way then.

        "" when it is sound by now, or gone, or when somebody holds the lock and is about to replace it.
        """
        try:
            with self.lock(lock).acquire(timeout=0):
                wrong = check_directory(path, full=full)[1]
                if wrong:
                    self.set_aside(path, wrong)
                return wrong
        except Timeout:
            return ""

    def list_keys(self) -> Iterator[str]:
        """Keys of all finished artifacts, the newest first."""
        directory = self.root / "artifacts"
        times: dict[str, int] = {}
        for path in directory.iterdir() if directory.is_dir() else []:
            with contextlib.suppress(OSError):  # half removed, or just gone
                times[path.name] = (path / MANIFEST).stat().st_mtime_ns
        yield from sorted(times, key=lambda name: -times[name])

    def manifest(self, key: str) -> Manifest | None:
        """The manifest as it stands, unchecked, also of an artifact that was thinned out; None when there is none."""
        found = _read_manifest(self.path(key))
        if found is None:
            kept = self.root / "manifests" / f"{key}.json"
            found = read_json(kept) if kept.is_file() else None
        return found

    def rebuilt_input(self, manifest: Manifest) -> str:
        """The slot whose artifact was rebuilt with other content after it fed `manifest`'s artifact; else ""."""
        for slot, items in manifest["inputs"].items():
            for item in items:
                now = self.manifest(item["key"])
                if now is not None and now["content"] != item["content"]:
                    return slot
        return ""

    def lineage(self, key: str) -> list[Manifest]:
        """Manifests of all ancestors of `key` and its own, inputs before what they feed."""
        found: dict[str, Manifest] = {}

        def visit(name: str) -> None:
            manifest = None if name in found else self.manifest(name)
            if manifest is None:
                return
            for inputs in manifest["inputs"].values():
                for item in inputs:
                    visit(item["key"])
            found[name] = manifest

        visit(key)
        return list(found.values())


def publish_directory(built: Path, final: Path, manifest: Manifest, home: Path) -> Manifest:
    """Describe `built` in a manifest, flush everything to the disk, rename to `final`. Atomic."""
    files = {}
    for path in sorted(p for p in built.rglob("*") if p.is_file()):
        flush(path)
        status = path.stat()
        files[path.relative_to(built).as_posix()] = {
            "sha256": file_digest(path), "bytes": status.st_size, "mtime_ns": status.st_mtime_ns,
        }  # fmt: skip
    manifest = {**manifest, "files": files}
    manifest["content"] = content_digest(built, {name: entry["sha256"] for name, entry in files.items()})
    manifest["digest"] = digest(manifest)
    reached(home, "store.before-manifest", name=final.name)
    write_json(built / MANIFEST, manifest)
    flush(built)
    final.parent.mkdir(parents=True, exist_ok=True)
    reached(home, "store.before-rename", name=final.name)
    os.rename(built, final)
    flush(final.parent)
    reached(home, "store.after-rename", name=final.name)
    _verified[final] = final.stat().st_ino
    return manifest


def check_directory(path: Path, *, full: bool = False) -> tuple[Manifest | None, str]:
    """The manifest when every file is as published, else None and what differs ("" when there is nothing)."""
    if not path.is_dir():
        return None, ""
    manifest = _read_manifest(path)
    if manifest is None:
        return None, f"{MANIFEST} is missing or unreadable"
    if not full and _verified.get(path) == path.stat().st_ino:
        return manifest, ""
    if digest({key: value for key, value in manifest.items() if key != "digest"}) != manifest.get("digest"):
        return None, f"{MANIFEST} was changed"
    for name, entry in manifest["files"].items():
        wrong = _check_file(path / name, entry, full=full)
        if wrong:
            return None, f"{name} {wrong}"
    _verified[path] = path.stat().st_ino
    return manifest, ""


def _check_file(path: Path, entry: dict[str, Any], *, full: bool) -> str:
    try:
        status = path.stat()
        if status.st_size != entry["bytes"]:
            return f"has {status.st_size:,} bytes instead of {entry['bytes']:,}"
        if not full and status.st_size > FULL_CHECK_BYTES and status.st_mtime_ns == entry["mtime_ns"]:
            return ""
        return "" if file_digest(path) == entry["sha256"] else "was changed"
    except OSError as error:
        return f"cannot be read ({error.strerror})"


def _read_manifest(path: Path) -> Manifest | None:
    try:
        manifest = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return manifest if isinstance(manifest, dict) and isinstance(manifest.get("files"), dict) else None


def derived_lock(name: str) -> str:
    """The lock of derived data."""
    return f"derived-{digest(name)[:24]}"


def derived_directory(
    store: Store, kind: str, parts: dict[str, Any], build: Callable[[Path], None]
) -> tuple[str, Path]:
    """`(name, directory)` of derived data with these parts; built under its lock when it is missing or damaged."""
    name = f"{kind}-{digest({'kind': kind, **parts})[:40]}"
    final = store.root / "derived" / name
    with store.lock(derived_lock(name)):
        manifest, wrong = check_directory(final)
        if wrong:
            store.set_aside(final, wrong)
        if manifest is None:
            work = store.root / "work" / name
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir(parents=True)
            try:
                build(work)
            except BaseException:
                shutil.rmtree(work, ignore_errors=True)
                raise
            publish_directory(work, final, {"kind": kind, "parts": parts, "created": time.time()}, store.home)
    os.utime(final)  # the time of last use, for eviction
    return name, final

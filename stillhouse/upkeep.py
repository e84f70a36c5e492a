"""Looking after a store: verify everything, free space, find a key."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

from filelock import Timeout

from stillhouse.errors import UserError
from stillhouse.files import write_json
from stillhouse.store import MANIFEST, Store, check_directory, derived_lock

DAY_SECONDS = 86_400.0


def verify_all(store: Store) -> dict[str, Any]:
    """Re-hash every file of every artifact and of all derived data; what is damaged is set aside."""
    damaged, checked = [], 0
    for group in ("artifacts", "derived"):
        for path in _children(store.root / group):
            checked += 1
            _, wrong = check_directory(path, full=True)
            if wrong:
                lock = path.name if group == "artifacts" else derived_lock(path.name)
                wrong = store.set_aside_damaged(path, lock, full=True)
            if wrong:
                damaged.append({"name": path.name, "kind": group, "why": wrong})
    return {"checked": checked, "damaged": damaged}


def find_key(store: Store, beginning: str) -> str:
    """The one key that begins so."""
    found = [key for key in store.list_keys() if key.startswith(beginning.lower())] if beginning else []
    if len(found) == 1:
        return found[0]
    if not found:
        raise UserError(f'no artifact "{beginning}"', "`stillhouse plan RECIPE` shows the keys")
    raise UserError(f'{len(found)} artifacts begin with "{beginning}"', "Give more of the key")


def collect_garbage(
    store: Store, full: set[str], light: set[str], days: float, *, dry_run: bool = False
) -> dict[str, Any]:
    """Remove what nobody needs; `{"removed": [names], "bytes"}`.

    `full`: keys whose whole lineage stays (releases in use). `light`: keys of older releases, of whose lineage the
    manifests and the data stay. Everything made or used within `days` stays too. A step that runs must not lose its
    inputs: while one does, nothing is removed (`UserError`).
    """
    if not 0 <= days < float("inf"):  # also what is no number
        raise UserError(f"{days} days are no time to keep things", "Give 0 or more")
    if dry_run:
        return _collect(store, full, light, days, dry_run=True)
    try:
        with store.lock("machine").acquire(timeout=0):
            return _collect(store, full, light, days, dry_run=False)
    except Timeout:
        raise UserError("a run is under way in this home", "Free space when it is done") from None


def _collect(store: Store, full: set[str], light: set[str], days: float, *, dry_run: bool) -> dict[str, Any]:
    now = time.time()
    keep = {manifest["key"] for key in full for manifest in store.lineage(key)} | full
    thin = {manifest["key"]: manifest["kind"] for key in light for manifest in store.lineage(key)}
    oldest = now - days * DAY_SECONDS
    victims: list[tuple[str, Path]] = [("", path) for path in _children(store.root / "damaged")]
    victims += [(path.name, path) for path in _children(store.root / "work") if _last_use(path) < oldest]
    for path in _children(store.root / "derived"):
        if _last_use(path) < oldest:
            victims.append((derived_lock(path.name), path))
    thinned: list[Path] = []
    for path in _children(store.root / "artifacts"):
        if path.name in keep or _last_use(path) >= oldest:
            continue
        if path.name not in thin:
            victims.append((path.name, path))
        elif thin[path.name] != "data":
            thinned.append(path)
    sizes = {path: size_of(path) for _, path in victims}
    sizes |= {path: size_of(path) for path in thinned}
    removed = [path for lock, path in victims if dry_run or _remove(store, lock, path, oldest)]
    removed += [path for path in thinned if dry_run or _thin(store, path, oldest)]
    return {"removed": [path.name for path in removed], "bytes": sum(sizes[path] for path in removed)}


def _remove(store: Store, lock_name: str, path: Path, oldest: float) -> bool:
    """Move out of sight, then delete, so that a kill in between leaves no half artifact; False when it is in use.

    In use: somebody builds it, or has used it since it was chosen for removal.
    """
    if not lock_name:
        shutil.rmtree(path, ignore_errors=True)
        return True
    try:
        with store.lock(lock_name).acquire(timeout=0):
            if _last_use(path) >= oldest:
                return False
            aside = store.root / "damaged" / f"removed-{path.name[:40]}-{time.time_ns()}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, aside)
    except (Timeout, FileNotFoundError):
        return False
    shutil.rmtree(aside, ignore_errors=True)
    return True


def _thin(store: Store, path: Path, oldest: float) -> bool:
    """Keep the manifest, so that an old release still knows what it was made of; remove the rest."""
    manifest = store.manifest(path.name)
    if manifest is None:
        return False
    kept = store.root / "manifests" / f"{path.name}.json"
    kept.parent.mkdir(parents=True, exist_ok=True)
    write_json(kept, manifest)
    return _remove(store, path.name, path, oldest)


def _children(directory: Path) -> list[Path]:
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _last_use(path: Path) -> float:
    """When a directory was made or last used; seconds since the epoch. A hit touches the manifest or the directory."""
    times = [each.stat().st_mtime for each in (path, path / MANIFEST) if each.exists()]
    return max(times, default=time.time())


def size_of(path: Path) -> int:
    """Bytes of a file or of everything in a directory."""
    if path.is_file():
        return path.stat().st_size
    return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())

"""The landing place: where new files arrive, a folder or any URL that fsspec lists. Which of them are complete.

A file counts as complete when its size and time stay the same for two seconds. Names that begin with a dot or an
underscore, or end as an unfinished transfer does, are not looked at: who writes slowly writes under such a name and
renames. An object store shows an object only when it is whole.
"""

import errno
import os
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from stillhouse.data._tables import SUFFIXES
from stillhouse.errors import UserError
from stillhouse.files import flush

SETTLE_SECONDS = 2.0
UNFINISHED = (".part", ".partial", ".tmp", ".crdownload", ".filepart", "~")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://")


@dataclass(frozen=True)
class Arrival:
    """A file in the landing place."""

    name: str
    """Relative to the landing place."""
    address: str
    """Its path, or its URL."""
    local: bool
    stamp: tuple[Any, ...]
    """What changes while it is written."""
    modified: float | None
    """Epoch seconds, if the place says them."""
    link: bool = False


@dataclass(frozen=True)
class Landed:
    complete: list[Arrival]
    waiting: list[str]
    """Names of files that are still being written."""
    ignored: list[str]
    """Names of files of no known format."""
    links: list[str]
    """Names of symbolic links: what they point to belongs elsewhere."""


def look(landing: str | Path, sleep: Callable[[float], None] = time.sleep) -> Landed:
    """What lies in `landing`, sorted by name; a place that is not there yet is empty."""
    place = str(landing)
    listed = _list(place)
    found = [one for one in listed if not one.link]
    known = [one for one in found if Path(one.name).suffix.lower() in SUFFIXES]
    young = {one.address for one in known if not _settled(one)}
    if young:
        sleep(SETTLE_SECONDS)
        again = {one.address: one for one in _list(place)}
        young = {one.address for one in known if one.address in young and again.get(one.address) != one}
    return Landed(
        [one for one in known if one.address not in young],
        [one.name for one in known if one.address in young],
        [one.name for one in found if one not in known],
        [one.name for one in listed if one.link],
    )


def _settled(arrival: Arrival) -> bool:
    return arrival.modified is not None and time.time() - arrival.modified >= SETTLE_SECONDS


def is_local(place: str) -> bool:
    return place.startswith("file://") or not _URL.match(place)


def local_path(place: str) -> Path:
    return Path(unquote(urlsplit(place).path)) if place.startswith("file://") else Path(place).expanduser()


def _list(place: str) -> list[Arrival]:
    found = _list_local(local_path(place)) if is_local(place) else _list_remote(place)
    kept = [one for one in found if not any(_hidden(part) for part in Path(one.name).parts)]
    return sorted(kept, key=lambda one: one.name)


def _hidden(name: str) -> bool:
    return name.startswith((".", "_")) or name.lower().endswith(UNFINISHED)


def _list_local(root: Path) -> list[Arrival]:
    if root.exists() and not root.is_dir():
        raise UserError(f"the landing place {root} is not a folder", "Name a folder, or the URL of one")
    found = []
    for directory, _, names in os.walk(root):
        for name in names:
            path = Path(directory) / name
            try:
                link = path.is_symlink()
                if not link and not path.is_file():
                    continue
                stamp, modified = stamp_of(path), path.lstat().st_mtime
            except OSError:
                continue  # gone meanwhile: another process was faster
            relative = os.fsencode(path.relative_to(root).as_posix()).decode(errors="backslashreplace")
            found.append(Arrival(relative, str(path), True, stamp, modified, link))
    return found


def stamp_of(path: Path) -> tuple[int, int, int]:
    """What changes when a file of this machine is written or replaced."""
    status = path.lstat()
    return status.st_size, status.st_mtime_ns, status.st_ino


def _list_remote(place: str) -> list[Arrival]:
    import fsspec

    try:
        filesystem, root = fsspec.core.url_to_fs(place)
        filesystem.ls(root)  # `find` takes a server that does not answer for an empty place
        listed = filesystem.find(root, detail=True)
    except ImportError as error:
        raise UserError(f"cannot list {place}: {error}", "Install the package it names") from None
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"cannot list {place}: {reason}", "Check the address, its credentials and the network"
        ) from None
    found = []
    for path, info in listed.items():
        times = [info[key] for key in ("LastModified", "mtime", "last_modified", "created") if info.get(key)]
        modified = next((float(t.timestamp() if hasattr(t, "timestamp") else t) for t in times[:1]), None)
        name = path[len(root) :].lstrip("/") or Path(path).name
        stamp = (info.get("size"), info.get("ETag"), modified)
        found.append(Arrival(name, filesystem.unstrip_protocol(path), False, stamp, modified))
    return found


def move(path: Path, target: Path) -> bool:
    """Move a file, also to another disk; a kill leaves it in one of both places, whole. An equal name is not lost.

    False, and nothing is done, where the file cannot be taken away.
    """
    if not os.access(path.parent, os.W_OK):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    chosen, count = target, 1
    while chosen.exists():
        count += 1
        chosen = target.with_name(f"{target.stem}.{count}{target.suffix}")
    try:
        os.replace(path, chosen)
    except FileNotFoundError:
        pass  # another process moved it
    except PermissionError:  # it is another user's
        return False
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        beside = chosen.with_name(f".{chosen.name}.{os.getpid()}")
        shutil.copy2(path, beside)
        flush(beside)
        os.replace(beside, chosen)
        flush(chosen.parent)
        try:
            path.unlink(missing_ok=True)
        except OSError:
            chosen.unlink()
            return False
    return True

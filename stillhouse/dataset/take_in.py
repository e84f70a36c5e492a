"""Take all complete files of a landing place into a data set: added, or refused as a whole; either way kept."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stillhouse.dataset.data_set import DataSet
from stillhouse.dataset.intake import Added, NotTheFile, Unfinished, add_file, refuse
from stillhouse.dataset.judge import Columns, Schema
from stillhouse.dataset.landing import Arrival, look, move, stamp_of
from stillhouse.errors import UserError
from stillhouse.events import reached
from stillhouse.keys import file_digest
from stillhouse.source import DigestMemo, fetch_url, resolve_source

ANY = Columns(None, None, None)


@dataclass
class TakenIn:
    added: list[Added] = field(default_factory=list)
    """What is new; `known` files are only moved."""
    refused: dict[str, str] = field(default_factory=dict)
    """Name of a file that cannot be read at all → why."""
    waiting: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    left: dict[str, str] = field(default_factory=dict)
    """Name of another file that stays in its folder → why."""

    @property
    def rows(self) -> int:
        return sum(entry["rows"] for entry in self.added)

    def told(self) -> dict[str, Any]:
        """What there is to tell, for the account of a retraining."""
        added = [{key: entry[key] for key in ("number", "source", "rows", "rejected")} for entry in self.added]
        found = {
            "added": added, "refused_files": self.refused, "waiting": self.waiting, "ignored": self.ignored,
            "left": self.left,
        }  # fmt: skip
        return {key: value for key, value in found.items() if value}


def take_in(data_set: DataSet, landing: str | Path, schema: Schema) -> TakenIn:
    """Files of a folder move to `received/` or `refused/` once the data set lists them; those behind a URL stay there,
    and are known by content. Two processes may do this at once: each file is added by one of them."""
    landed = look(landing)
    taken = TakenIn(waiting=landed.waiting, ignored=landed.ignored)
    taken.left = dict.fromkeys(landed.links, "a symbolic link: put the file itself here")
    memo = DigestMemo(data_set.root / "seen.json")
    for arrival in landed.complete:
        try:
            _take(data_set, arrival, schema, memo, taken)
        except FileNotFoundError:
            continue  # another process took it
    if memo.computed:
        memo.save()
    return taken


def _take(data_set: DataSet, arrival: Arrival, schema: Schema, memo: DigestMemo, taken: TakenIn) -> None:
    if arrival.local:
        path = Path(arrival.address)
        try:
            path.open("rb").close()
        except PermissionError:
            taken.left[arrival.name] = "it cannot be read: permission denied"
            return
    else:
        source = resolve_source(arrival.address, "data", Path.cwd(), {}, memo)
        if data_set.known(source.digest.partition(".")[0]) is not None:
            return
        path = fetch_url(source, data_set.root / "downloads")
    try:
        added = add_file(data_set, path, schema, ANY, arrival.name)
    except Unfinished:
        taken.waiting.append(arrival.name)
        return
    except NotTheFile:
        raise
    except (UserError, ValueError, OverflowError, RecursionError) as error:
        if arrival.local and stamp_of(path) != arrival.stamp:
            taken.waiting.append(arrival.name)
            return
        # The latter three: something in the file that no reader foresaw. It must not keep the other files out.
        reason = str(error) if isinstance(error, UserError) else f"cannot be read: {type(error).__name__}: {error}"
        refuse(data_set, file_digest(path), arrival.name, reason)
        taken.refused[arrival.name] = reason
        _put_away(data_set, arrival, path, "refused", taken)
        return
    if not added["known"]:
        taken.added.append(added)
    _put_away(data_set, arrival, path, "received" if "number" in added else "refused", taken)


def _put_away(data_set: DataSet, arrival: Arrival, path: Path, where: str, taken: TakenIn) -> None:
    if not arrival.local:
        path.unlink(missing_ok=True)
        return
    reached(data_set.home, "data.before-move", name=data_set.name)
    with data_set.lock():  # two files of one name must not meet
        if not move(path, data_set.root / where / Path(arrival.name).name):
            taken.left[arrival.name] = "dealt with, and cannot be moved away"

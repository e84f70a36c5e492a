"""Take all complete files of a landing place into a data set: added, or refused as a whole; either way kept."""

from dataclasses import dataclass, field
from pathlib import Path

from stillhouse.dataset.data_set import DataSet
from stillhouse.dataset.intake import Added, Unfinished, add_file, refuse
from stillhouse.dataset.judge import Columns, Schema
from stillhouse.dataset.landing import Arrival, look, move
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

    @property
    def rows(self) -> int:
        return sum(entry["rows"] for entry in self.added)


def take_in(data_set: DataSet, landing: str | Path, schema: Schema) -> TakenIn:
    """Files of a folder move to `received/` or `refused/` once the data set lists them; those behind a URL stay there,
    and are known by content. Two processes may do this at once: each file is added by one of them."""
    landed = look(landing)
    taken = TakenIn(waiting=landed.waiting, ignored=landed.ignored)
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
    except UserError as error:
        refuse(data_set, file_digest(path), arrival.name, str(error))
        taken.refused[arrival.name] = str(error)
        _put_away(data_set, arrival, path, "refused")
        return
    if not added["known"]:
        taken.added.append(added)
    _put_away(data_set, arrival, path, "received" if "number" in added else "refused")


def _put_away(data_set: DataSet, arrival: Arrival, path: Path, where: str) -> None:
    if not arrival.local:
        path.unlink(missing_ok=True)
        return
    reached(data_set.home, "data.before-move", name=data_set.name)
    with data_set.lock():  # two files of one name must not meet
        move(path, data_set.root / where / Path(arrival.name).name)

"""What a person decided about a version, as tags of it: {approve, by, at, comment}."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from tasks.versions import APPROVED, REJECTED, Version, find, now, read_models, remember

if TYPE_CHECKING:
    from tasks.registry import Client


def decision(home: Path, name: str, version: int) -> dict[str, Any] | None:
    """What a person decided about a version: {approve, by, at, comment}, or None."""
    return find(read_models(home, name), f"{name}/{version}").decision


def note_decision(home: Path, name: str, version: int, said: dict[str, Any]) -> None:
    """Keep {approve, by, at, comment} as tags of a version; the last decision counts."""
    client, found = now(home, f"{name}/{version}")
    set_decision(client, found, said)
    remember(home)


def set_decision(client: "Client", version: Version, said: dict[str, Any]) -> None:
    """`note_decision` for who has the client and the version at hand already."""
    start, other = (APPROVED, REJECTED) if said["approve"] else (REJECTED, APPROVED)
    for key in ("by", "comment", "at"):  # `at` last: with it the decision is complete
        if said.get(key):
            client.set_model_version_tag(version.name, str(version.version), f"{start}{key}", said[key])
        elif f"{start}{key}" in version.tags:
            client.delete_model_version_tag(version.name, str(version.version), f"{start}{key}")
    for key in ("at", "by", "comment"):
        if f"{other}{key}" in version.tags:
            client.delete_model_version_tag(version.name, str(version.version), f"{other}{key}")

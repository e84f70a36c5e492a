"""A reference to a finished artifact: all that ever travels between steps."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Artifact:
    key: str
    kind: str

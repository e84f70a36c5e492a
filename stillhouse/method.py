"""What a method is: one frozen settings class and its `run`. No heavy import here or in a settings module."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict

Metrics = dict[str, float]


class Method(BaseModel):
    """A step's settings; the subclass's docstring and field docstrings are its documentation.

    The body of `run` imports what it needs from sibling modules: importing a settings class stays cheap.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    slots: ClassVar[dict[str, str]] = {}
    """Input slots: `kind`, `kind?` (may be absent), `kind+` (one or more), `a | b` (either). `model` is any model."""
    output: ClassVar[str] = ""
    """The kind that `run` leaves in `job.out`: data, model.torch, model.onnx, scores, release."""
    external: ClassVar[dict[str, str]] = {}
    """Settings that name something outside the store, `{setting: "data" | "model"}`; keyed by content, not by name."""
    not_in_key: ClassVar[frozenset[str]] = frozenset()
    """Settings that cannot change the result."""
    libraries: ClassVar[tuple[str, ...]] = ()
    """Distributions whose major.minor version is part of the key."""
    measures: ClassVar[bool] = False
    """The machine's fingerprint is part of the key."""
    strict: ClassVar[bool] = False
    """Run again when a rebuilt input has other content (evaluation and release)."""
    fenced: ClassVar[bool] = False
    """The champion it will be measured against (`job.against`) is part of the key."""
    heavy: ClassVar[bool] = True
    """Holds the machine's lock while it runs."""

    def check(self, filled: set[str]) -> None:
        """Raise `UserError` for a combination of settings and filled slots that cannot work."""

    def check_sources(self, sources: dict[str, "Source"]) -> None:
        """Raise `UserError` for a source on this machine that lacks what the settings name; asked before a run."""

    def run(self, job: "Job") -> Metrics:
        """Fill `job.out`; return the figures worth showing in one line."""
        raise NotImplementedError


@dataclass(frozen=True)
class Input:
    """A finished artifact as a method sees it."""

    path: Path
    key: str
    kind: str
    content: str
    """Digest of what is in it, measured times left out."""


@dataclass(frozen=True)
class Source:
    """Something outside the store, pinned: a file or directory, or a revision on the Hugging Face Hub."""

    name: str
    """As the recipe says it."""
    digest: str
    path: str | None = None
    """The local file or directory; None for a hub source, which the method downloads at `revision`."""
    repository: str | None = None
    revision: str | None = None

    @property
    def title(self) -> str:
        """The name without the place on this machine: what artifacts and model cards say."""
        local = self.path is not None and "://" not in self.name and not self.name.startswith("hub:")
        return Path(self.name).name if local else self.name


def _no_progress(done: int, total: int, note: str = "") -> None:
    pass


def _no_point(point: str, **fields: object) -> None:
    pass


def _build_derived(kind: str, settings: dict[str, Any], contents: list[str], build: Callable[[Path], None]) -> Path:
    raise NotImplementedError("this job has no store for derived data")


@dataclass(frozen=True)
class Job:
    """Everything `run` may use. Tests build one by hand."""

    out: Path
    """Empty directory; what is here when `run` returns is the artifact."""
    scratch: Path
    """Survives failure and kill until the artifact is published: checkpoints."""
    seed: int = 42
    inputs: dict[str, list[Input]] = field(default_factory=dict)
    """By slot; an absent optional slot is an absent key."""
    sources: dict[str, Source] = field(default_factory=dict)
    """By setting name, for the method's `external` settings that are set."""
    lineage: list[dict[str, Any]] = field(default_factory=list)
    """Manifests of all ancestors, inputs before what they feed."""
    recipe: dict[str, Any] = field(default_factory=dict)
    """The whole recipe, for the model card; never read for behaviour."""
    against: dict[str, Any] | None = None
    """The champion to be measured against, `{version, digest}`; None when there is none."""
    progress: Callable[..., None] = _no_progress
    """`progress(done, total, note)`; cheap, call it often."""
    reached: Callable[..., None] = _no_point
    """`reached("train.checkpoint", at=40)`: writes the event log, lets fault tests kill the process here."""
    derived: Callable[[str, dict[str, Any], list[str], Callable[[Path], None]], Path] = _build_derived
    """`derived(kind, settings, content digests, build) -> directory`: recomputable by-products, shared and verified.

    `build(directory)` fills it when it is not there yet; the code of `build`'s module is part of the key.
    """

    def path(self, slot: str) -> Path:
        """The directory of the one artifact in `slot`."""
        return self.inputs[slot][0].path

    def has(self, slot: str) -> bool:
        return bool(self.inputs.get(slot))

"""What somebody asked for, and what came of it."""

from dataclasses import dataclass, field
from typing import Any

from pipelines.listener import Outcome


@dataclass(frozen=True)
class Request:
    """One run of a recipe, as the command line, a form or a schedule asks for it."""

    recipe: str
    overrides: list[str] = field(default_factory=list)
    until: str | None = None
    rebuild: list[str] = field(default_factory=list)
    promote: bool = True
    local: bool = False
    approval: bool = False
    """What passes the gate waits as challenger for a person's word (`flows.approval`)."""
    approval_timeout_hours: float = 24.0


@dataclass
class Result:
    """A run's account: the object behind `--json`."""

    recipe: str
    steps: list[Outcome]
    flow_run: str | None = None
    seconds: float = 0.0
    gate: dict[str, Any] | None = None
    model: dict[str, Any] | None = None
    refusal: str | None = None
    """Why nothing was promoted although all steps are done (exit 3)."""
    links: list[tuple[str, str]] = field(default_factory=list)
    """`(title, address)` of pages that show more of it; on the run's page, not in the JSON object."""
    report: str | None = None
    """Address or file of its report."""

    def as_json(self) -> dict[str, Any]:
        """The documented object; keys are a promise."""
        value = {
            "recipe": self.recipe, "flow_run": self.flow_run, "seconds": round(self.seconds, 2), "steps": self.steps,
            "gate": self.gate, "model": self.model,
        }  # fmt: skip
        more = {"refusal": self.refusal, "report": self.report}
        return value | {name: each for name, each in more.items() if each}

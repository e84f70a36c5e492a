"""`train.nothing`: what a step costs that does nothing."""

from pathlib import Path
from typing import ClassVar

from stillhouse.method import Job, Method, Metrics


class Nothing(Method):
    """Write a few bytes."""

    slots: ClassVar[dict[str, str]] = {"model": "model?"}
    output: ClassVar[str] = "model.torch"

    salt: int = 0
    """Whatever makes the step another one."""

    def run(self, job: Job) -> Metrics:
        do_nothing(job.out)
        return {"nothing": 1.0}


def do_nothing(directory: Path) -> None:
    """The work itself."""
    (directory / "nothing.txt").write_text("nothing\n", encoding="utf-8")

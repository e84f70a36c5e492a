"""Structured pruning: heads, feed-forward units and whole layers, physically removed."""

from typing import ClassVar

from pydantic import Field

from stillhouse.errors import UserError
from stillhouse.evaluate.figures import check_names
from stillhouse.method import Job, Method, Metrics


class Structured(Method):
    """Remove what matters least for what it costs until a share of the multiplications is left, without training.

    Importance is the diagonal Fisher information on a sample of training rows (Kwon et al., arXiv:2204.09656); the maps
    behind what was removed are refitted by least squares. A pruned model is an ordinary `model.torch`: train it on, or
    let it recover as the student of `distill.logits` (input `model`). The rung is measured before recovery.
    """

    slots: ClassVar[dict[str, str]] = {"model": "model.torch", "data": "data", "baseline": "model?"}
    output: ClassVar[str] = "model.torch"
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers", "tokenizers", "numpy", "seqeval")

    keep: float = Field(default=0.5, gt=0, le=1)
    """Share of the multiplications in the encoder layers that stays, by the heads and units that go."""
    drop_layers: int = Field(default=0, ge=0)
    """First remove so many whole layers: those without which the loss on the sample is lowest."""
    heads: bool = True
    """Remove attention heads."""
    units: bool = True
    """Remove feed-forward units."""
    unit_multiple: int = Field(default=32, ge=1)
    """Units go in groups of this size: processors handle odd numbers of them no faster."""
    refit: bool = True
    """Fit the maps behind what was removed anew, by least squares."""
    calibration_rows: int = Field(default=1024, ge=1)
    """Training rows that importance and fit are taken from, evenly spread over the split."""
    accept_loss: float = Field(default=1.0, ge=0)
    """Largest loss of `metric` on validation, absolute, against `baseline` or the input model, before any recovery."""
    min_speedup: float = Field(default=1.0, ge=0)
    """Reject when the speed over the input model's is certainly below this (its whole interval). The verdict is that of
    the machine which ran the step, and goes along with the store."""
    metric: str | None = None
    """Metric that judges the loss; by default `f1_macro` for classification, `entity_f1` for tokens."""
    max_rows: int = Field(default=1000, ge=1)
    """Largest number of validation rows to measure on, evenly spread over the split."""
    speed_seconds: float = Field(default=1.0, gt=0, le=600)
    """Seconds of speed measurement for each model; the comparison of both takes about seven times as long."""

    def check(self, filled: set[str]) -> None:
        check_names([self.metric] if self.metric else [], "metric")
        if self.keep == 1 and not self.drop_layers:
            raise UserError("keep is 1 and drop_layers 0: nothing would be pruned", "set keep to 0.5, for example")
        if not (self.heads or self.units or self.drop_layers):
            raise UserError("heads and units are false: nothing would be pruned", "leave one of them true")

    def run(self, job: Job) -> Metrics:
        """Fill `job.out` with the accepted model and `rung.json`."""
        from stillhouse.prune._structured import prune_model

        return prune_model(self, job)

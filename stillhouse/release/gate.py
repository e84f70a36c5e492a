"""The gate: may this model be released? And everything a deployment needs, in one directory."""

from typing import Annotated, ClassVar

from pydantic import Field

from stillhouse.evaluate.figures import check_names
from stillhouse.method import Job, Method, Metrics

Share = Annotated[float, Field(ge=0, le=1)]


class Gate(Method):
    """Hold a model's scores against rules and pack it for deployment; a refusal lists every rule that failed.

    Floors and losses are in the units of their figure: 0.02 is two points.
    """

    slots: ClassVar[dict[str, str]] = {"model": "model.onnx", "scores": "scores", "data": "data?"}
    output: ClassVar[str] = "release"
    libraries: ClassVar[tuple[str, ...]] = ("onnxruntime", "tokenizers")
    strict: ClassVar[bool] = True
    fenced: ClassVar[bool] = True

    metric: str | None = None
    """The figure that losses are counted in: `f1_macro` for classification and `entity_f1` for tokens when not set."""
    floors: dict[str, Share] = Field(default_factory=dict)
    """Smallest allowed value of each named figure, for example `{f1_macro: 0.7}`."""
    max_loss: Share = 0.02
    """Largest allowed loss of `metric` against the baseline; not applied when the scores have no baseline."""
    max_loss_champion: Share = 0.01
    """Largest allowed loss of `metric` against the champion; not applied when the scores have no champion."""
    class_floors: Share | dict[str, Share] | None = None
    """Smallest allowed F1 of a class (an entity type): one number for all, or `{label: number}`."""
    max_size_mb: float | None = Field(None, gt=0)
    """Largest allowed size on disk of the model with its tokenizer, in millions of bytes."""
    max_p95_ms: float | None = Field(None, gt=0)
    """Largest allowed time for a single text, in milliseconds, met by 95 % of the test texts on this machine."""
    min_speedup: float | None = Field(None, gt=0)
    """Smallest allowed speed relative to the baseline's; fails when the whole measured interval lies below it."""
    min_business_score: float | None = None
    """Smallest allowed business score (the weights are a setting of `evaluate.compare`)."""
    min_agreement: Share = 0.995
    """Smallest allowed share of test rows whose label stays the same when they are scored one by one."""

    def check(self, filled: set[str]) -> None:
        check_names([self.metric] if self.metric else [], "metric")
        check_names(list(self.floors), "floors")

    def run(self, job: Job) -> Metrics:
        from stillhouse.release._release import release

        return release(self, job)

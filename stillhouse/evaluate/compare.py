"""Compare a finished model with its baseline, the champion and simple references on the test rows."""

from typing import ClassVar

from pydantic import Field

from stillhouse.evaluate.figures import check_names
from stillhouse.method import Job, Method, Metrics


class Compare(Method):
    """Score the candidate and what it has to beat on the same test rows: quality with intervals, size and speed.

    This is the only kind of step that reads the test rows, so run it once, on the model that is meant for release.
    """

    slots: ClassVar[dict[str, str]] = {"data": "data", "model": "model", "baseline": "model?", "champion": "model?"}
    output: ClassVar[str] = "scores"
    libraries: ClassVar[tuple[str, ...]] = (
        "torch", "transformers", "onnxruntime", "tokenizers", "scikit-learn", "evaluate", "seqeval", "numpy",
    )  # fmt: skip
    measures: ClassVar[bool] = True
    strict: ClassVar[bool] = True

    linear_reference: bool = True
    """Also train TF-IDF (words 1-2, characters 2-5) with logistic regression on the same training rows, to show what
    the transformer buys. Text classification only; some seconds, once for each data set."""
    slices: tuple[str, ...] = ()
    """Columns of the data; every model's figures are also given for the rows of each of their values. `epoch` is when
    a row came: 0 with the first data, 1 with what was added first, and so on."""
    business: dict[str, float] = Field(default_factory=dict)
    """Weights over figures, summed to one score for each model, for example
    `{f1_macro: 1.0, size_mb: -0.001, latency_p95_ms: -0.002}`. Besides the quality figures there are
    `size_mb`, `texts_per_second`, `latency_p50_ms` and `latency_p95_ms`."""
    resamples: int = Field(1000, ge=100, le=100_000)
    """Bootstrap resamples of the test rows behind each 95 % interval."""
    agreement_rows: int = Field(1000, ge=1)
    """Test rows, at most, that the candidate also scores one by one, to see whether neighbours in a batch matter."""
    robustness_rows: int = Field(200, ge=0, le=10_000)
    """Test rows, at most, that candidate and champion also label with typos, in capitals, cut off and with odd Unicode
    (eight kinds for texts; for words the six that keep their number); 0 leaves it out."""
    speed_seconds: float = Field(3.0, gt=0, le=600)
    """Seconds of speed measurement for each model; the comparison of two takes about seven times as long."""

    def check(self, filled: set[str]) -> None:
        check_names(list(self.business), "business", cost=True)

    def run(self, job: Job) -> Metrics:
        from stillhouse.evaluate._compare import compare

        return compare(self, job)

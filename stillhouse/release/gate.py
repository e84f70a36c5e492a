"""The gate: may this model be released? And everything a deployment needs, in one directory."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stillhouse.errors import UserError, nearest
from stillhouse.evaluate._perturb import TEXTS
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
    champion_test: Literal["none", "bootstrap", "mcnemar"] = "none"
    """What is asked beside that limit. `bootstrap`: the loss is within it for sure, that is, the whole 95 % interval of
    the paired difference (few test rows then refuse much). `mcnemar`: the candidate is not significantly less accurate
    than the champion, however small the loss (McNemar's exact test, 5 %). `none`: nothing."""
    class_floors: Share | dict[str, Share] | None = None
    """Smallest allowed F1 of a class (an entity type): one number for all, or `{label: number}`."""
    max_class_loss: Share | None = None
    """Largest allowed loss of a class's F1, against the baseline and against the champion, each where the scores have
    it."""
    slice_floors: dict[str, Share | dict[str, Share]] = Field(default_factory=dict)
    """Smallest allowed `metric` on the slices of a column: `{topic: 0.6}` for all of them, `{topic: {airline: 0.7}}`
    for some. The columns must be among the `slices` of evaluate.compare."""
    max_slice_loss: dict[str, Share] = Field(default_factory=dict)
    """Largest allowed loss of `metric` on any slice of a column, `{topic: 0.03}`, against the baseline and against the
    champion, each where the scores have it."""
    min_slice_rows: int = Field(30, ge=1)
    """Test rows from which a slice, a class (`max_class_loss`) or the older data is judged. A rule for all slices
    leaves smaller ones out; a rule that names one, or finds none to judge, fails."""
    max_forgetting: Share | None = None
    """Largest allowed loss of `metric` against the champion on the test rows that came before the newest data, all of
    them together and, with the slice `epoch`, each epoch of them."""
    max_robustness_loss: Share | dict[str, Share] | None = None
    """Largest allowed loss of `metric` on rows with typos, in capitals, cut off or with odd Unicode, against the same
    rows as they were: one number for all kinds, or `{kind: number}`."""
    max_size_mb: float | None = Field(None, gt=0)
    """Largest allowed size on disk of the model with its tokenizer, in millions of bytes."""
    max_p95_ms: float | None = Field(None, gt=0)
    """Largest allowed time for a single text, in milliseconds, met by 95 % of the test texts on this machine."""
    min_speedup: float | None = Field(None, gt=0)
    """Smallest allowed speed relative to the baseline's; fails when the whole measured interval lies below it."""
    min_business_score: float | None = None
    """Smallest allowed business score (the weights are a setting of `evaluate.compare`)."""
    max_business_loss: float | None = Field(None, ge=0)
    """Largest allowed loss of the business score against the champion's."""
    min_agreement: Share = 0.995
    """Smallest allowed share of test rows whose label stays the same when they are scored one by one."""

    def check(self, filled: set[str]) -> None:
        check_names([self.metric] if self.metric else [], "metric")
        check_names(list(self.floors), "floors")
        if isinstance(self.max_robustness_loss, dict):
            for kind in set(self.max_robustness_loss) - set(TEXTS):
                raise UserError(f'max_robustness_loss: there is no kind "{kind}"', nearest(kind, set(TEXTS)))

    def run(self, job: Job) -> Metrics:
        from stillhouse.release._release import release

        return release(self, job)

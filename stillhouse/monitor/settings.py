"""What a user may set about monitoring; the flow's form and the command line show the same words."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

HOUR = 3600.0
DAY = 24 * HOUR
FAMILIES = 4
"""Input drift, prediction drift, quality, surges: each takes an equal share of the false alarms."""
MOST_WATCHED = 10


class MonitorSettings(BaseModel):
    """Thresholds and windows of one monitor run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    topic: str = "topic"
    """Column of the prediction log that names a row's topic."""
    surge_labels: tuple[str, ...] = ()
    """Labels whose rise is a surge; by default every label, of a model with at most `MOST_WATCHED` of them."""
    window_minutes: float = Field(60.0, gt=0)
    """Length of the windows in which labels are counted for surges."""
    baseline_days: float = Field(28.0, gt=0)
    """How far back a surge is compared, and labels that arrived late are used."""
    false_alarm_rate: float = Field(0.001, ge=1e-9, lt=0.5)
    """Share of runs on steady data that may raise an alarm, all tests together; hourly runs at 0.001: nine a year."""
    sample_rows: int = Field(500, ge=50, le=5000)
    """Embeddings that are compared; where fewer rows are new, rows before them are used too."""
    min_rows: int = Field(100, ge=20)
    """With fewer rows nothing but surges is tested."""
    min_auc: float = Field(0.6, ge=0.5, lt=1)
    """Input drift below this AUC is no alarm, however significant."""
    min_change: float = Field(0.1, ge=0, lt=1)
    """Prediction drift of a smaller share of the answers is no alarm."""
    min_drop: float = Field(0.03, ge=0, lt=1)
    """A smaller loss of accuracy is no alarm."""
    min_rise: float = Field(0.1, ge=0, lt=1)
    """A smaller rise of a label's share is no surge."""
    min_count: int = Field(10, ge=1)
    """A surge has at least so many rows of its label."""
    cool_down_hours: float = Field(24.0, ge=0)
    """After an alert the same thing is not told again for so long."""
    reference: Literal["release", "log"] = "release"
    """Compare with what the model was released with, or with the first rows of its version in the log."""

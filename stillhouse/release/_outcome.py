"""One rule applied to one number, and how both are said."""

import math
from dataclasses import dataclass, replace

_ROUNDING = 1e-9
"""A loss of exactly the limit passes, whatever the last bits of the subtraction say."""


@dataclass(frozen=True)
class Outcome:
    """One rule applied: `passed` is None when the scores have nothing to apply it to."""

    rule: str
    limit: float
    value: float | None
    passed: bool | None
    reason: str = ""
    """Why it failed, or why it was not applied."""
    measured: bool = False
    """The value is a measured time: it differs from run to run."""


def at_least(rule: str, value: float, limit: float, reason: str, *, measured: bool = False) -> Outcome:
    return _finite(Outcome(rule, limit, value, value >= limit - _ROUNDING, reason, measured))


def at_most(rule: str, value: float, limit: float, reason: str, *, measured: bool = False) -> Outcome:
    return _finite(Outcome(rule, limit, value, value <= limit + _ROUNDING, reason, measured))


def _finite(outcome: Outcome) -> Outcome:
    """A figure that is not a number fails its rule, and says so: JSON could not even hold it."""
    if outcome.value is None or not math.isfinite(outcome.value):
        return replace(outcome, value=None, passed=False, reason=f"{outcome.rule}: the figure is not a finite number")
    return replace(outcome, reason="") if outcome.passed else outcome


def not_applied(rule: str, limit: float, why: str) -> Outcome:
    return Outcome(rule, limit, None, None, why)


def unknown(rule: str, limit: float, why: str) -> Outcome:
    """What nobody could measure is refused, never passed."""
    return Outcome(rule, limit, None, False, why)


def shown(value: float, limit: float, digits: int = 3) -> tuple[str, str]:
    """Both numbers with as many digits as the limit was written with, and as it takes to see that they differ."""
    while digits < 12 and (
        not math.isclose(float(f"{limit:.{digits}f}"), limit, rel_tol=1e-9)
        or (value != limit and f"{value:.{digits}f}" == f"{limit:.{digits}f}")
    ):
        digits += 1
    return f"{value:.{digits}f}", f"{limit:.{digits}f}"

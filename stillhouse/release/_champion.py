"""The gate's rules against the champion, both models scored on the same rows.

The loss itself must be within its limit; a test only ever adds to that, so that a candidate cannot pass because there
were too few rows to be sure:

- `bootstrap`: the loss must be within the limit *for sure*: the whole 95 % interval of the paired difference lies above
  it (a test of non-inferiority with the limit as its margin; Piaggio et al. 2012, JAMA 308:2594).
- `mcnemar`: beside that, the candidate must not be significantly less accurate at all (exact test, 5 %).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from stillhouse.errors import UserError
from stillhouse.release._outcome import Outcome, at_least, at_most, not_applied, shown, unknown

if TYPE_CHECKING:
    from stillhouse.release.gate import Gate

LEVEL = 0.05


def champion_test(gate: "Gate", metric: str, scores: dict[str, Any]) -> Iterator[Outcome]:
    if gate.champion_test == "none":
        return
    rule, limit = f"champion_test.{gate.champion_test}", gate.max_loss_champion
    limit = LEVEL if gate.champion_test == "mcnemar" else limit
    if "champion" not in scores:
        yield not_applied(rule, limit, "the scores have no champion")
        return
    differences = scores["differences"].get("champion", {})
    key = "mcnemar" if gate.champion_test == "mcnemar" else metric
    if key not in differences:
        yield unknown(rule, limit, f"champion_test: the scores do not compare {key} with the champion's")
    elif key == "mcnemar":
        yield _mcnemar(rule, differences[key])
    else:
        yield _non_inferior(rule, limit, metric, differences[key])


def _non_inferior(rule: str, limit: float, metric: str, difference: dict[str, float]) -> Outcome:
    worst, allowed = shown(-difference["low"], limit)
    reason = f"""{metric} may be up to {worst} below the champion's (95 % interval of the difference \
{difference["low"]:+.3f} to {difference["high"]:+.3f}); at most {allowed} allowed"""
    return at_most(rule, -difference["low"], limit, reason)


def _mcnemar(rule: str, found: dict[str, Any]) -> Outcome:
    better = found["only_candidate"] >= found["only_other"]
    p_value = 1.0 if better else found["p_value"]  # how good it is, is no objection
    reason = f"""significantly less accurate than the champion: {found["only_other"]:,} rows only the champion has \
right, {found["only_candidate"]:,} only the candidate (McNemar's exact test, p = {found["p_value"]:.2g})"""
    return at_least(rule, p_value, LEVEL, reason)


def business_loss(gate: "Gate", scores: dict[str, Any]) -> Iterator[Outcome]:
    """What the business score loses against the champion's."""
    limit = gate.max_business_loss
    if limit is None:
        return
    if "business" not in scores:
        raise UserError("max_business_loss: the scores have no business score", "give evaluate.compare `business`")
    found = scores["business"]["measured"]
    if "champion" not in found:
        yield not_applied("max_business_loss", limit, "the scores have no champion")
        return
    loss = found["champion"] - found["candidate"]
    lost, allowed = shown(loss, limit)
    reason = f"the business score {found['candidate']:.3f} is {lost} below the champion's {found['champion']:.3f}; \
at most {allowed} allowed"
    yield at_most("max_business_loss", loss, limit, reason, measured=True)

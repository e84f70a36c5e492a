"""The model card's sections on the gate: rules, the comparison with the champion, robustness. Nothing timed."""

from typing import Any

from stillhouse.problems import find_problem
from stillhouse.release._tables import table

_RESULT = {True: "passed", False: "**failed**", None: "not applied"}


def gate_section(verdict: dict[str, Any]) -> str:
    """Every rule with its limit, what was found and the result."""
    rules = verdict.get("rules") or {}
    if not rules:
        return ""
    rows: list[list[object]] = [
        [name, rule["limit"], "on the machine" if "measured" in rule else rule.get("value"), _result(rule)]
        for name, rule in rules.items()
    ]
    note = "What was measured in time on a machine is in `verdict.json`."
    return "\n\n".join(["## The gate", note, table(["rule", "limit", "found", "result"], rows)])


def _result(rule: dict[str, Any]) -> str:
    why = rule.get("not_applied")
    return f"{_RESULT[rule['passed']]}: {why}" if why else _RESULT[rule["passed"]]


def compared(verdict: dict[str, Any]) -> str:
    """The paired differences to baseline and champion, as sentences."""
    lines = []
    for role, found in (verdict.get("compared") or {}).items():
        line = f"""- {found["metric"]} minus the {role}'s on the same rows: {found["value"]:+.3f} (95 % interval \
{found["low"]:+.3f} to {found["high"]:+.3f})"""
        test = found.get("mcnemar")
        if test:
            line += f"""; {test["only_candidate"]:,} rows only this model has right, {test["only_other"]:,} only the \
{role} (McNemar's exact test: p = {test["p_value"]:.2g})"""
        lines.append(line)
    return "\n".join(lines)


def robustness_section(scores: dict[str, Any]) -> str:
    """The figures on rows that were changed on purpose."""
    found = scores.get("robustness")
    if not found:
        return ""
    roles = list(found["by_role"])
    metric = find_problem(scores["problem"]).metric
    head = [
        "rows",
        *(f"{metric}, {'this model' if role == 'candidate' else role}" for role in roles),
        "labels that stay",
    ]
    rows: list[list[object]] = [["unchanged", *(found["by_role"][role]["clean"].get(metric) for role in roles), None]]
    for kind in found["kinds"]:
        figures = [found["by_role"][role]["kinds"][kind] for role in roles]
        rows.append([kind, *(one.get(metric) for one in figures), figures[0]["agreement"]])
    note = f"On {found['rows']:,} test rows that were changed on purpose: typos, capitals, cut off, odd Unicode."
    return "\n\n".join(["### Written badly", note, table(head, rows)])

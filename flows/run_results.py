"""What a run's page shows at its end: results, steps, the verdict, and where to look further."""

from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from flows.request import Result
from flows.summary import rung_rows
from flows.terminal import duration, figure
from pipelines.listener import Outcome
from stillhouse.files import read_json
from stillhouse.store import Store
from tasks.steps import best_effort

COLUMNS = ("model", "quality", "size", "texts/s", "note")
RULED = {True: "passed", False: "**failed**", None: "not applied"}


def show_results(result: Result, home: Path) -> None:
    """Write the artifacts of a finished run; a server that fails here costs nothing."""
    with best_effort():
        rows = result_rows(result, home)
        if rows:
            create_table_artifact(table=rows, key="results", description=_about(result, home))
        create_table_artifact(table=step_rows(result), key="steps", description=f"Steps of {result.recipe}")
        links = " · ".join(link(*one) for one in result.links)
        create_markdown_artifact(
            verdict(result, rows, rule_rows(result, home)), key="verdict",
            description=f"{headline(result)}. {links}",
        )  # fmt: skip


def result_rows(result: Result, home: Path) -> list[dict[str, Any]]:
    """Quality, size and speed of the references, the baseline, the candidate and each rung; the metric is a column."""
    rows = rung_rows(result, home)
    if not rows:
        return []
    metric, *models = rows
    names = {"quality": metric["quality"].strip(), "texts/s": "texts/s"}
    shown = []
    for row in models:
        why = f": {row['reason']}" if row.get("reason") else ""
        values = (
            row["model"],
            row["quality"].strip(),
            row.get("size", ""),
            row.get("speed", ""),
            row.get("note", "") + why,
        )
        shown.append({names.get(column, column): value for column, value in zip(COLUMNS, values, strict=True)})
    return shown


def _about(result: Result, home: Path) -> str:
    against = next((row["against"] for row in rung_rows(result, home) if row.get("against")), "")
    return f"Results of {result.recipe}" + (f". {against}" if against else "")


def step_rows(result: Result) -> list[dict[str, Any]]:
    """One row a step, all with the same columns: the page takes them from the first."""
    return [
        {
            "step": step["name"], "method": step["uses"], "state": step["state"], "seconds": step["seconds"],
            "figures": ", ".join(f"{name} {figure(value)}" for name, value in list(step["metrics"].items())[:4]),
        }
        for step in result.steps
    ]  # fmt: skip


def headline(result: Result) -> str:
    """The outcome in one line."""
    if result.model:
        alias = f", {result.model['alias']}" if result.model.get("alias") else ""
        return f"{result.model['name']} version {result.model['version']}{alias}"
    if result.refusal:
        return "Refused: nothing was promoted"
    return f"{result.recipe} is done"


def rule_rows(result: Result, home: Path) -> list[dict[str, Any]]:
    """Every rule of the gate: its limit, what was found, and the outcome; empty for a run without a gate."""
    release = next((step for step in result.steps if step["uses"] == "release.gate"), None)
    if release is None:
        return []
    rules = read_json(Store(home).path(release["key"]) / "verdict.json").get("rules") or {}
    return [
        {
            "rule": name, "limit": rule["limit"], "found": _found(rule),
            "outcome": RULED[rule["passed"]] + (f": {rule['not_applied']}" if rule.get("not_applied") else ""),
        }
        for name, rule in rules.items()
    ]  # fmt: skip


def _found(rule: dict[str, Any]) -> str:
    value = rule.get("value", rule.get("measured"))
    return figure(value) if isinstance(value, int | float) else ""


def verdict(result: Result, rows: list[dict[str, Any]], rules: list[dict[str, Any]]) -> str:
    """Outcome, links, results and the gate's rules, as one page of markdown."""
    lines = [f"# {headline(result)}"]
    lines.append("\n".join(f"- {link(*one)}" for one in result.links))
    if result.gate is not None and not result.gate["passed"]:
        lines.append("The gate refused, because")
        lines.append("\n".join(f"- {reason}" for reason in result.gate["reasons"]))
    elif result.refusal:
        lines.append(result.refusal)
    if result.model and result.model.get("note"):
        lines.append(result.model["note"])
    for title, table in (("Results", rows), ("The gate's rules", rules)):
        if table:
            lines += [f"## {title}", markdown_table(table)]
    ran = [step for step in result.steps if step["state"] != "cached"]
    rest = ", the others came from the store" if len(ran) < len(result.steps) else ""
    lines.append(f"{len(ran)} of {len(result.steps)} steps ran{_took(ran)}{rest}.")
    return "\n\n".join(line for line in lines if line)


def _took(steps: list[Outcome]) -> str:
    return f" ({duration(sum(step['seconds'] for step in steps))})" if steps else ""


def link(title: str, address: str) -> str:
    return f"[{title}]({address})"


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows of one set of columns as a markdown table."""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([str(row[head]).replace("|", "\\|") for head in heads] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""What a run's page shows at its end: results, steps, the verdict, and where to look further."""

from pathlib import Path
from typing import Any

from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact

from flows.request import Result
from flows.summary import rung_rows
from flows.terminal import duration, figure
from tasks.steps import best_effort

COLUMNS = ("model", "quality", "size", "texts/s", "note")


def show_results(result: Result, home: Path) -> None:
    """Write the artifacts of a finished run; a server that fails here costs nothing."""
    with best_effort():
        rows = result_rows(result, home)
        if rows:
            create_table_artifact(table=rows, key="results", description=_about(result, home))
        create_table_artifact(table=step_rows(result), key="steps", description=f"Steps of {result.recipe}")
        create_markdown_artifact(summary(result, rows), key="summary", description=headline(result))
        for number, (title, address) in enumerate(result.links, 1):
            create_link_artifact(address, key=f"link-{number}", link_text=title, description=title)


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


def summary(result: Result, rows: list[dict[str, Any]]) -> str:
    """Verdict, model, results and links, as one page of markdown."""
    lines = [f"# {headline(result)}"]
    if result.gate is not None:
        lines.append(f"**The gate {'passed it' if result.gate['passed'] else 'refused it'}**")
        lines.append("\n".join(f"- {reason}" for reason in result.gate["reasons"]))
    if result.refusal and (result.gate is None or result.gate["passed"]):
        lines.append(result.refusal)
    if result.model and result.model.get("note"):
        lines.append(result.model["note"])
    lines.append("\n".join(f"- [{title}]({address})" for title, address in result.links))
    if rows:
        lines.append(markdown_table(rows))
    ran = [step for step in result.steps if step["state"] != "cached"]
    took = duration(sum(step["seconds"] for step in ran))
    lines.append(f"{len(ran)} of {len(result.steps)} steps ran ({took}), the others came from the store.")
    return "\n\n".join(line for line in lines if line)


def markdown_table(rows: list[dict[str, Any]]) -> str:
    """Rows of one set of columns as a markdown table."""
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([str(row[head]).replace("|", "\\|") for head in heads] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)

"""The model card: what the model is for, what it can do, and exactly where it comes from. Plain Markdown.

Nothing in it was timed: measured speed belongs to a machine and stands in `verdict.json`.
"""

import json
from io import StringIO
from typing import Any

from stillhouse.method import Source
from stillhouse.release._card_gate import compared, gate_section, robustness_section
from stillhouse.release._tables import cell, table

Manifest = dict[str, Any]

_CARD_METRICS = {"accuracy": "accuracy", "f1_macro": "f1", "entity_f1": "seqeval"}
_TIMED = ("per_second", "_ms", "seconds", "speedup", "memory")
_MISSING = "not stated"


def model_card(
    about: dict[str, Any],
    scores: dict[str, Any],
    verdict: dict[str, Any],
    lineage: list[Manifest],
    recipe: dict[str, Any],
    ladder: dict[str, Any] | None = None,
) -> str:
    """The text of `README.md`; `about` is the model's `stillhouse.json`, with `language` and `data_licence`; `ladder`
    the rungs among which the model was chosen.
    """
    name = str(recipe.get("name") or "model")
    sections = [
        _front_matter(about, scores, name, lineage),
        f"# {name}",
        _summary(about, verdict),
        _use(about["problem"]),
        _quality(scores),
        compared(verdict),
        _classes(scores),
        _slices(scores),
        robustness_section(scores),
        gate_section(verdict),
        _ladder(ladder) if ladder else "",
        _steps(lineage),
        _sources(about, lineage),
        _recipe(recipe),
        _limits(about, scores),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _front_matter(about: dict[str, Any], scores: dict[str, Any], name: str, lineage: list[Manifest]) -> str:
    base = _base(about, lineage) or ""
    # JSON is YAML too, so a name with a colon or a quote cannot break the header.
    fields: dict[str, Any] = {
        "language": about.get("language"),
        "license": about.get("licence"),
        "library_name": "onnxruntime",
        "pipeline_tag": about["problem"],
        # Only a Hub name means anything to those who read this field.
        "base_model": base.removeprefix("hub:") if base.startswith("hub:") else None,
        "tags": ["onnx", "stillhouse"],
        "metrics": [_CARD_METRICS[metric] for metric in scores["candidate"]["metrics"] if metric in _CARD_METRICS],
        "model_name": name,
    }
    lines = [f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items() if value]
    return "\n".join(["---", *lines, "---"])


def _base(about: dict[str, Any], lineage: list[Manifest]) -> str | None:
    named = [Source(**item["sources"]["base"]).title for item in lineage if "base" in item.get("sources", {})]
    return about.get("base") or next(iter(named), None)


def _summary(about: dict[str, Any], verdict: dict[str, Any]) -> str:
    kind = about["problem"].replace("-", " ")
    labels = ", ".join(f"`{label}`" for label in about["labels"])
    parts = [f"A small {kind} model for the CPU, made with Stillhouse. Its labels: {labels}."]
    if verdict["passed"]:
        parts.append("It passed every rule of its gate.")
    else:
        parts.append("**The gate refused it:**")
        parts.append("\n".join(f"- {reason}" for reason in verdict["reasons"]))
    if verdict["against"]:
        parts.append(f"The champion at that time was version {verdict['against']['version']}.")
    return "\n\n".join(parts)


def _use(problem: str) -> str:
    answer = '{"label": …, "probabilities": {…}}'
    if problem == "token-classification":
        answer = '{"entities": [{"text", "label", "start", "end", "score"}, …]}'
    return f"""## Use

Needs `onnxruntime`, `tokenizers` and `numpy`, nothing else; run it in this directory.

```python
from scoring import OnnxScorer

OnnxScorer(".").predict(["a text"])  # [{answer}]
```

`check.json` holds texts with the answers that the gate saw. In one call and that order they come out the same."""


def _quality(scores: dict[str, Any]) -> str:
    roles = [role for role in ("candidate", "baseline", "champion") if role in scores]
    references = scores.get("references", {})
    head = ["figure", *("this model" if role == "candidate" else role for role in roles), *references]
    rows = []
    for metric in scores["candidate"]["metrics"]:
        cells: list[object] = [metric, *(_with_interval(scores[role], metric) for role in roles)]
        rows.append([*cells, *(found.get(metric) for found in references.values())])
    rows.append(["size", *(f"{scores[role]['bytes'] / 1e6:.1f} MB" for role in roles), *(None for _ in references)])
    note = f"""On {scores["rows"]:,} test rows that no step before saw; in brackets the 95 % bootstrap interval. Every \
column is computed on the same rows. Speed depends on the machine: what was measured at release is in `verdict.json`."""
    share = f"{100 * scores['agreement']:.2f} %"
    agreement = f"""Scored one by one instead of in batches, {share} of the sampled rows keep their label; no \
probability changed by more than {scores["largest_change"]:.4f}."""
    return "\n\n".join(["## Quality", note, table(head, rows), agreement])


def _with_interval(model: dict[str, Any], metric: str) -> str:
    if metric not in model["metrics"]:
        return ""
    interval = model["intervals"].get(metric)
    shown = f"{model['metrics'][metric]:.3f}"
    return f"{shown} ({interval['low']:.3f} to {interval['high']:.3f})" if interval else shown


def _classes(scores: dict[str, Any]) -> str:
    classes = scores["candidate"]["per_class"]
    rows: list[list[object]] = [
        [label, found["precision"], found["recall"], found["f1"], f"{found['support']:,.0f}"]
        for label, found in classes.items()
    ]
    return "### By class\n\n" + table(["class", "precision", "recall", "F1", "rows"], rows)


def _slices(scores: dict[str, Any]) -> str:
    parts = []
    for column, values in scores.get("slices", {}).items():
        names = [name for name in scores["candidate"]["metrics"]]
        rows: list[list[object]] = [
            [value, f"{found['rows']:,.0f}", *(found.get(name) for name in names)] for value, found in values.items()
        ]
        parts.append(f"### By {column}\n\n" + table([cell(column), "rows", *names], rows))
    return "\n\n".join(parts)


def _ladder(ladder: dict[str, Any]) -> str:
    rows: list[list[object]] = [
        [
            f"{rung['name']}{' (this model)' if rung['name'] == ladder['chosen'] else ''}",
            rung["quality"]["value"],
            f"{rung['bytes'] / 1e6:.1f} MB",
        ]
        for rung in ladder["rungs"]
    ]
    metric, baseline = ladder["metric"], ladder["baseline"]
    note = f"""The rungs it was chosen from, on validation rows (baseline: {metric} {baseline:.3f}). Their speed, and \
which of them no other beats, is in `ladder.json`."""
    listed = table(["rung", metric, "size"], rows)
    return "\n\n".join(["## The ladder", note, listed, "![quality and speed of the rungs](ladder.svg)"])


def _steps(lineage: list[Manifest]) -> str:
    rows: list[list[object]] = []
    for item in lineage:
        figures = [
            f"{name} {_number(value)}" for name, value in item.get("metrics", {}).items()
            if isinstance(value, int | float) and not any(part in name for part in _TIMED)
        ]  # fmt: skip
        rows.append([item.get("step"), f"`{item.get('method')}`", ", ".join(figures), f"`{item['content'][:12]}`"])
    if not rows:
        return ""
    head = ["step", "method", "result", "content"]
    return "\n\n".join(
        ["## How it was made", "Figures of steps before the scores are on validation rows.", table(head, rows)]
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _sources(about: dict[str, Any], lineage: list[Manifest]) -> str:
    rows: list[list[object]] = []
    for item in lineage:
        for setting, source in item.get("sources", {}).items():
            pinned = source.get("revision") or source.get("digest") or ""
            rows.append([f"{item.get('step')}.{setting}", f"`{Source(**source).title}`", f"`{str(pinned)[:20]}`"])
    licences = f"""Base model: {_base(about, lineage) or _MISSING}; licence: {about.get("licence") or _MISSING}. \
Data licence: {about.get("data_licence") or _MISSING}. A licence that is not stated is not a permission: ask whoever \
owns the text or the weights. `check.json` holds some of the data's validation texts."""
    listed = table(["setting", "source", "digest or revision"], rows) if rows else ""
    lines = ["## Data, base model and licences", listed, licences]
    return "\n\n".join(line for line in lines if line)


def _recipe(recipe: dict[str, Any]) -> str:
    if not recipe:
        return ""
    from ruamel.yaml import YAML

    yaml, text = YAML(), StringIO()
    yaml.default_flow_style = False
    yaml.width = 120
    yaml.dump(recipe, text)
    # A fence longer than any run of backticks inside cannot be closed by the recipe.
    fence = "```" if "```" not in text.getvalue() else "``````"
    return f"## Recipe\n\n{fence}yaml\n{text.getvalue().rstrip()}\n{fence}"


def _limits(about: dict[str, Any], scores: dict[str, Any]) -> str:
    words = "texts" if about["problem"] == "text-classification" else "sentences"
    longer = (
        f"a longer text is cut after {about['max_length']} tokens"
        if about["problem"] == "text-classification"
        else f"a longer text is read in windows of {about['max_length']} tokens"
    )
    weakest = min(scores["candidate"]["per_class"].items(), key=lambda item: item[1]["f1"], default=None)
    answers = "It always answers with one of its labels, also where none fits"
    if about.get("unsure_below"):
        answers = "It names one of its labels also where none fits, with the outcome `unsure` where that is improbable"
    weak = f" Its weakest class is `{weakest[0]}` (F1 {weakest[1]['f1']:.3f})." if weakest else ""
    return f"""## Intended use and limits

For {words} like those it was trained on: same language, same kind of source, same time. The figures above say nothing \
about other {words}.{weak} {answers}, and {longer}. It repeats \
whatever bias its data has; check the slices that matter to you before it decides anything about people."""

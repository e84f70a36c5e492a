"""The page: sections in their order, put into the templates with every value cleaned and escaped."""

import functools
from typing import Any

from jinja2 import ChainableUndefined, Environment, PackageLoader

from stillhouse.report import _judged, _made, _watched
from stillhouse.report._text import FILTERS, clean, clip

SECTIONS = (
    _judged.summary,
    _judged.quality,
    _judged.comparison,
    _judged.confusion,
    _judged.calibration,
    _judged.slices,
    _judged.errors,
    _made.ladder,
    _made.training,
    _made.data,
    _watched.drift,
    _watched.retrains,
    _made.lineage,
    _made.settings,
    _made.environment,
)
"""From what a reader asks first to what proves it; each gives None where there is nothing to say."""


@functools.cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("stillhouse.report", "templates"), autoescape=True, finalize=clean, trim_blocks=True,
        lstrip_blocks=True, undefined=ChainableUndefined,
    )  # fmt: skip
    environment.filters.update(FILTERS)
    return environment


def build_page(facts: dict[str, Any]) -> str:
    """One self-contained HTML document of what `collect` found (see `stillhouse.report.collect`)."""
    sections = [section for make in SECTIONS if (section := make(facts))]
    template = _templates().get_template("page.html")
    return template.render(facts=facts, sections=sections, title=_title(facts), kind=_kind(facts))


def _title(facts: dict[str, Any]) -> str:
    model = facts.get("model")
    if model:
        return f"{clip(model['name'], 80)} version {model['version']}"
    return clip(facts.get("recipe") or facts["key"][:12], 80)


def _kind(facts: dict[str, Any]) -> str:
    if facts.get("model"):
        return "Registered model"
    kind = facts["steps"][-1]["kind"] if facts["steps"] else "artifact"
    return {"release": "Release", "scores": "Scores", "data": "Data"}.get(kind, "Model")

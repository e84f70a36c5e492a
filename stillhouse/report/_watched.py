"""Sections about the model in use: drift over time, retraining. Their files may be of another release: read with care."""

from typing import Any

Section = dict[str, Any]
Facts = dict[str, Any]


def drift(facts: Facts) -> Section | None:
    return None


def retrains(facts: Facts) -> Section | None:
    return None

"""Whole runs of the command line on tiny models, each test in a home of its own."""

from tests.tiny_runs import (
    cli,
    cli_after_run,
    cli_with_head,
    first_run,
    home_until,
    make_cli,
    shared_recipe,
    tiny_base,
    tiny_recipe,
)

__all__ = [
    "cli", "cli_after_run", "cli_with_head", "first_run", "home_until", "make_cli", "shared_recipe", "tiny_base",
    "tiny_recipe",
]  # fmt: skip

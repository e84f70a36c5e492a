"""What a scheduled run says at its start when finished work has become stale: why, and which steps run again."""

from pipelines.explain import causes
from pipelines.plan import Plan
from stillhouse.store import Store


def trained_again(plan: Plan, store: Store) -> list[str]:
    """A line for each reason, such as `code stillhouse.models changed: head, top`, then all steps that will run.

    Empty when nothing is stale: a recipe's first run, or one with new data alone, is no news.
    """
    reasons = causes(plan, store)
    again = [step.name for step in plan.steps if not step.hit]
    return [*reasons, f"these steps run again: {', '.join(again)}"] if reasons else []


def log_trained_again(plan: Plan, store: Store) -> None:
    """The same in the log of the flow run that calls it."""
    from prefect.logging import get_run_logger

    for line in trained_again(plan, store):
        get_run_logger().warning("%s", line)

"""One recipe run in MLflow: a parent run, opened at the first step that really runs, and nested runs for the steps."""

from pathlib import Path
from typing import Any

from pipelines.listener import Outcome
from pipelines.plan import Plan
from stillhouse.store import Store
from tasks.tracking import close_dead_runs, finish, log_step, start_parent


class RunTracker:
    """Steps that come from the store leave no trace here: an unchanged recipe opens no run."""

    def __init__(self, home: Path, plan: Plan) -> None:
        self.home = home
        self.plan = plan
        self.run_id: str | None = None

    def step(self, outcome: Outcome) -> None:
        """Record one finished or failed step."""
        store = Store(self.home)
        manifest = store.manifest(outcome["key"]) if outcome["state"] != "failed" else None
        manifest = manifest or {"method": outcome["uses"], "key": outcome["key"]}
        from_store = outcome["state"] == "cached" or (outcome["state"] == "refused" and outcome["seconds"] == 0)
        if from_store:
            return
        if self.run_id is None:
            close_dead_runs(self.home)
            recipe = self.plan.recipe
            config = recipe.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            self.run_id = start_parent(self.home, recipe.name, config)
        directory = None if outcome["state"] == "failed" else store.path(outcome["key"])
        log_step(self.home, self.run_id, outcome["name"], manifest, directory, outcome["state"])

    def finish(self, status: str, summary: dict[str, Any] | None = None) -> None:
        """Close the parent run; `status` is MLflow's: FINISHED, FAILED or KILLED."""
        if self.run_id is not None:
            finish(self.home, self.run_id, status, summary or {})

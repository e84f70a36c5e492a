"""The flow of the deployment `train`: a recipe chosen, and changed, in Prefect's form."""

from pathlib import Path
from typing import Annotated, Any

from prefect import flow
from prefect.runtime import flow_run
from pydantic import Field

from flows.form import AS_THE_RECIPE_SAYS, ApprovalHours, NeedsApproval, overrides_of, parameter, run_name
from flows.request import Request
from flows.run import run_in_session
from pipelines.load import recipe_names
from stillhouse.home import find_home

Override = Annotated[str, Field(title="STEP.KEY=VALUE", pattern="^[^=]+=")]
NO_OVERRIDES: list[str] = []
"""Not None: the form shows a list as a list, and `list | None` as a switch between two types."""


def _name() -> str:
    filled = flow_run.parameters
    keys = ("source", "text", "label", "seed", "rows")
    changes = {key: filled.get(key) for key in keys if filled.get(key) != AS_THE_RECIPE_SAYS}
    if changes.get("source"):
        changes["source"] = Path(str(changes["source"])).name
    changes[""] = ", ".join(
        [*(filled.get("overrides") or []), *([] if filled.get("promote", True) else ["challenger"])]
    )
    return run_name(str(filled.get("recipe")), changes)


@flow(name="train", flow_run_name=_name, persist_result=False, log_prints=False)
def train(  # noqa: PLR0913
    recipe: Annotated[
        str,
        parameter(
            "Recipe",
            "What to train: a recipe that comes with Stillhouse, or one of the home's recipes/ directory",
            choices=recipe_names(find_home()),
        ),
    ] = "opinions",
    source: Annotated[
        str,
        parameter(
            "Source",
            "Data of your own: the whole path of a CSV, TSV, JSONL or Parquet file or of a folder, a URL,"
            " hub:owner/name, or pkg://package/path. Empty: as the recipe says",
        ),
    ] = "",
    text: Annotated[str, parameter("Text", "The column of the text. Empty: as the recipe says")] = "",
    label: Annotated[str, parameter("Label", "The column of the label. Empty: as the recipe says")] = "",
    seed: Annotated[
        int, parameter("Seed", "A whole number; another one is another run. -1: as the recipe says", ge=-1, lt=2**31)
    ] = AS_THE_RECIPE_SAYS,
    rows: Annotated[
        int, parameter("Rows", "Train on a sample of so many rows; 0: all rows; -1: as the recipe says", ge=-1)
    ] = AS_THE_RECIPE_SAYS,
    promote: Annotated[
        bool, parameter("Promote", "Make the model champion if the gate passes it; off: it stays challenger")
    ] = True,
    approval: NeedsApproval = False,
    approval_timeout_hours: ApprovalHours = 24,
    overrides: Annotated[
        list[Override],
        parameter(
            "Overrides", "Any other setting, as STEP.KEY=VALUE, for example student.layers=2; the last one counts"
        ),
    ] = NO_OVERRIDES,
) -> Any:
    """Train, compress, test and release a model by a recipe; what was done before comes from the store."""
    data = {"source": source.strip(), "text": text.strip(), "label": label.strip(), "max_train_rows": rows}

    def request(home: Path) -> Request:
        changes = [*overrides_of(recipe, home, data, seed), *(one.strip() for one in overrides)]
        return Request(
            recipe, changes, promote=promote, approval=approval, approval_timeout_hours=approval_timeout_hours
        )

    return run_in_session(request)

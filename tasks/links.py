"""Where a person looks at a run and its model in MLflow's own pages."""

import os
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from tasks.mlflow_home import open_client, tracking_uri

PAGES = "STILLHOUSE_MLFLOW_PAGES"
"""Where a browser finds the MLflow server, if not at the address that runs use."""


def mlflow_links(home: Path, model: dict[str, Any] | None, run_id: str | None) -> list[tuple[str, str]]:
    """`[(title, address)]` of the model version and of the run that made it; none without an MLflow server."""
    base = web_address(home)
    if base is None:
        return []
    links = []
    if model and model.get("version"):
        name, version = model["name"], str(model["version"])
        links.append(("Model", f"{base}/#/models/{quote(name, safe='')}/versions/{version}"))
        run_id = run_id or open_client(home).get_model_version(name, version).run_id  # all from the store: who made it
    if run_id:
        experiment = open_client(home).get_run(run_id).info.experiment_id
        links.append(("Run in MLflow", f"{base}/#/experiments/{experiment}/runs/{run_id}"))
    return links


def web_address(home: Path) -> str | None:
    """The address of the pages of the home's server, without a password in it; None for a database."""
    parts = urlsplit(os.environ.get(PAGES) or tracking_uri(home))
    if parts.scheme not in ("http", "https"):
        return None
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}"

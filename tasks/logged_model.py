"""A release's bundle as an MLflow model: written, and proved in a fresh process before anything is registered."""

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from stillhouse.files import read_json
from tasks.mlflow_home import load_pyfunc, no_warnings, tracking_uri

LARGEST_CHANGE = 1e-5
"""Of a probability, in the gate's own batching."""
CHECK_SECONDS = 900
REQUIREMENTS = ("mlflow", "numpy", "onnxruntime", "pandas", "tokenizers")
"""What a registered model needs; pinned to the versions it was checked with."""


def save_served_model(directory: Path, bundle: Path, model_id: str | None = None, run_id: str | None = None) -> None:
    """Write the MLflow model of `bundle`: models-from-code, no pickle, requirements pinned."""
    pyfunc = load_pyfunc()
    import pandas as pd
    from mlflow.models import Model, ModelSignature
    from mlflow.types import ColSpec, DataType, Schema

    about = read_json(bundle / "stillhouse.json")
    names = ("label", "outcome")
    columns = [
        *((DataType.string, name) for name in names),
        *((DataType.double, f"p_{label}") for label in about["labels"]),
    ]
    if about["problem"] == "token-classification":
        columns = [(DataType.string, "entities")]
    outputs = Schema([ColSpec(kind, name) for kind, name in columns])
    with no_warnings():
        pyfunc.save_model(
            str(directory),
            python_model=str(Path(__file__).with_name("serving_model.py")),
            artifacts={"bundle": str(bundle)},
            signature=ModelSignature(Schema([ColSpec(DataType.string, "text")]), outputs),
            input_example=pd.DataFrame({"text": ["One text", "and another"]}),
            pip_requirements=[f"{name}=={metadata.version(name)}" for name in REQUIREMENTS],
            mlflow_model=Model(model_uuid=model_id, model_id=model_id, run_id=run_id),
        )


def check_in_fresh_process(home: Path, model_id: str, check: Path) -> str:
    """What is wrong with the logged model's predictions on `check`, as the end of a sentence; "" when nothing is."""
    script = Path(__file__).with_name("fresh_check.py")
    environment = {
        **os.environ,
        "MLFLOW_TRACKING_URI": tracking_uri(home),
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    done = subprocess.run(
        [sys.executable, "-I", str(script), f"models:/{model_id}", str(check)],
        capture_output=True, text=True, env=environment, timeout=CHECK_SECONDS, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        return f"does not load or predict in a fresh process: {lines[-1]}"
    found = json.loads(done.stdout.strip().splitlines()[-1])
    if found["changed"]:
        return (
            f"gives another answer than the gate saw on {found['changed']} of {found['rows']} rows, "
            f'for example "{found["example"]}"'
        )
    if not found["largest_change"] <= LARGEST_CHANGE:
        return f"differs from what the gate saw by {found['largest_change']:.2g} in a probability"
    return ""

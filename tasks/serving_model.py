"""The code of every registered model (MLflow "models from code"): it travels inside the model and runs without us.

A deployment needs mlflow, pandas and what `scoring.py` of the bundle imports (numpy, tokenizers, onnxruntime); neither
stillhouse nor torch. `predict` takes a DataFrame with a `text` column (or what MLflow makes one of: a list of
`{"text": …}`, a Series named text) and gives one row each: `label`, `outcome` ("unsure", or the label) and a
probability `p_LABEL` per label, or for a token problem `entities`, a JSON list. No rows, or a cell that is no text, is
a bad request (400).
"""

import importlib.util
import json
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc.model import PythonModel


class ServedModel(PythonModel):
    """The bundle's own scorer behind MLflow's interface."""

    def load_context(self, context: Any) -> None:
        """Load `scoring.py` of the bundle by its path, and the model with it."""
        bundle = Path(context.artifacts["bundle"])
        spec = importlib.util.spec_from_file_location("bundle_scoring", bundle / "scoring.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(f"{bundle} has no scoring.py")
        scoring = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(scoring)
        self.scorer = scoring.OnnxScorer(bundle)

    def predict(  # pyright: ignore[reportIncompatibleMethodOverride]: MLflow's abstract method claims to return None
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row of results for each text, in order."""
        texts = list(model_input["text"] if isinstance(model_input, pd.DataFrame) else model_input)
        if len(texts) == 1 and isinstance(texts[0], list):  # what MLflow makes of {"text": [a, b]}
            texts = texts[0]
        _check(texts)
        results = self.scorer.predict(texts)
        if self.scorer.problem == "token-classification":
            return pd.DataFrame({"entities": [json.dumps(row["entities"], ensure_ascii=False) for row in results]})
        found: dict[str, list[Any]] = {name: [row[name] for row in results] for name in ("label", "outcome")}
        for label in self.scorer.labels:
            found[f"p_{label}"] = [row["probabilities"][label] for row in results]
        return pd.DataFrame(found)


def _check(texts: list[Any]) -> None:
    if not texts:
        raise MlflowException.invalid_parameter_value("there are no texts: give at least one row")
    wrong = next((row for row, text in enumerate(texts) if not isinstance(text, str)), None)
    if wrong is not None:
        raise MlflowException.invalid_parameter_value(f"row {wrong} is {texts[wrong]!r:.40}: give a text in each row")


set_model(ServedModel())

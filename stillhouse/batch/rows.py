"""Predictions of some rows: the columns of the output, and the rows of the log."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pandas as pd

from stillhouse.batch.settings import Model, Settings
from stillhouse.batch.smoothing import Smoother
from stillhouse.data._clean import as_number, as_text
from stillhouse.keys import digest
from stillhouse.prediction_log import DAY_SECONDS
from stillhouse.scorer import Scorer
from stillhouse.scoring import UNSURE, decide

ID = "prediction_id"


def predicted_columns(scorer: Scorer, texts: list[str], smoother: Smoother | None, streams: list[str]) -> pd.DataFrame:
    """One row for each text.

    `predicted`, `outcome` ("unsure", or the label), `confidence` (the label's probability), `p_LABEL`; with a smoother
    the smoothed probabilities `s_LABEL` and the label they give, `smoothed`. For tokens `entities`, a JSON list.
    """
    if scorer.problem == "token-classification":
        found = scorer.predict(texts)
        return pd.DataFrame({"entities": [json.dumps(row["entities"], ensure_ascii=False) for row in found]})
    probabilities, chosen, sure = decide(scorer.score(texts), scorer.labels, scorer.about)
    names = np.asarray(scorer.labels, dtype=object)
    columns: dict[str, Any] = {
        "predicted": names[chosen], "outcome": np.where(sure, names[chosen], UNSURE),
        "confidence": probabilities[np.arange(len(chosen)), chosen],
    }  # fmt: skip
    columns |= {f"p_{label}": probabilities[:, index] for index, label in enumerate(scorer.labels)}
    if smoother is not None:
        means = smoother.smooth(probabilities, streams)
        columns["smoothed"] = names[means.argmax(axis=1)]
        columns |= {f"s_{label}": means[:, index] for index, label in enumerate(scorer.labels)}
    return pd.DataFrame(columns)


def row_ids(run: str, first: int, count: int) -> list[str]:
    """Ids of rows that bring none: the same work gives the same ids."""
    return [digest([run, row])[:20] for row in range(first, first + count)]


def log_rows(
    frame: pd.DataFrame, results: pd.DataFrame, model: Model, settings: Settings, scorer: Scorer
) -> pd.DataFrame:
    """`results` as the prediction log has them; `frame` are the rows as they came (with `prediction_id` or an id)."""
    texts = frame[settings.text]
    logged: dict[str, Any] = {
        "id": _strings(frame[settings.id or ID]), "version": model.version,
        "text": texts if settings.keep_texts else None,
        "topic": _strings(frame[settings.topic]) if settings.topic else None,
    }  # fmt: skip
    if "entities" in results:
        logged["label"] = [_kinds(cell) for cell in results["entities"]]
    else:
        logged |= {"label": results["predicted"], "unsure": results["outcome"] == UNSURE}
        logged |= {f"p_{label}": results[f"p_{label}"].astype(np.float32) for label in scorer.labels}
    if not settings.keep_texts:
        words = [text.split() for text in texts] if "entities" in results else list(texts)
        logged["embedding"] = list(scorer.embed(words).astype(np.float16))
    now = time.time()
    logged["time"] = _times(frame[settings.time], now) if settings.time else np.full(len(frame), now)
    return pd.DataFrame(logged)


def _times(column: Any, now: float) -> np.ndarray:
    """Epoch seconds; `now` where a cell is no time, lies before 1970 or more than a day ahead (as 9999-12-31 does)."""
    numbers = [as_number(cell) for cell in column]
    seconds = np.array(
        [_seconds(cell) if number is None else number for cell, number in zip(column, numbers, strict=True)]
    )
    return np.where((seconds >= 0) & (seconds <= now + DAY_SECONDS), seconds, now)


def _seconds(cell: Any) -> float:
    try:
        moment = datetime.fromisoformat(str(cell).strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return float("nan")


def _strings(column: Any) -> list[str | None]:
    return [as_text(cell) for cell in column]


def _kinds(entities: str) -> str:
    """The kinds of entities in a text, in the order of their names: what the log has in place of a label."""
    return "+".join(sorted({entity["label"] for entity in json.loads(entities)})) or "none"

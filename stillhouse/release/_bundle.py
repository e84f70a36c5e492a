"""The bundle: model, tokenizer, the one file that scores with them, and what it must answer."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np

import stillhouse.scoring
from stillhouse.data.read import load_info, load_split
from stillhouse.errors import UserError
from stillhouse.evaluate.rows import rows_of
from stillhouse.files import write_json
from stillhouse.release._awkward import awkward_texts
from stillhouse.scoring import OnnxScorer

MODEL_FILES = ("model.onnx", "tokenizer.json", "stillhouse.json")
LADDER_FILES = ("ladder.json", "ladder.svg")
"""What `select.cheapest` says of the rungs it compared."""
CHECK_ROWS = 200
REFERENCE_ROWS = 500


def write_bundle(model: Path, data: Path | None, bundle: Path) -> None:
    """Fill `bundle` with all but the verdict and the model card.

    `check.json` is `{"rows": [...]}`: each row is a text with what `OnnxScorer.predict` said when it got all of them in
    one call. `reference.npy` is float32 [rows, hidden]. Without data there are only awkward texts and no reference.
    """
    for name in MODEL_FILES:
        if not (model / name).is_file():
            raise UserError(f"the model has no {name}", "export it again")
        shutil.copyfile(model / name, bundle / name)
    for name in LADDER_FILES:
        if (model / name).is_file():
            shutil.copyfile(model / name, bundle / name)
    shutil.copyfile(stillhouse.scoring.__file__, bundle / "scoring.py")
    scorer = OnnxScorer(bundle)
    rows = _validation_rows(data, scorer.problem) if data else []
    texts = [_as_text(row) for row in spread(rows, CHECK_ROWS)] + awkward_texts()
    answers = scorer.predict(texts)
    _must_answer(answers, texts)
    write_json(
        bundle / "check.json",
        {"rows": [{"text": text, **answer} for text, answer in zip(texts, answers, strict=True)]},
    )
    if rows:
        embedded = np.asarray(scorer.embed(spread(rows, REFERENCE_ROWS)), dtype=np.float32)
        np.save(bundle / "reference.npy", embedded, allow_pickle=False)


def spread(rows: list[Any], most: int) -> list[Any]:
    """At most `most` of `rows`, evenly spread, in their order."""
    if len(rows) <= most:
        return rows
    return [rows[index] for index in np.linspace(0, len(rows) - 1, most).astype(int)]


def _validation_rows(data: Path, problem: str) -> list[Any]:
    if load_info(data)["problem"] != problem:
        raise UserError(f"the data is not for {problem}, as the model is", "connect the data the model was trained on")
    return rows_of(problem, load_split(data, "validation"))[0]


def _as_text(row: str | list[str]) -> str:
    return row if isinstance(row, str) else " ".join(row)


def _must_answer(answers: list[dict[str, Any]], texts: list[str]) -> None:
    """Every probability a number: JSON has no NaN, and nobody could use one."""
    for answer, text in zip(answers, texts, strict=True):
        found = (
            answer["probabilities"].values() if "probabilities" in answer else [e["score"] for e in answer["entities"]]
        )
        if not np.isfinite(list(found)).all():
            raise UserError(f"the model gives no finite score for {text[:40]!r}", "train or quantize it again")

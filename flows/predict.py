"""Predictions with a model by name: which version, which input, what goes to the log."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse.errors import UserError
from stillhouse.home import find_home

if TYPE_CHECKING:
    from stillhouse.batch.run import Progress
    from stillhouse.batch.settings import Model, Settings

KEEP_DAYS = 90.0
"""How long the prediction log keeps what was logged."""


def find_model(spec: str, home: Callable[[], Path]) -> "Model":
    """The model that `spec` means: a directory, or `name`, `name@alias`, `name/version` in the registry of `home()`."""
    from stillhouse.batch.settings import Model

    if os.path.isfile(os.path.join(spec, "stillhouse.json")):
        return Model(Path(spec), spec)
    if os.path.isdir(spec):
        raise UserError(
            f"{spec} is not a model directory", "It needs stillhouse.json, as `stillhouse export` writes it"
        )
    if spec.startswith(("./", "../", "/", "~/")):
        raise UserError(f"no directory {spec}", "Name a model's directory, or a registered model")
    from tasks.registry import resolve

    found = resolve(home(), spec)
    return Model(found["directory"], spec, found["name"], found["version"])


def predict_texts(model: "Model", texts: list[str], log_home: Path | None = None) -> list[dict[str, Any]]:
    """What `Scorer.predict` says of each text, in order; with `log_home` it goes to that home's prediction log too."""
    from stillhouse.scorer import load_scorer

    scorer = load_scorer(model.directory)
    results = scorer.predict(texts)
    if log_home is not None and texts:
        if model.name is None:
            raise UserError(f"{model.spec} is not registered and has no prediction log", "Leave --log out")
        import pandas as pd

        from stillhouse.batch.rows import ID, log_rows, predicted_columns, row_ids
        from stillhouse.batch.settings import Settings
        from stillhouse.prediction_log import PredictionLog

        run = f"texts-{time.time_ns()}-{os.getpid()}"
        frame = pd.DataFrame({"text": texts, ID: row_ids(run, 0, len(texts))})
        columns = predicted_columns(scorer, texts, None, [])
        PredictionLog(log_home, model.name).append(
            log_rows(frame, columns, model, Settings(), scorer).assign(run=run), run
        )
    return results


def predict_file(  # noqa: PLR0913 - what to do, where, and whom to tell
    spec: str,
    source: str,
    output: Path,
    settings: "Settings",
    home: Callable[[], Path] = find_home,
    *,
    keep_days: float | None = KEEP_DAYS,
    tell: "Progress" = lambda done, total, note: None,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Write the rows of `source` (a path or URL) with their predictions to `output`; returns the account.

    The version it starts with is kept in the work directory: whoever goes on after a kill goes on with that one,
    whatever was promoted since. `say` gets a line on what is resumed, or begun anew and why.
    """
    from stillhouse.batch.run import Batch
    from stillhouse.batch.work import Work
    from stillhouse.prediction_log import PredictionLog

    work = Work(output)
    with work.locked():
        pinned = work.pinned(spec)
        model = _pinned(spec, pinned, home, say) if pinned else find_model(spec, home)
        batch = Batch(work, model, _local(source, work.directory), settings, home() if model.name else None)
        if batch.anew:
            say(f"beginning anew: {batch.anew}")
        elif batch.rows_done:
            say(f"going on after {batch.rows_done:,} rows, with {model.title} as it began")
        account = batch.predict(tell)
    if batch.log is not None and keep_days is not None and model.name:
        account["pruned"] = PredictionLog(home(), model.name).prune(keep_days)
    return account


def _pinned(spec: str, pinned: str, home: Callable[[], Path], say: Callable[[str], None]) -> "Model":
    from dataclasses import replace

    try:
        return replace(find_model(pinned, home), spec=spec)
    except UserError as error:
        say(f"{pinned}, with which this began, cannot be used: {error.message}")
        return find_model(spec, home)


def is_url(source: str) -> bool:
    return "://" in source and len(source.split()) == 1


def _local(source: str, directory: Path) -> Path:
    """A file on this machine: what a URL gives is kept in the work directory, so that a resumed run reads the same."""
    if not is_url(source):
        return Path(source)
    from stillhouse.source import DigestMemo, fetch_url, resolve_source

    return fetch_url(resolve_source(source, "data", Path.cwd(), {}, DigestMemo()), directory / "input")

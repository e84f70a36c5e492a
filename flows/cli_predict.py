"""`predict`: labels for a text, lines of the standard input or a file of any size; `serve`: over HTTP."""

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.environment import prepare
from flows.output import print_json
from stillhouse.errors import UserError
from stillhouse.home import find_home

if TYPE_CHECKING:
    from stillhouse.batch.run import Progress

FILES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".xlsx")


def add_commands(app: typer.Typer) -> None:
    for command in (predict, serve):
        app.command()(command)


def predict(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="name, name@alias, name/version, or a directory.")],
    source: Annotated[str, typer.Argument(metavar="INPUT", help="A file or URL, - for standard input, or a text.")],
    text: Annotated[str, typer.Option(help="Column with the text.")] = "text",
    output: Annotated[Path | None, typer.Option("--output", "-o", help="CSV, JSONL or Parquet file to write.")] = None,
    row_id: Annotated[str | None, typer.Option("--id", help="Column that tells rows apart, for later labels.")] = None,
    topic: Annotated[str | None, typer.Option(help="Column with the topic, for the log.")] = None,
    time: Annotated[
        str | None,
        typer.Option(help="Column with the time of a row (ISO 8601, UTC if it names no zone, or epoch seconds)."),
    ] = None,
    chunk_rows: Annotated[int, typer.Option(min=1, help="Rows done at a time.")] = 10_000,
    log: Annotated[
        bool | None, typer.Option("--log/--no-log", help="Add to the prediction log; by default files of rows only.")
    ] = None,
    texts: Annotated[bool, typer.Option("--texts/--no-texts", help="Whether the log holds the texts.")] = True,
    keep_days: Annotated[float, typer.Option(min=0, max=36_500, help="Days the log keeps.")] = 90,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False,
) -> None:
    """Label a text, or every row of a file. One row out for one in, in order; resumed when killed.

    Example: stillhouse predict opinions "the crew was wonderful"
    """
    from flows.predict import find_model, is_url, predict_file, predict_texts
    from stillhouse.batch.settings import Settings

    # pathlib raises for a text that is too long for a name
    if source != "-" and (os.path.isfile(source) or is_url(source)):
        settings = Settings(text, row_id, topic, time, chunk_rows, log is not False, texts)
        with _bar() as tell:
            summary = predict_file(
                model,
                source,
                output or _default_output(source),
                settings,
                _home,
                keep_days=keep_days,
                tell=tell,
                say=_say,
            )
        print_json(summary) if as_json else print(f"{summary['rows']:,} rows → {summary['output']}")
        return
    if source != "-" and os.path.isdir(source):
        raise UserError(f"{source} is a directory", "Name a file in it, or put a text in quotes")
    if source != "-" and _looks_like_a_file(source):
        raise UserError(f"no file {source}", "Name an existing file, or put a text in quotes")
    of_files = {"--output": output, "--id": row_id, "--topic": topic, "--time": time}
    for option, value in of_files.items():
        if value is not None:
            raise UserError(f"{option} is for files, not for a text or lines", "Leave it out, or name a file")
    given = _lines() if source == "-" else [source]
    found = find_model(model, _home)
    results = predict_texts(found, given, _home() if log else None)
    if as_json:
        print_json({"model": found.title, "predictions": results})
        return
    for result in results:
        print(json.dumps(result, ensure_ascii=False) if "entities" in result else _line(result))


def _lines() -> list[str]:
    try:
        return [line.rstrip("\r\n") for line in TextIOWrapper(sys.stdin.buffer, "utf-8")]
    except UnicodeDecodeError:
        raise UserError("the standard input is not UTF-8", "Convert it, for example with iconv") from None


def _home() -> Path:
    home = find_home()
    prepare(home)
    return home


def _looks_like_a_file(source: str) -> bool:
    """One word that begins as a path does or ends as a file of data or text does."""
    if source.split() != [source]:
        return False
    return source.startswith(("./", "../", "/", "~/")) or source.lower().endswith(FILES)


def _line(result: dict[str, Any]) -> str:
    """Outcome and probability of the label, and the label itself where that is unsure."""
    label, outcome = result["label"], result["outcome"]
    line = f"{outcome}\t{result['probabilities'][label]:.4f}"
    return line if outcome == label else f"{line}\t{label}"


def _default_output(source: str) -> Path:
    if "://" in source:
        raise UserError(f"where is the output of {source} to go?", "Name a file: --output FILE")
    path = Path(source)
    return path.with_name(f"{path.stem}.predictions.csv")


def _say(line: str) -> None:
    print(line, file=sys.stderr)


@contextmanager
def _bar() -> Iterator["Progress"]:
    """A bar on a terminal, nothing elsewhere."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (BarColumn(32), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    bar = Progress(*columns, TextColumn("[dim]{task.fields[note]}"), console=console, transient=True)
    bar.disable = not console.is_terminal
    task = bar.add_task("rows", total=None, note="")

    def tell(done: int, total: int, note: str) -> None:
        bar.update(task, completed=done, total=total or None, note=note)

    with bar:
        yield tell


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="name (its champion), name@alias or name/version.")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port on this machine; 0: any free one.")] = 5001,
    poll_seconds: Annotated[float, typer.Option(min=0.1, help="How often the registry is asked.")] = 5.0,
) -> None:
    """Serve a registered model over HTTP on this machine; a promotion is taken over without a failed request.

    Example: stillhouse serve opinions --port 5001
    """
    from flows.serve import serve as serve_model

    serve_model(_home(), model, port, poll_seconds, _say)

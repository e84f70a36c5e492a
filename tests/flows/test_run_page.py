"""What a run's page says while it runs and at its end: words and numbers, without a server."""

import logging

import pytest

from flows.request import Result
from flows.run_page import RunPage, weights
from flows.run_results import headline, result_rows, rule_rows, step_rows, verdict
from pipelines.listener import Listener
from stillhouse.errors import UserError
from stillhouse.files import write_json
from stillhouse.store import Store
from tasks.links import mlflow_links, web_address
from tasks.run_log import OneLine

LOGGED: list[str] = []


class Heard(Listener):
    def __init__(self):
        self.calls = []

    def progress(self, name, done, total, note):
        self.calls.append((name, done, total, note))


@pytest.fixture
def page(monkeypatch):
    """A page of a run with three steps to do, which writes its log to `LOGGED`."""
    LOGGED.clear()
    logger = logging.Logger("page")
    logger.addHandler(logging.NullHandler())
    logger.addFilter(lambda record: LOGGED.append(record.getMessage()) or True)
    monkeypatch.setattr("flows.run_page.get_run_logger", lambda: logger)
    return RunPage("tiny", {"head": 10.0, "full": 30.0, "onnx": None}, Heard())


def outcome(name, state="ran", uses="train.stage", key="", **metrics):
    return {"name": name, "uses": uses, "key": key, "state": state, "seconds": 2.0, "metrics": metrics}


def test_a_step_of_unknown_length_weighs_as_the_others_do():
    assert weights({"a": 10.0, "b": 30.0, "c": None}) == {"a": 10.0, "b": 30.0, "c": 20.0}
    assert weights({"a": None}) == {"a": 1.0}


def test_the_bar_counts_seconds_not_steps(page):
    page.step_finished(outcome("data", "cached"))
    assert page.state() == (0.0, "tiny: step 1 of 3: between steps")
    page.step_started("head")
    page.step_finished(outcome("head", accuracy=0.5))
    page.step_started("full")
    page.progress("full", 1, 2, "epoch 1")
    share, words = page.state()
    assert share == pytest.approx(100 * (10 + 15) / 60)
    assert words == "tiny: step 2 of 3: full 50% epoch 1"
    assert page.other.calls == [("full", 1, 2, "epoch 1")]
    assert "head ran in 2.0 s, accuracy 0.5000" in LOGGED


def test_waiting_for_the_machine_is_said_at_once_and_once(page):
    page.step_started("head")
    for _ in range(3):
        page.progress("head", 0, 0, "waiting: another run uses this machine")
    assert page.state()[1] == "tiny: step 1 of 3: head waiting: another run uses this machine"
    assert [line for line in LOGGED if "waiting" in line] == ["head waiting: another run uses this machine"]


def test_a_failed_step_is_one_line_in_the_log(page):
    page.step_finished({**outcome("head", "failed"), "error": "no such column. Name another"})
    assert LOGGED == ["head failed: no such column. Name another"]


@pytest.fixture
def finished(home):
    """A refused run and the files its page reads."""
    store = Store(home)
    for key in "ris":
        store.path(key).mkdir(parents=True)
    rules = {
        "max_loss": {"limit": 0.02, "value": 0.05, "passed": False},
        "max_loss_champion": {"limit": 0.01, "passed": None, "not_applied": "the scores have no champion"},
    }
    write_json(store.path("r") / "verdict.json", {"passed": False, "rules": rules})
    write_json(store.path("i") / "rung.json", {
        "quality": {"value": 0.7}, "bytes": 2_000_000, "accepted": False, "reason": "loses 3 points"
    })  # fmt: skip
    candidate = {
        "metrics": {"f1_macro": 0.7},
        "intervals": {},
        "bytes": 2_000_000,
        "measured": {"texts_per_second": 1e3},
    }
    write_json(store.path("s") / "scores.json", {"problem": "text-classification", "candidate": candidate})
    steps = [
        outcome("int8", uses="quantize.int8", key="i"), outcome("scores", uses="evaluate.compare", key="s"),
        outcome("release", "refused", uses="release.gate", key="r", passed=0.0),
    ]  # fmt: skip
    gate = {"passed": False, "reasons": ["max_loss: loses 0.05"]}
    links = [("Model", "http://127.0.0.1:5000/#/models/tiny/versions/1")]
    return Result("tiny", steps, gate=gate, refusal="the gate refused: max_loss", links=links)


def test_results_steps_and_rules_are_tables_of_equal_columns(finished, home):
    rows = result_rows(finished, home)
    assert rows[0] == {"model": "", "f1_macro": "0.7000", "size": "2.0 MB", "texts/s": "1,000", "note": "candidate"}
    assert rows[1]["note"] == "on validation: rejected: loses 3 points"
    assert [row["outcome"] for row in rule_rows(finished, home)] == [
        "**failed**", "not applied: the scores have no champion"
    ]  # fmt: skip
    for table in (rows, step_rows(finished), rule_rows(finished, home)):
        assert len({tuple(row) for row in table}) == 1


def test_the_verdicts_page_says_why_and_where(finished, home):
    text = verdict(finished, result_rows(finished, home), rule_rows(finished, home))
    assert text.startswith(f"# {headline(finished)}\n") and "nothing was promoted" in headline(finished)
    assert "- [Model](http://127.0.0.1:5000/#/models/tiny/versions/1)" in text
    assert "- max_loss: loses 0.05" in text and "| max_loss | 0.02 | 0.0500 | **failed** |" in text


def test_links_lead_to_a_server_and_never_carry_a_password(tmp_path, monkeypatch):
    assert web_address(tmp_path) is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@host:5000/base/")
    assert web_address(tmp_path) == "http://host:5000/base"
    monkeypatch.setenv("STILLHOUSE_MLFLOW_PAGES", "http://127.0.0.1:5000")
    assert web_address(tmp_path) == "http://127.0.0.1:5000", "where a browser finds it"
    monkeypatch.undo()
    assert mlflow_links(tmp_path, {"name": "tiny", "version": 1}, "x") == []


def logged(error, message, monkeypatch):
    record = logging.LogRecord("x", logging.ERROR, "x", 1, message, (), (type(error), error, None))
    return OneLine().filter(record), record


def test_only_errors_that_say_the_fix_lose_their_traceback(monkeypatch):
    monkeypatch.delenv("STILLHOUSE_DEBUG", raising=False)
    kept, record = logged(UserError("no column", "Name another"), "Encountered exception during execution", monkeypatch)
    assert kept and record.getMessage() == "no column. Name another" and record.exc_info is None
    assert not logged(UserError("x"), "Task run failed with exception: UserError('x')", monkeypatch)[0]
    kept, record = logged(ValueError("x"), "Task run failed with exception", monkeypatch)
    assert kept and record.exc_info
    monkeypatch.setenv("STILLHOUSE_DEBUG", "1")
    assert logged(UserError("x"), "Task run failed with", monkeypatch)[1].exc_info

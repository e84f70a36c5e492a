"""The fastest rung that is good enough is chosen, and why is recorded."""

import json
import time

import numpy as np
import pytest

from stillhouse.errors import UserError
from stillhouse.method import Input
from stillhouse.quantize.int8 import Int8
from stillhouse.rungs import Sample
from stillhouse.select._cheapest import choose_rung, mark_pareto, measure_in_turns, over_budget, rung_names
from stillhouse.select._plot import draw_ladder
from stillhouse.select.cheapest import Cheapest
from tests.stillhouse.tiny_scoring import WORDS, export, make_job, make_model, make_rows


def rung(name, quality, size, speed, p95=1.0, over=()):
    measured = {"texts_per_second": speed, "latency_p50_ms": p95, "latency_p95_ms": p95}
    value = {"value": quality, "low": quality - 0.01, "high": quality + 0.01}
    loss = 0.8 - quality
    return {
        "name": name, "quality": value, "bytes": size, "loss": loss, "measured": measured, "over_budget": list(over),
    }  # fmt: skip


def test_the_fastest_within_the_budget_is_chosen():
    rungs = [rung("a", 0.80, 90, 100), rung("b", 0.79, 20, 400), rung("c", 0.70, 10, 900, over=["loses too much"])]
    assert (choose_rung(rungs)[0]["name"], choose_rung(rungs)[1]) == ("b", True)
    even = [rung("large", 0.8, 90, 400), rung("small", 0.8, 20, 400)]
    assert choose_rung(even)[0]["name"] == "small"


def test_out_of_budget_the_one_that_loses_least_goes_on():
    rungs = [rung("a", 0.75, 90, 100, over=["x"]), rung("b", 0.70, 20, 400, over=["x"])]
    assert (choose_rung(rungs)[0]["name"], choose_rung(rungs)[1]) == ("a", False)


def test_no_other_beats_what_is_on_the_front():
    """c is worse than b in everything; d is as b but larger; a is the best, b the fastest."""
    rungs = [rung("a", 0.8, 90, 100), rung("b", 0.79, 20, 400), rung("c", 0.78, 30, 300), rung("d", 0.79, 21, 400)]
    mark_pareto(rungs)
    assert [one["measured"]["pareto"] for one in rungs] == [True, True, False, False]


def test_what_is_too_much_is_said_with_its_limit():
    settings = Cheapest(max_loss=0.02, max_size_mb=1, max_p95_ms=3)
    assert over_budget(settings, rung("a", 0.79, 900_000, 100)) == []
    assert over_budget(settings, rung("a", 0.75, 2_000_000, 100, p95=4.5)) == [
        "loses 0.0500, 0.02 allowed",
        "has 2.00 MB, 1 allowed",
        "takes 4.50 ms for a text, 3 allowed",
    ]


def test_rungs_are_called_by_their_steps(tmp_path):
    rungs = [Input(tmp_path, key, "model.onnx", "") for key in ("k1", "k2", "k3")]
    job = make_job(tmp_path, "a")
    job.inputs["rungs"] = rungs
    job.lineage.extend([{"key": "k1", "step": "onnx"}, {"key": "k2", "step": "int8"}])
    assert rung_names(job) == ["onnx", "int8", "rung 3"]


@pytest.fixture(scope="module")
def ladder_inputs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("ladder")
    model = make_model(directory, hidden_size=128, intermediate_size=512, num_attention_heads=4)
    fp32, rows = export(model), make_rows(directory)
    job = make_job(directory, "int8", model=fp32, data=rows)
    Int8(accept_loss=1, min_speedup=0, speed_seconds=0.05).run(job)
    return model, fp32, job.out, rows


def select(directory, ladder_inputs, **settings):
    model, fp32, int8, rows = ladder_inputs
    job = make_job(directory, "chosen", data=rows, baseline=model)
    job.inputs["rungs"] = [Input(path, path.name, "model.onnx", str(path)) for path in (fp32, int8)]
    figures = Cheapest.model_validate({"speed_seconds": 0.1, **settings}).run(job)
    return job.out, json.loads((job.out / "ladder.json").read_text()), figures


def test_real_rungs_are_measured_and_one_is_published(tmp_path, ladder_inputs):
    out, ladder, figures = select(tmp_path, ladder_inputs, max_loss=1.0, max_size_mb=0.5)
    (chosen,) = [one for one in ladder["rungs"] if one["name"] == ladder["chosen"]]
    assert ladder["within"] and figures["within"] == 1 and figures["rungs"] == 2
    assert chosen["bytes"] == sum(
        (out / name).stat().st_size for name in ("model.onnx", "tokenizer.json", "stillhouse.json")
    )
    assert (out / "model.onnx").read_bytes() == (ladder_inputs[2] / "model.onnx").read_bytes(), "fp32 is too large"
    assert all(one["measured"]["texts_per_second"] > 0 for one in ladder["rungs"])
    rung = json.loads((out / "rung.json").read_text())
    assert rung["accepted"] and "fastest within the budget" in rung["reason"]
    assert (out / "ladder.svg").read_text().count("texts per second") == 1


def test_an_impossible_budget_is_said(tmp_path, ladder_inputs):
    out, ladder, figures = select(tmp_path, ladder_inputs, max_size_mb=0.001)
    assert not ladder["within"] and figures["within"] == 0
    assert all("allowed" in one["over_budget"][-1] for one in ladder["rungs"])
    assert "no rung is within the budget" in json.loads((out / "rung.json").read_text())["reason"]


def test_the_plot_is_the_same_each_time(tmp_path):
    rungs = [rung("a", 0.80, 9_000_000, 100), rung("b", 0.79, 2_000_000, 400)]
    mark_pareto(rungs)
    ladder = {"metric": "f1_macro", "baseline": 0.8, "chosen": "b", "rungs": rungs}
    for name in ("one.svg", "two.svg"):
        draw_ladder(ladder, tmp_path / name)
    assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "two.svg").read_bytes()


def test_an_interval_need_not_hold_the_value(tmp_path):
    one = rung("a", 0.80, 9_000_000, 100) | {"quality": {"value": 0.8, "low": 0.7, "high": 0.79}}
    mark_pareto([one])
    draw_ladder({"metric": "f1_macro", "baseline": 0.8, "chosen": "a", "rungs": [one]}, tmp_path / "one.svg")
    assert (tmp_path / "one.svg").stat().st_size


def test_few_rows_are_scored_as_long_as_many():
    class Counting:
        rows = 0

        def score(self, rows):
            self.rows += len(rows)
            time.sleep(0.001)

    scorer = Counting()
    sample = Sample("text-classification", ["a", "b"], ["x", "y", "z"], np.zeros(3), "f1_macro")
    found = measure_in_turns({"a": scorer}, sample, 0.5)["a"]  # type: ignore[dict-item]
    assert scorer.rows > 5 * 3 * 20, "each of five turns has a tenth of a second"
    assert found["latency_p95_ms"] >= found["latency_p50_ms"] >= 1


def test_rungs_of_different_tasks_are_refused(tmp_path, ladder_inputs):
    words = export(make_model(tmp_path, WORDS))
    job = make_job(tmp_path, "chosen", data=ladder_inputs[3])
    job.inputs["rungs"] = [Input(path, path.name, "model.onnx", "") for path in (ladder_inputs[1], words)]
    with pytest.raises(UserError, match="rung 2 has another task"):
        Cheapest().run(job)

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest

from stillhouse.errors import UserError
from stillhouse.files import read_json, write_json
from stillhouse.keys import content_digest, file_digest
from stillhouse.method import Job
from stillhouse.release.gate import Gate
from stillhouse.scoring import OnnxScorer
from tests.stillhouse.evaluate.tiny_models import LABELS, TOKENS, as_input, make_data, make_job, make_model

BUNDLE = {
    "scoring.py", "model.onnx", "tokenizer.json", "stillhouse.json", "README.md", "check.json", "reference.npy",
    "verdict.json",
}  # fmt: skip


def figures(f1: float, p95: float = 5.0) -> dict[str, Any]:
    return {
        "metrics": {"f1_macro": f1, "accuracy": 0.8},
        "intervals": {"f1_macro": {"low": f1 - 0.01, "high": f1 + 0.01}, "accuracy": {"low": 0.79, "high": 0.81}},
        "per_class": {
            label: {"precision": 0.8, "recall": 0.6, "f1": score, "support": 20}
            for label, score in zip(LABELS, (0.9, 0.8, 0.4), strict=True)
        },
        "bytes": 23_100_000,
        "measured": {"texts_per_second": 912.5, "latency_p50_ms": 3.0, "latency_p95_ms": p95},
    }


def make_scores(f1: float = 0.741, baseline: float | None = 0.768, **more: Any) -> dict[str, Any]:
    scores = {
        "problem": "text-classification", "split": "test", "rows": 3000, "candidate": figures(f1), "differences": {},
        "references": {"majority": {"f1_macro": 0.2, "accuracy": 0.42}, "linear": {"f1_macro": 0.7, "accuracy": 0.71}},
        "slices": {}, "agreement": 0.998, "largest_change": 0.0016, **more,
    }  # fmt: skip
    if baseline is not None:
        scores["baseline"] = figures(baseline, p95=30.0)
        scores["differences"] = {"baseline": {"measured": {"speedup": {"median": 3.2, "low": 3.1, "high": 3.4}}}}
    return scores


def make_gate_job(tmp_path: Path, scores: dict[str, Any], name: str = "job", **changes: Any) -> Job:
    if not (tmp_path / "model").exists():
        make_model(tmp_path / "model", scores["problem"])
        make_data(tmp_path / "data", scores["problem"], rows=600)
        (tmp_path / "data" / "test.parquet").unlink()  # the gate has no business with the test rows
    (tmp_path / f"{name}-scores").mkdir()
    write_json(tmp_path / f"{name}-scores" / "scores.json", scores)
    job = make_job(
        tmp_path, name, model=as_input(tmp_path / "model"), data=as_input(tmp_path / "data", "data"),
        scores=as_input(tmp_path / f"{name}-scores", "scores"),
    )  # fmt: skip
    return Job(**{**vars(job), **changes})


def judge(tmp_path: Path, scores: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """The verdict of a gate; only its rules run."""
    from stillhouse.release._release import make_verdict
    from stillhouse.release._rules import apply_rules

    return make_verdict(apply_rules(Gate(**settings), scores), scores, None)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "f1_macro 0.741 is 0.027 below the baseline's 0.768; at most 0.020 allowed"),
        ({"max_loss": 1, "floors": {"f1_macro": 0.75}}, "f1_macro 0.741 is below its floor 0.750"),
        ({"max_loss": 1, "class_floors": 0.5}, 'F1 of "meh" 0.400 is below its floor 0.500'),
        ({"max_loss": 1, "class_floors": {"good": 0.85}}, 'F1 of "good" 0.800 is below its floor 0.850'),
        ({"max_loss": 1, "max_size_mb": 20}, "the model has 23.1 MB; at most 20.0 MB allowed"),
        ({"max_loss": 1, "max_p95_ms": 4.5}, "95 % of single texts take up to 5.0 ms; at most 4.5 ms allowed"),
        (
            {"max_loss": 1, "min_speedup": 4},
            "3.20 times the baseline's speed, 3.40 at best; at least 4.00 required",
        ),
        ({"max_loss": 1, "min_business_score": 0.7}, "the business score 0.500 is below 0.700"),
        (
            {"max_loss": 1, "min_agreement": 0.999},
            "scored one by one, 0.20 % of the labels change; at most 0.10 % allowed",
        ),
        (
            {"max_loss": 1, "max_loss_champion": 0.03},
            "f1_macro 0.741 is 0.059 below the champion's 0.800; at most 0.030 allowed",
        ),
    ],
)
def test_a_broken_rule_is_one_plain_sentence(tmp_path, settings, reason):
    scores = make_scores(champion=figures(0.8), business={"weights": {}, "measured": {"candidate": 0.5}})
    verdict = judge(tmp_path, scores, **{"max_loss_champion": 1, **settings})
    assert verdict["reasons"] == [reason]
    assert verdict["passed"] is False


def test_every_broken_rule_is_listed(tmp_path):
    verdict = judge(
        tmp_path, make_scores(), floors={"f1_macro": 0.9, "accuracy": 0.9}, class_floors=0.85, max_size_mb=1
    )
    assert len(verdict["reasons"]) == 6
    assert {name for name, rule in verdict["rules"].items() if rule["passed"] is False} == {
        "floors.f1_macro", "floors.accuracy", "max_loss", "class_floors.good", "class_floors.meh", "max_size_mb",
    }  # fmt: skip


@pytest.mark.parametrize(("f1", "passed"), [(0.748, True), (0.7479, False), (0.9, True)])
def test_a_loss_of_exactly_the_limit_passes(tmp_path, f1, passed):
    assert judge(tmp_path, make_scores(f1))["passed"] is passed


def test_a_reason_has_the_digits_that_show_the_difference(tmp_path):
    assert judge(tmp_path, make_scores(0.7479))["reasons"][0].startswith(
        "f1_macro 0.748 is 0.0201 below the baseline's 0.768; at most 0.0200 allowed"
    )


def test_speed_fails_only_when_the_whole_interval_is_too_slow(tmp_path):
    assert judge(tmp_path, make_scores(0.8), min_speedup=3.3)["passed"] is True
    assert judge(tmp_path, make_scores(0.8), min_speedup=3.5)["passed"] is False


def test_rules_without_their_counterpart_are_shown_as_not_applied(tmp_path):
    verdict = judge(tmp_path, make_scores(0.1, baseline=None))
    assert verdict["passed"] is True
    assert verdict["rules"]["max_loss"] == {
        "limit": 0.02, "passed": None, "not_applied": "the scores have no baseline",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"floors": {"f1_makro": 0.5}}, r'floors: unknown figure "f1_makro".*did you mean "f1_macro"'),
        ({"metric": "f1"}, 'metric: unknown figure "f1"'),
        ({"metric": "entity_f1"}, 'metric: text-classification has no figure "entity_f1"'),
        ({"floors": {"roc_auc": 0.5}}, "floors: roc_auc is not defined"),
        ({"class_floors": {"goood": 0.5}}, r'no class "goood".*did you mean "good"'),
        ({"min_speedup": 2.0}, "min_speedup: the scores have no baseline"),
        ({"min_business_score": 2.0}, "no business score"),
    ],
)
def test_mistakes_in_the_rules_are_named(tmp_path, settings, message):
    gate = Gate(**settings)
    with pytest.raises(UserError, match=message):
        gate.check(set())
        judge(tmp_path, make_scores(baseline=None), **settings)


def test_limits_that_make_no_sense_are_refused():
    for settings in ({"max_loss": 2}, {"floors": {"f1_macro": 74}}, {"max_size_mb": 0}, {"min_f1": 1}):
        with pytest.raises(pydantic.ValidationError):
            Gate(**settings)


@pytest.fixture
def released(tmp_path: Path) -> Job:
    champion = {"version": "3", "digest": "abc"}
    job = make_gate_job(tmp_path, make_scores(0.76), against=champion, recipe={"name": "opinions", "seed": 42})
    assert Gate(min_speedup=3).run(job)["passed"] == 1.0
    return job


def test_a_release_is_a_verdict_and_a_complete_bundle(released):
    assert {path.name for path in released.out.iterdir()} == {"verdict.json", "bundle"}
    assert {path.name for path in (released.out / "bundle").iterdir()} == BUNDLE
    verdict = read_json(released.out / "verdict.json")
    assert verdict == read_json(released.out / "bundle" / "verdict.json")
    assert (verdict["passed"], verdict["reasons"]) == (True, [])
    assert verdict["against"] == {"version": "3", "digest": "abc"}
    assert verdict["metrics"] == {"f1_macro": 0.76, "accuracy": 0.8, "size_mb": 23.1}
    assert verdict["rules"]["min_speedup"] == {"limit": 3, "passed": True, "measured": 3.4}
    for name in ("model.onnx", "tokenizer.json", "stillhouse.json"):
        assert file_digest(released.out / "bundle" / name) == file_digest(released.path("model") / name)


def test_the_bundle_gives_the_checked_answers_again(released):
    bundle = released.out / "bundle"
    rows = read_json(bundle / "check.json")["rows"]
    texts = [row["text"] for row in rows]
    assert len(texts) >= 260
    assert {"", "\x00"} <= set(texts)
    assert max(map(len, texts)) > 5000
    for row, answer in zip(rows, OnnxScorer(bundle).predict(texts), strict=True):
        assert row["label"] == answer["label"]
        assert row["probabilities"] == pytest.approx(answer["probabilities"], abs=1e-6)


def test_the_bundle_works_where_stillhouse_is_not_installed(released, tmp_path):
    shutil.copytree(released.out / "bundle", tmp_path / "elsewhere")
    code = f"""import sys
sys.modules["stillhouse"] = sys.modules["torch"] = None
sys.path.insert(0, {str(tmp_path / "elsewhere")!r})
from scoring import OnnxScorer
print(OnnxScorer({str(tmp_path / "elsewhere")!r}).predict(["a good film"])[0]["label"])"""
    done = subprocess.run([sys.executable, "-I", "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "good\n"


def test_the_reference_is_a_sample_of_validation_embeddings(released):
    reference = np.load(released.out / "bundle" / "reference.npy", allow_pickle=False)
    assert reference.dtype == np.float32
    assert reference.shape == (500, OnnxScorer(released.path("model")).hidden)
    assert np.isfinite(reference).all()


def test_a_refusal_is_a_finished_release_too(tmp_path):
    job = make_gate_job(tmp_path, make_scores())
    metrics = Gate().run(job)
    assert (metrics["passed"], metrics["rules_failed"]) == (0.0, 1.0)
    assert {path.name for path in (job.out / "bundle").iterdir()} == BUNDLE
    assert "at most 0.020 allowed" in (job.out / "bundle" / "README.md").read_text()


LADDER = {"metric": "f1_macro", "baseline": 0.7, "chosen": "a", "rungs": []}


def test_a_slow_day_changes_nothing_but_measured_values(tmp_path):
    digests = []
    for name, speedup in (("monday", 3.4), ("friday", 3.6)):
        scores = make_scores(0.76)
        scores["differences"]["baseline"]["measured"]["speedup"] = {"median": speedup, "low": speedup, "high": speedup}
        scores["candidate"]["measured"]["latency_p95_ms"] = speedup
        job = make_gate_job(tmp_path, scores, name)
        (job.path("model") / "ladder.json").write_text(json.dumps({**LADDER, "measured": speedup}))
        (job.path("model") / "ladder.svg").write_text(f"<svg>{speedup}</svg>")
        Gate(min_speedup=3, max_p95_ms=9).run(job)
        files = {p.relative_to(job.out).as_posix(): file_digest(p) for p in job.out.rglob("*") if p.is_file()}
        assert {"bundle/ladder.json", "bundle/ladder.svg"} <= files.keys()
        assert "## The ladder" in (job.out / "bundle" / "README.md").read_text()
        digests.append(content_digest(job.out, files))
    assert digests[0] == digests[1]


@pytest.mark.parametrize("within", [True, False])
def test_a_model_over_the_ladder_s_own_budget_is_refused(tmp_path, within):
    job = make_gate_job(tmp_path, make_scores(0.76))
    rung = {
        "name": "int8", "quality": {"value": 0.75}, "bytes": 8_000_000,
        "over_budget": [] if within else ["has 8.00 MB, 5 allowed"],
    }  # fmt: skip
    ladder = {**LADDER, "chosen": "int8", "rungs": [rung], "within": within}
    (job.path("model") / "ladder.json").write_text(json.dumps(ladder))
    (job.path("model") / "ladder.svg").write_text("<svg/>")
    Gate().run(job)
    verdict = read_json(job.out / "verdict.json")
    reason = "no rung is within the budget of select.cheapest; the one that loses least, int8, has 8.00 MB, 5 allowed"
    assert (verdict["passed"], verdict["reasons"]) == (within, [] if within else [reason])


def test_scores_of_another_model_open_no_gate(tmp_path):
    job = make_gate_job(tmp_path, make_scores(0.76))
    manifest = {"key": job.inputs["scores"][0].key, "inputs": {"model": [{"key": "key-other"}]}}
    with pytest.raises(UserError, match="scores are those of another model"):
        Gate().run(Job(**{**vars(job), "lineage": [manifest]}))


def test_without_data_the_check_is_awkward_texts_alone(tmp_path):
    job = make_gate_job(tmp_path, make_scores(0.76))
    job = Job(**{**vars(job), "inputs": {slot: item for slot, item in job.inputs.items() if slot != "data"}})
    assert Gate().run(job)["passed"] == 1.0
    assert {path.name for path in (job.out / "bundle").iterdir()} == BUNDLE - {"reference.npy"}
    assert len(read_json(job.out / "bundle" / "check.json")["rows"]) >= 60


def test_a_model_that_answers_nothing_finite_is_refused(tmp_path, monkeypatch):
    job = make_gate_job(tmp_path, make_scores(0.76))
    monkeypatch.setattr(OnnxScorer, "score", lambda self, rows: np.full((len(rows), 3), np.nan, np.float32))
    with pytest.raises(UserError, match="no finite score"):
        Gate().run(job)


def test_entities_are_released_too(tmp_path):
    scores = make_scores(0.76, problem=TOKENS)
    for role in ("candidate", "baseline"):
        scores[role] = json.loads(json.dumps(scores[role]).replace("f1_macro", "entity_f1"))
    job = make_gate_job(tmp_path, scores)
    assert Gate(floors={"entity_f1": 0.7}).run(job)["entity_f1"] == 0.76
    rows = read_json(job.out / "bundle" / "check.json")["rows"]
    found = [entity["text"] for row in rows for entity in row["entities"]]
    assert {"new york", "paris"} <= set(found)
    assert np.load(job.out / "bundle" / "reference.npy", allow_pickle=False).shape[0] == 500

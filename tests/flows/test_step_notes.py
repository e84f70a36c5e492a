"""What is said about a step that just ran."""

import pytest

from flows.step_notes import step_notes
from stillhouse.files import write_json
from stillhouse.store import Store


def outcome(uses: str, state: str = "ran", **metrics: float) -> dict:
    return {"name": "x", "uses": uses, "key": "k", "state": state, "seconds": 1.0, "metrics": metrics}


def test_rows_left_out_are_said_with_their_reasons_and_so_are_warnings(tmp_path):
    directory = Store(tmp_path).path("k")
    directory.mkdir(parents=True)
    report = {"dropped": {"duplicate": 1028, "near_held_out": 2}, "warnings": ["few rows of plain"]}
    write_json(directory / "data.json", {"report": report})
    expected = ["left out: 1,028 duplicate, 2 near held out", "few rows of plain"]
    assert step_notes(outcome("prepare.text"), tmp_path) == expected
    assert step_notes(outcome("prepare.text", "cached"), tmp_path) == []


@pytest.mark.parametrize(
    ("base", "cut", "said"), [("somewhere", 483, True), ("somewhere", 1, False), (None, 483, False)]
)
def test_cut_texts_are_said_by_the_first_stage_when_there_are_many(tmp_path, base, cut, said):
    store = Store(tmp_path)
    out = store.work("k") / "out"
    out.mkdir(parents=True)
    write_json(out / "stillhouse.json", {"max_length": 64})
    manifest = {"key": "k", "kind": "model.torch", "settings": {"base": base}, "metrics": {}, "inputs": {}}
    store.publish("k", manifest)
    lines = step_notes(outcome("train.stage", texts_cut=cut, train_rows=483), tmp_path)
    wanted = "483 of 483 training texts are longer than 64 tokens and lose their end"
    assert [line.partition(";")[0] for line in lines] == ([wanted] if said else [])
    assert all("--set x.max_length=128" in line for line in lines)

"""What a person's word does to a release; the suspended run itself is in tests/operate."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from flows import approval
from flows.approval import Answer, Approval, ask, decide_release
from flows.request import Request, Result
from stillhouse.errors import Refused
from stillhouse.files import write_json
from stillhouse.store import Store

VERDICT = {"passed": True, "reasons": [], "rules": {}, "metrics": {"f1_macro": 0.7}, "against": None}
YES = Approval(True, "board", "fine", "2026-01-01T00:00:00+00:00")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A challenger, with notes of what was done to it in `did`."""
    did: list[Any] = []
    release = SimpleNamespace(kind="release", key="a" * 64)
    write_json_at = Store(tmp_path).path(release.key)
    write_json_at.mkdir(parents=True)
    write_json(write_json_at / "verdict.json", VERDICT)
    world = SimpleNamespace(
        home=tmp_path, did=did, kept=None, says=YES, plan=SimpleNamespace(steps=[release]),
        result=Result("opinions", [], model={"name": "opinions", "version": 3, "alias": "challenger"}),
    )  # fmt: skip

    def asked(name: str, verdict: dict[str, Any], seconds: float) -> Approval | None:
        did.append(("asked", name, verdict["metrics"], seconds))
        return world.says

    def pushed(plan: Any, home: Path, run_id: str | None, *, promote: bool) -> dict[str, Any]:
        did.append(("promoted", promote))
        return {"name": "opinions", "version": 3, "alias": "champion"}

    monkeypatch.setattr(approval, "ask", asked)
    monkeypatch.setattr(approval, "push", pushed)
    monkeypatch.setattr(approval, "decision", lambda home, name, version: world.kept)
    monkeypatch.setattr(approval, "note_decision", lambda *given: did.append(("kept", given[2], given[3]["approve"])))
    return world


def decide(world: SimpleNamespace, hours: float = 2) -> None:
    request = Request("opinions", approval=True, approval_timeout_hours=hours)
    decide_release(world.plan, world.home, request, world.result)


def test_the_answer_is_kept_before_the_alias_moves(world):
    decide(world)
    assert world.did == [("asked", "opinions", {"f1_macro": 0.7}, 7200), ("kept", 3, True), ("promoted", True)]
    assert world.result.model["alias"] == "champion" and world.result.refusal is None


def test_nobody_is_asked_twice(world):
    world.kept = vars(YES)
    decide(world)
    assert world.did == [("promoted", True)]
    world.kept = {**vars(YES), "approve": False}
    world.result.model = {"name": "opinions", "version": 3, "alias": "challenger"}
    decide(world)
    assert world.did == [("promoted", True)]
    assert world.result.refusal == "board did not approve version 3, it stays challenger: fine"


def test_a_no_leaves_the_challenger(world):
    world.says = Approval(False, "board", "", YES.at)
    decide(world)
    assert [what[0] for what in world.did] == ["asked", "kept"]
    assert world.result.refusal == "board did not approve version 3, it stays challenger"


def test_where_nobody_can_be_asked_it_says_what_to_do(world):
    world.says = None
    decide(world)
    assert [what[0] for what in world.did] == ["asked"]
    assert world.result.model["note"] == "it waits for approval: stillhouse promote opinions 3 --by WHO"


def test_an_approval_does_not_pass_the_fence(world, monkeypatch):
    def moved(*given: Any, **named: Any) -> None:
        raise Refused("the champion moved", "Run again")

    monkeypatch.setattr(approval, "push", moved)
    decide(world)
    assert world.result.refusal == "the champion moved. Run again"
    assert world.result.model["alias"] == "challenger"


@pytest.mark.parametrize("model", [None, {"name": "opinions", "version": 3, "alias": "champion"}])
def test_there_is_nothing_to_ask_without_a_challenger(world, model):
    world.result.model = model
    decide(world)
    assert world.did == []


def test_a_plain_process_asks_nobody():
    assert ask("opinions", VERDICT, 60) is None


def test_an_answer_has_a_name():
    assert Answer(approve=True, by=" board ").by == "board"
    with pytest.raises(ValidationError, match="say who decides"):
        Answer(approve=True, by="  ")
    assert list(Answer.model_json_schema()["properties"]) == ["approve", "by", "comment"]

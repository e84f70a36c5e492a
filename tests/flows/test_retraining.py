"""Deciding and accounting of retrainings: a home with a data set, a registry that is told what to say."""

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import flows.retraining as retraining
from flows.request import Request, Result
from flows.retrain_text import describe, history_line
from flows.retraining import Ask, retrain_model, wait_for_approval
from flows.triggers import code_digest, open_trigger, read_triggers, save, trigger_of
from pipelines.listener import Listener
from pipelines.load import load_recipe
from stillhouse.artifact import Artifact
from stillhouse.dataset.judge import Schema
from stillhouse.errors import UserError, WorkerError
from stillhouse.files import write_json
from stillhouse.store import Store
from tasks.versions import DATA_VERSION, DIGEST, Version

WHOLE = {
    "name": "m",
    "steps": {
        "data": {"uses": "prepare.text", "with": {"source": "/old.csv"}},
        "head": {"uses": "train.stage", "inputs": {"data": "data"}, "with": {"base": "/encoder", "train": "head"}},
    },
}


class World:
    """Champion and runs of one model `m`."""

    def __init__(self, home: Path) -> None:
        self.home, self.version, self.seen = home, 1, 0
        self.requests: list[Request] = []
        self.answer: Result | Exception = released(2)
        write_json(Store(home).path("data-key") / "labels.json", ["bad", "good"])

    def champion(self, home: Path, name: str) -> Version:
        return Version(name, self.version, ("champion",), {DATA_VERSION: str(self.seen), DIGEST: "d"}, "", "", 0)

    def run(self, request: Request) -> Result:
        self.requests.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def land(self, name: str, rows: int = 5) -> None:
        path = self.home / "landing" / "m" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text,label\n" + "".join(f"{name} {row},good\n" for row in range(rows)))

    def retrain(self, **ask: object) -> dict:
        return retrain_model(Ask("m", **ask), self.home, Listener(), self.run)  # type: ignore[arg-type]

    def triggers(self) -> list[str]:
        return [one["state"] for one in read_triggers(self.home, "m")]


def released(version: int) -> Result:
    return Result("m", [], model={"name": "m", "version": version, "alias": "champion"})


@pytest.fixture
def world(home: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    (home / "store" / "artifacts" / "data-key").mkdir(parents=True)
    made = World(home)
    monkeypatch.setattr(retraining, "champion_of", made.champion)
    monkeypatch.setattr(retraining, "stored_recipe", lambda version: WHOLE)
    monkeypatch.setattr(retraining, "data_artifact", lambda home, version: Artifact("data-key", "data"))
    monkeypatch.setattr(retraining, "schema_for", lambda home, name, grow: Schema(labels=("bad", "good"), grow=grow))
    monkeypatch.setattr(retraining, "plan_request", lambda request, home: None)
    monkeypatch.setattr(retraining, "causes", lambda plan, store: ["code stillhouse.models changed: head", "seed"])
    monkeypatch.setattr("stillhouse.dataset.landing.SETTLE_SECONDS", 0.01)
    return made


def test_what_arrived_is_taken_in_and_trained_on(world):
    world.land("a.csv")
    outcome = world.retrain(reason="new data")
    assert (outcome["state"], outcome["version"], outcome["reason"]) == ("released", 2, "new data")
    assert outcome["again"] == ["code stillhouse.models changed: head"]
    path = Path(world.requests[0].recipe)
    steps = load_recipe(str(path))[0].steps
    assert steps["data"].inputs == {"previous": "registry:m/1/data"}
    assert (
        Path(steps["data"].settings["source"]).read_bytes() == (world.home / "data/m/epochs/0001.parquet").read_bytes()
    )
    kept = trigger_of(path)
    assert kept and (kept["state"], kept["data"]["until"], kept["recipe"]) == ("released", 1, WHOLE)
    assert any("5 rows" in line for line in describe(outcome))


def test_the_newest_data_again_is_nothing_new(world):
    for _ in range(3):
        assert world.retrain()["state"] == "nothing-new"
    (only,) = read_triggers(world.home, "m")
    assert only["times"] == 3 and "(3 times)" in history_line(only)
    world.land("a.csv")
    world.retrain()
    world.version, world.seen = 2, 1
    assert world.retrain()["state"] == "nothing-new"
    assert len(world.requests) == 1


def test_what_the_gate_has_refused_is_not_tried_again_until_something_changes(world, monkeypatch):
    world.land("a.csv")
    world.answer = Result("m", [], refusal="too bad")
    assert world.retrain()["state"] == "refused"
    again = world.retrain()
    assert again["state"] == "nothing-new" and "has tried exactly this: refused" in again["why"]
    assert world.retrain(from_scratch=True)["state"] == "refused"
    monkeypatch.setattr(retraining, "code_now", lambda: {"stillhouse.models": "other"})
    assert world.retrain()["state"] == "refused"
    world.land("b.csv")
    assert world.retrain()["data"]["rows"] == 10
    assert len(world.requests) == 4


def test_too_few_rows_and_the_cool_down_wait(world):
    world.land("a.csv")
    assert world.retrain(min_rows=6)["state"] == "too-few"
    world.land("b.csv")
    assert world.retrain(min_rows=6)["state"] == "released"
    world.version, world.seen = 2, 2
    world.land("c.csv")
    waiting = world.retrain(cooldown_hours=1)
    assert waiting["state"] == "cooling-down" and "the cool-down is 1 h" in waiting["why"]
    again = world.retrain(cooldown_hours=1.5)
    assert (again["id"], again["times"]) == (waiting["id"], 2) and "1.5 h" in again["why"], "one file, the newest words"
    assert world.retrain()["state"] == "released"


def test_an_open_trigger_is_gone_on_with_whatever_moved_meanwhile(world, monkeypatch):
    world.land("a.csv")
    world.answer = WorkerError("lost")
    with pytest.raises(WorkerError):
        world.retrain()
    begun = open_trigger(world.home, "m")
    before = Path(world.requests[0].recipe).read_text()
    world.land("b.csv")
    world.version, world.answer = 9, released(10)
    monkeypatch.setattr(retraining, "code_now", lambda: {"stillhouse.models": "other"})
    outcome = world.retrain()
    assert begun and outcome["id"] == begun["id"]
    assert outcome["data"]["until"] == 1 and outcome["champion"]["version"] == 1
    assert Path(world.requests[1].recipe).read_text() == before
    assert "stillhouse.models" in outcome["code_changed"]
    assert world.triggers() == ["released"]


def test_a_user_s_mistake_closes_the_trigger(world):
    world.land("a.csv")
    world.answer = UserError("no such base", "name another")
    with pytest.raises(UserError):
        world.retrain()
    assert world.triggers() == ["failed"]
    world.answer = released(2)
    assert world.retrain()["state"] == "released"


def test_a_recipe_that_cannot_be_retrained_closes_the_trigger_too(world, tmp_path):
    world.land("a.csv")
    path = tmp_path / "two.yaml"
    data = "{uses: prepare.text, with: {source: rows.csv}}"
    path.write_text(f"name: m\nsteps: {{one: {data}, two: {data}}}\n")
    with pytest.raises(UserError, match="prepare"):
        world.retrain(recipe=str(path))
    assert world.triggers() == ["failed"]
    assert world.retrain()["state"] == "released"


def test_what_was_begun_can_be_given_up(world):
    world.land("a.csv")
    world.answer = WorkerError("out of memory")
    with pytest.raises(WorkerError):
        world.retrain()
    world.answer = released(2)
    given = world.retrain(abandon=True, from_scratch=True)
    assert world.triggers() == ["abandoned", "released"] and given["options"]["from_scratch"]


def test_one_that_waits_for_a_person_is_not_asked_for_twice(world):
    class Suspended(BaseException):
        pass

    world.land("a.csv")
    first = Ask("m", approval=True, flow_run="first")
    with pytest.raises(Suspended):
        retrain_model(first, world.home, Listener(), suspending(world, Suspended))
    wait_for_approval(world.home, first)
    assert world.retrain(reason="schedule", flow_run="second")["why"].endswith("it waits for approval")
    assert world.retrain(flow_run="first")["state"] == "released"
    assert sorted(world.triggers()) == ["covered", "released"]


def test_after_its_time_somebody_else_may_ask(world):
    class Suspended(BaseException):
        pass

    world.land("a.csv")
    first = Ask("m", approval=True, approval_timeout_hours=0.0, flow_run="first")
    with pytest.raises(Suspended):
        retrain_model(first, world.home, Listener(), suspending(world, Suspended))
    wait_for_approval(world.home, first)
    assert world.retrain(flow_run="second")["state"] == "released"


def suspending(world: World, signal: type[BaseException]) -> Callable[[Request], Result]:
    def run(request: Request) -> Result:
        raise signal

    return run


def test_what_was_not_told_before_a_kill_is_told_by_the_next(world, monkeypatch):
    told: list[tuple[str, str]] = []

    def tell(home, event, name, **payload):
        if not told:
            told.append((event, payload["alert_id"]))
            raise KeyboardInterrupt
        told.append((event, payload["alert_id"]))

    world.land("a.csv")
    taken, real = [], retraining.tell
    monkeypatch.setattr(retraining, "tell", lambda *given, **more: taken.append(given) or real(*given, **more))
    world.retrain(min_rows=100)
    assert taken[0][1] == "new-data"
    monkeypatch.setattr(retraining, "tell", tell)
    world.answer = Result("m", [], model=None, refusal="worse")
    with pytest.raises(KeyboardInterrupt):
        world.retrain()
    assert world.retrain()["state"] == "nothing-new"
    assert told[0] == told[1] and told[0][0] == "refused" and len(told) == 2


def test_newer_rows_wait_for_the_one_that_runs(world, monkeypatch):
    world.land("a.csv")
    running, ended = threading.Event(), threading.Event()

    def run(request: Request) -> Result:
        world.requests.append(request)
        running.set()
        assert ended.wait(30)
        world.seen = len(world.requests)
        return released(2)

    monkeypatch.setattr(world, "run", run)
    outcomes: list[dict] = []
    threads = [threading.Thread(target=lambda: outcomes.append(world.retrain())) for _ in range(2)]
    threads[0].start()
    assert running.wait(30)
    world.land("b.csv")
    threads[1].start()
    deadline = time.monotonic() + 30
    while len(list((world.home / "data" / "m" / "epochs").glob("*.parquet"))) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    ended.set()
    for thread in threads:
        thread.join(30)
    assert [one["state"] for one in outcomes] == ["released", "released"]
    assert [one["data"]["until"] for one in outcomes] == [1, 2]


def test_a_named_landing_place_must_be_there(world):
    with pytest.raises(UserError, match="elsewhere is not there"):
        world.retrain(landing=str(world.home / "elsewhere"))
    assert world.triggers() == [] and world.retrain()["state"] == "nothing-new"


def test_a_trigger_while_one_runs_is_recorded_not_doubled(world, monkeypatch):
    world.land("a.csv")
    running, ended = threading.Event(), threading.Event()

    def run(request: Request) -> Result:
        running.set()
        assert ended.wait(30)
        return released(2)

    monkeypatch.setattr(world, "run", run)
    first: list[dict] = []
    thread = threading.Thread(target=lambda: first.append(world.retrain()))
    thread.start()
    assert running.wait(30)
    covered = world.retrain(reason="drift")
    ended.set()
    thread.join()
    assert covered["state"] == "covered" and covered["covered_by"] == first[0]["id"]
    assert sorted(world.triggers()) == ["covered", "released"]


def test_a_damaged_epoch_stops_before_anything_runs(world):
    world.land("a.csv")
    world.retrain(min_rows=100)
    (world.home / "data" / "m" / "epochs" / "0001.parquet").write_bytes(b"x")
    with pytest.raises(UserError, match="epoch 1"):
        world.retrain()
    assert not world.requests


def test_a_recipe_must_be_known_or_named(world, monkeypatch, tmp_path):
    world.land("a.csv")
    monkeypatch.setattr(retraining, "stored_recipe", lambda version: None)
    with pytest.raises(UserError, match="does not say which recipe made it"):
        world.retrain()
    path = tmp_path / "other.yaml"
    path.write_text("name: other\nsteps: {data: {uses: prepare.text, with: {source: rows.csv}}}\n")
    with pytest.raises(UserError, match='makes the model "other"'):
        world.retrain(recipe=str(path))
    path.write_text("name: other\nmodel: m\nsteps: {data: {uses: prepare.text, with: {source: rows.csv}}}\n")
    assert world.retrain(recipe=str(path))["state"] == "released"


def test_foreign_files_among_the_triggers_are_passed_over(world):
    (world.home / "retrain" / "m").mkdir(parents=True)
    (world.home / "retrain" / "m" / "notes.json").write_text("{")
    save(world.home, {"id": "1", "name": "m", "reason": "x", "state": "released", "created": time.time()})
    odd = {"id": "../../x", "name": "m", "reason": "x", "state": "open", "created": time.time()}
    (world.home / "retrain" / "m" / "odd.json").write_text(json.dumps(odd))
    assert world.triggers() == ["released"]
    assert code_digest({"a": "1"}) != code_digest({"a": "2"})

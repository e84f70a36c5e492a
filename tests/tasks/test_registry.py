"""Reading the registry cheaply, and moving its aliases by hand."""

import json
import os
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import Refused, UserError
from tasks import registry, versions
from tasks.decisions import decision, note_decision
from tasks.mlflow_home import database_state, open_client
from tasks.versions import AGAINST, CHAMPION, DIGEST, MODEL_KEY, RELEASE_KEY, ROLLED_BACK, Version, read_models
from tests.tasks.tiny_release import TEXTS, make_release

ROOT = Path(__file__).parents[2]


def fresh(code: str, home: Path) -> subprocess.CompletedProcess[str]:
    """Run `code` in a fresh process, where `home` is the home."""
    start = f"from pathlib import Path\nhome = Path({str(home)!r})\n"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MLFLOW", "PYTEST"))}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", start + code],
        cwd=ROOT, env=kept, capture_output=True, text=True, check=False,
    )  # fmt: skip


def version(number: int, model: str, against: Any = None, *aliases: str, rolled_back: bool = False) -> Version:
    tags = {MODEL_KEY: model, DIGEST: f"digest of {model}", AGAINST: json.dumps(against)}
    if rolled_back:
        tags[ROLLED_BACK] = "1"
    return Version("opinions", number, aliases, tags, "", "", 0)


ONE = {"version": 1, "digest": "digest of a"}
TWO = {"version": 2, "digest": "digest of b"}


@pytest.mark.parametrize(
    ("there", "model", "expected"),
    [
        pytest.param([], "a", None, id="empty registry"),
        pytest.param([version(1, "a", None, "champion")], "a", None, id="its own promotion"),
        pytest.param([version(1, "a", None, "champion")], "b", ONE, id="another model"),
        pytest.param(
            [version(1, "a", None, "previous"), version(2, "b", ONE, "champion")], "b", ONE, id="its own, second time"
        ),
        pytest.param(
            [version(1, "a", None, "champion"), version(2, "b", ONE, "previous", rolled_back=True)],
            "b", ONE, id="rolled back",
        ),
        pytest.param(
            [version(1, "a", None), version(2, "b", ONE, rolled_back=True), version(3, "c", ONE, "champion")],
            "b", ONE, id="rolled back, champion moved on",
        ),
        pytest.param(
            [version(1, "a", None), version(2, "b", ONE, "champion"), version(3, "c", ONE, "challenger")],
            "c", TWO, id="a challenger is measured against the champion of now",
        ),
        pytest.param(
            [version(1, "a", None, "previous"), version(2, "b", ONE, "champion")], "a", TWO, id="back to an old recipe"
        ),
        pytest.param([version(1, "a", None, "challenger")], "a", None, id="challenger without champion"),
    ],
)  # fmt: skip
def test_what_a_candidate_is_measured_against(there: list[Version], model: str, expected: Any) -> None:
    champion = versions.with_alias(there, CHAMPION)
    assert registry.candidates_for_against(champion, there, model) == expected


def aliases(home: Path) -> dict[str, int]:
    return registry.list_models(home)[0]["aliases"]


def test_an_empty_home_is_asked_without_mlflow_and_stays_empty(tmp_path: Path) -> None:
    done = fresh(
        "import sys; from tasks import registry\n"
        "assert registry.champion(home, 'opinions') is None and registry.list_models(home) == []\n"
        "assert registry.against_for(home, 'opinions', 'a') is None\n"
        "assert not {'mlflow', 'pandas', 'sqlalchemy'} & set(sys.modules)",
        tmp_path / "home",
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "home").exists()


def test_an_unchanged_registry_is_asked_without_mlflow(two_versions: Path) -> None:
    before = database_state(two_versions)
    done = fresh(
        "import json, sys; from tasks import registry\n"
        "assert registry.resolve(home, 'opinions')['directory'].is_dir()\n"
        "print(json.dumps(registry.champion(home, 'opinions')))\n"
        "assert not {'mlflow', 'pandas', 'sqlalchemy'} & set(sys.modules)",
        two_versions,
    )
    assert done.returncode == 0, done.stderr
    champion = json.loads(done.stdout)
    assert champion["version"] == 2 and champion["model_key"] == "model-1" and champion["against"]["version"] == 1
    assert database_state(two_versions) == before


def test_what_others_write_is_seen(two_versions: Path) -> None:
    open_client(two_versions).set_registered_model_alias("opinions", CHAMPION, "1")
    kept = (two_versions / "cache" / "registry.json").read_bytes()
    champion = registry.champion(two_versions, "opinions")
    assert champion and champion["version"] == 1
    assert (two_versions / "cache" / "registry.json").read_bytes() == kept, "reading writes nothing"


@pytest.mark.parametrize("torn", ["", "{", '{"state": null}', "[]"])
def test_a_torn_memo_is_ignored(two_versions: Path, torn: str) -> None:
    (two_versions / "cache" / "registry.json").write_text(torn)
    champion = registry.champion(two_versions, "opinions")
    assert champion and champion["version"] == 2


def test_rollback_swaps_and_marks_and_again_swaps_back(two_versions: Path) -> None:
    back = {"name": "opinions", "version": 1, "alias": "champion", "previous": 2}
    assert registry.rollback(two_versions, "opinions") == back
    assert aliases(two_versions) == {"champion": 1, "previous": 2}
    assert [v.rolled_back for v in read_models(two_versions)["opinions"]] == [True, False]
    told = (two_versions / "logs" / "events.jsonl").read_text()
    assert '"stillhouse.rolled-back", "name": "opinions", "version": 1, "left": 2' in told
    assert registry.rollback(two_versions, "opinions")["version"] == 2
    assert aliases(two_versions) == {"champion": 2, "previous": 1}
    assert [v.rolled_back for v in read_models(two_versions)["opinions"]] == [False, True]


def test_a_rollback_that_was_killed_is_finished_by_the_next(
    two_versions: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setenv("STILLHOUSE_FAULT", "rollback.champion")
        patch.setattr("os.kill", lambda pid, signal: sys.exit("killed"))
        registry.rollback(two_versions, "opinions")
    assert aliases(two_versions) == {"champion": 1, "previous": 1}
    assert registry.rollback(two_versions, "opinions")["version"] == 1
    assert aliases(two_versions) == {"champion": 1, "previous": 2}


def test_nothing_to_roll_back_to(two_versions: Path) -> None:
    open_client(two_versions).delete_registered_model_alias("opinions", "previous")
    with pytest.raises(UserError, match="no previous version"):
        registry.rollback(two_versions, "opinions")
    assert aliases(two_versions) == {"champion": 2}


def test_promote_by_hand(two_versions: Path) -> None:
    registry.rollback(two_versions, "opinions")
    assert registry.promote(two_versions, "opinions", 2) == {"name": "opinions", "version": 2, "alias": "champion"}
    assert aliases(two_versions) == {"champion": 2, "previous": 1}
    assert not any(v.rolled_back for v in read_models(two_versions)["opinions"])


def test_going_back_by_hand_holds_against_cached_runs(two_versions: Path) -> None:
    registry.promote(two_versions, "opinions", 1)
    assert aliases(two_versions) == {"champion": 1, "previous": 2}
    left = next(v for v in read_models(two_versions)["opinions"] if v.version == 2)
    assert left.rolled_back, "the next unchanged run would promote version 2 again"
    registry.promote(two_versions, "opinions", 2)
    assert not any(v.rolled_back for v in read_models(two_versions)["opinions"])


def test_who_promoted_and_when_is_told(two_versions: Path) -> None:
    registry.promote(two_versions, "opinions", 1, by="release board", comment="the new one is rude")
    (model,) = registry.list_models(two_versions, "opinions")
    decided = next(v for v in model["versions"] if v["version"] == 1)["decision"]
    assert abs(datetime.fromisoformat(decided.pop("at")).timestamp() - time.time()) < 120
    assert decided == {"approve": True, "by": "release board", "comment": "the new one is rude"}
    note_decision(two_versions, "opinions", 1, {"approve": False, "by": "someone", "at": "2026-01-01"})
    assert decision(two_versions, "opinions", 1) == {
        "approve": False, "by": "someone", "at": "2026-01-01", "comment": "",
    }  # fmt: skip
    registry.promote(two_versions, "opinions", 1)
    again = decision(two_versions, "opinions", 1)
    assert again and again["approve"] and again["by"] == "", "nobody's name but the one that was given"
    with pytest.raises(UserError, match='no model "opinion"'):
        registry.list_models(two_versions, "opinion")


def test_a_version_without_a_verdict_needs_force(two_versions: Path) -> None:
    client = open_client(two_versions)
    client.create_model_version("opinions", "file:///elsewhere")
    with pytest.raises(Refused, match="no passed verdict") as refused:
        registry.promote(two_versions, "opinions", 3)
    assert "--force" in refused.value.fix and aliases(two_versions)["champion"] == 2
    registry.promote(two_versions, "opinions", 3, force=True)
    assert aliases(two_versions) == {"champion": 3, "previous": 2}
    with pytest.raises(UserError, match="has no bundle"):
        registry.resolve(two_versions, "opinions")


@pytest.mark.parametrize(
    ("spec", "number"),
    [("opinions", 2), ("opinions@champion", 2), ("opinions@previous", 1), ("opinions/1", 1), ("models:/opinions/2", 2)],
)
def test_resolve(two_versions: Path, spec: str, number: int) -> None:
    found = registry.resolve(two_versions, spec)
    assert found["version"] == number
    assert json.loads((found["directory"] / "verdict.json").read_text())["metrics"]["f1_macro"] == 0.69 + number / 100


@pytest.mark.parametrize(
    ("spec", "message", "fix"),
    [
        ("opinion", 'no model "opinion"', 'did you mean "opinions"?'),
        ("opinions/7", "has no version 7", "opinions/2"),
        ("opinions@challenger", "has no challenger", "2 (champion), 1 (previous)"),
    ],
)
def test_a_name_that_means_nothing(two_versions: Path, spec: str, message: str, fix: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        registry.resolve(two_versions, spec)
    assert fix in error.value.fix


def test_moves_in_an_empty_home_create_nothing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match='no model "opinions"'):
        registry.rollback(tmp_path / "home", "opinions")
    assert not (tmp_path / "home" / "mlflow.db").exists()


def test_export_is_whole_or_not_at_all(two_versions: Path, tmp_path: Path) -> None:
    from stillhouse.scoring import OnnxScorer

    exported = registry.export(two_versions, "opinions", tmp_path / "out" / "model")
    rows = json.loads((tmp_path / "out" / "model" / "check.json").read_text())["rows"]
    answers = OnnxScorer(exported["directory"]).predict(TEXTS)
    assert [row["label"] for row in rows] == [answer["label"] for answer in answers]
    with pytest.raises(UserError, match="not empty"):
        registry.export(two_versions, "opinions", tmp_path / "out" / "model")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["model"]


def test_lineage_names_artifacts(two_versions: Path, tmp_path: Path) -> None:
    data = make_release(tmp_path / "again", seed=1)[2][0]
    assert registry.lineage_key(two_versions, "opinions@champion") == "model-1"
    assert registry.lineage_key(two_versions, "opinions/1") == "model-0"
    assert registry.lineage_key(two_versions, "opinions/1/int8") == "model-0"
    assert registry.lineage_key(two_versions, "opinions/2/data") == data["key"]
    assert registry.lineage_key(two_versions, "opinions@previous/int8") == "model-0"
    assert registry.lineage_key(two_versions, "opinions@champion/data") == data["key"]
    assert registry.lineage_key(two_versions, "opinions@challenger/int8") is None
    assert registry.lineage_key(two_versions, "other@champion") is None
    with pytest.raises(UserError, match='no step "int4"'):
        registry.lineage_key(two_versions, "opinions@champion/int4")


def test_gc_keeps_what_aliases_point_to(two_versions: Path) -> None:
    keys = {v.version: v.tags[RELEASE_KEY] for v in read_models(two_versions)["opinions"]}
    open_client(two_versions).delete_registered_model_alias("opinions", "previous")
    assert registry.kept_keys(two_versions) == ({keys[2]}, {keys[1]})


def test_two_processes_may_begin_at_once(tmp_path: Path) -> None:
    """Both migrate a fresh SQLite database otherwise, and one fails."""
    code = (
        "from tasks.mlflow_home import experiment_id\n"
        "while not (home.parent / 'go').exists(): pass\n"
        "print(experiment_id(home, 'opinions'))"
    )
    start = f"from pathlib import Path\nhome = Path({str(tmp_path / 'a home')!r})\n"
    both = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", start + code],
            cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for _ in range(2)
    ]  # fmt: skip
    (tmp_path / "go").touch()
    said = [process.communicate() for process in both]
    assert said[0] == said[1] and said[0][0].strip() == "1" and said[0][1] == ""
    assert sorted(path.name for path in (tmp_path / "a home").iterdir()) == ["locks", "mlflow.db"]

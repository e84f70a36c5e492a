"""Monitor runs on a prediction log: incremental, one alert for one thing, killed in between, too few rows."""

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stillhouse.errors import UserError
from stillhouse.files import read_json
from stillhouse.monitor.settings import MonitorSettings
from stillhouse.prediction_log import PredictionLog
from tasks import monitoring
from tasks.monitoring import monitor_model

HOUR = 3600.0
START = 1.7e9 - 1.7e9 % HOUR
LOG = MonitorSettings(reference="log", min_rows=50, sample_rows=100, false_alarm_rate=0.01)  # type: ignore[call-arg]


def rows(first: int, last: int, shares=(0.3, 0.5), shift=0.0, seed=0, version=2) -> pd.DataFrame:
    """Hours `first` to `last` of 30 predictions an hour; `shares` of negative and neutral, embeddings about `shift`."""
    generator = np.random.default_rng([seed, first])
    count = 30 * (last - first)
    labels = generator.choice(["negative", "neutral", "positive"], p=[*shares, 1 - sum(shares)], size=count)
    frame = {
        "time": START + HOUR * np.sort(generator.uniform(first, last, size=count)),
        "id": [f"{first}-{seed}-{i}" for i in range(count)], "version": version, "label": labels,
        "embedding": list((generator.normal(size=(count, 4)) + shift).astype(np.float16)),
    }  # fmt: skip
    for label in ("negative", "neutral", "positive"):
        frame[f"p_{label}"] = np.where(labels == label, 0.8, 0.1)
    return pd.DataFrame(frame)


def told(home: Path) -> list[dict]:
    path = home / "logs" / "events.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if line["event"] in ("stillhouse.drift", "stillhouse.surge", "stillhouse.quality")]


def history(home: Path) -> list[dict]:
    path = home / "monitor" / "opinions" / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_steady_log_is_examined_once_and_nothing_is_told(two_versions):
    log = PredictionLog(two_versions, "opinions")
    assert monitor_model(two_versions, "opinions", LOG)["notes"] == ["the prediction log is empty"]
    log.append(rows(0, 40), "one")
    first = monitor_model(two_versions, "opinions", LOG)
    assert first["rows"] == 1200 and first["alarms"] == [] and first["version"] == 2
    assert first["window"]["start"] == pytest.approx(START, abs=HOUR) and first["surge"]["windows"] == 32
    again = monitor_model(two_versions, "opinions", LOG)
    assert again["rows"] == 0 and again["notes"] == ["no new rows in the prediction log"]
    log.append(rows(40, 50), "two")
    second = monitor_model(two_versions, "opinions", LOG)
    assert second["rows"] == 300 and {test["name"] for test in second["tests"]} == {"input drift", "prediction drift"}
    assert second["surge"]["windows"] >= 9
    assert [line["rows"] for line in history(two_versions)] == [1200, 300] and told(two_versions) == []


def test_drift_is_told_once_until_the_cool_down_is_over(two_versions):
    log = PredictionLog(two_versions, "opinions")
    settings = LOG.model_copy(update={"surge_labels": ("negative",)})
    log.append(rows(0, 20), "one")
    monitor_model(two_versions, "opinions", settings)
    for hour in (20, 30):
        log.append(rows(hour, hour + 10, shares=(0.1, 0.2), shift=1.5), f"part-{hour}")
        line = monitor_model(two_versions, "opinions", settings)
        assert line["alarms"] == ["drift"] and [test["alarm"] for test in line["tests"]] == [True, True]
    (event,) = told(two_versions)
    assert event["event"] == "stillhouse.drift" and event["version"] == 2
    assert event["reason"].startswith("input drift: auc 0.") and "prediction drift" in event["reason"]
    log.append(rows(55, 65, shares=(0.1, 0.2), shift=1.5), "later")
    monitor_model(two_versions, "opinions", settings)
    assert len(told(two_versions)) == 2, "a day after the first, it is told again"


def test_a_surge_is_told_once_however_often_the_window_is_asked_for(two_versions):
    log = PredictionLog(two_versions, "opinions")
    settings = LOG.model_copy(update={"surge_labels": ("negative",), "min_change": 0.9})
    log.append(rows(0, 30), "one")
    log.append(rows(30, 31, shares=(0.9, 0.05)), "surge")
    first = monitor_model(two_versions, "opinions", settings)
    assert first["alarms"] == ["surge"]
    again = monitor_model(two_versions, "opinions", settings, since=START, until=START + 31 * HOUR)
    assert not again["recorded"] and again["alerts"] == []
    log.append(rows(31, 32, shares=(0.9, 0.05)), "goes on")
    monitor_model(two_versions, "opinions", settings)
    (event,) = told(two_versions)
    assert event["label"] == "negative" and event["topic"] == "(all)" and event["share"] > 0.7
    assert "negative rose from" in event["reason"] and len(history(two_versions)) == 2


def test_a_kill_before_telling_is_made_good_by_the_next_run(two_versions, monkeypatch):
    log = PredictionLog(two_versions, "opinions")
    log.append(rows(0, 30), "one")
    log.append(rows(30, 31, shares=(0.95, 0.02)), "surge")
    with monkeypatch.context() as patch:
        patch.setattr(monitoring, "tell", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            monitor_model(two_versions, "opinions", LOG)
    assert told(two_versions) == []
    monitor_model(two_versions, "opinions", LOG)
    monitor_model(two_versions, "opinions", LOG)
    assert len(told(two_versions)) == 1
    assert read_json(two_versions / "monitor" / "opinions" / "state.json")["pending"] == []


@pytest.mark.parametrize("point", ["monitor.begun", "monitor.decided", "monitor.written"])
def test_killed_anywhere_a_window_has_one_line_and_one_alert(two_versions, monkeypatch, point):
    log = PredictionLog(two_versions, "opinions")
    log.append(rows(0, 30), "one")
    log.append(rows(30, 31, shares=(0.95, 0.02)), "surge")

    def reached(home: Path, at: str, **_: object) -> None:
        if at == point:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(monitoring, "reached", reached)
        with pytest.raises(KeyboardInterrupt):
            monitor_model(two_versions, "opinions", LOG)
    log.append(rows(31, 32), "later")
    monitor_model(two_versions, "opinions", LOG)
    assert sum(line["rows"] for line in history(two_versions)) == 32 * 30
    assert [event["event"] for event in told(two_versions)].count("stillhouse.surge") == 1


def test_half_a_line_that_a_full_disk_left_spoils_only_itself(two_versions):
    path = two_versions / "monitor" / "opinions" / "history.jsonl"
    path.parent.mkdir(parents=True)
    path.write_text('{"half": ')
    PredictionLog(two_versions, "opinions").append(rows(0, 30), "one")
    monitor_model(two_versions, "opinions", LOG)
    half, whole = path.read_text().splitlines()
    assert half == '{"half": ' and json.loads(whole)["rows"] == 900


def test_labels_that_arrive_late_give_the_quality(two_versions):
    log = PredictionLog(two_versions, "opinions")
    frame = rows(0, 10)
    log.append(frame, "one")
    right = np.random.default_rng(99).random(len(frame)) < 0.8
    frame["label"] = frame["label"].where(right, "positive")
    log.add_labels(frame, "truth")
    line = monitor_model(two_versions, "opinions", LOG)
    assert line["quality"]["rows"] == 300 and line["quality"]["accuracy"]["value"] == pytest.approx(0.82, abs=0.06)
    assert any("quality is shown and not tested" in note for note in line["notes"]), "no scores in this store"


def test_too_few_rows_and_another_version_are_said(two_versions):
    log = PredictionLog(two_versions, "opinions")
    log.append(rows(0, 3, version=1), "old")
    log.append(rows(3, 4), "new")
    line = monitor_model(two_versions, "opinions", LOG)
    assert line["alarms"] == [] and line["tests"] == [] and line["rows"] == 30 and line["other_versions"] == 90
    assert "30 rows: no drift test below 50" in line["notes"]
    assert "90 rows of other versions are left out" in line["notes"]


def test_what_a_user_gets_wrong(two_versions):
    with pytest.raises(UserError, match="no model"):
        monitor_model(two_versions, "opinion", LOG)
    PredictionLog(two_versions, "opinions").append(rows(0, 2), "one")
    with pytest.raises(UserError, match='no column "town"'):
        monitor_model(two_versions, "opinions", LOG.model_copy(update={"topic": "town"}))
    for damaged in ("{", "[]", '{"until": "x"}', '{"pending": null}', '{"until": NaN}', '{"spans": [["x"]]}'):
        (two_versions / "monitor" / "opinions" / "state.json").write_text(damaged)
        with pytest.raises(UserError, match="is damaged"):
            monitor_model(two_versions, "opinions", LOG)


def test_the_command_says_what_it_saw_and_fails_on_request(two_versions, monkeypatch, capsys):
    from flows import cli

    def run(*words: str) -> tuple[int, str]:
        monkeypatch.setattr("sys.argv", ["stillhouse", *words])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return int(end.value.code or 0), capsys.readouterr().out

    monkeypatch.setattr(cli, "stop_on_signals", lambda say: None)
    for name in ("STILLHOUSE_HOME", "PREFECT_HOME"):
        monkeypatch.setenv(name, str(two_versions))
    log = PredictionLog(two_versions, "opinions")
    log.append(rows(0, 30), "one")
    few = ("monitor", "opinions", "--set", "reference=log", "--set", "min_rows=50", "--set", "sample_rows=100")
    assert run(*few, "--fail-on-alarm")[0] == 0
    log.append(rows(30, 33, shares=(0.9, 0.05)), "surge")
    code, out = run(*few, "--surge-label", "negative", "--fail-on-alarm", "--json")
    line = json.loads(out)
    assert (
        code == 3 and line["alarm"] and "surge" in line["alarms"] and line["settings"]["surge_labels"] == ["negative"]
    )
    assert run(*few)[1].splitlines()[-1] == "  note: no new rows in the prediction log"
    assert run("monitor", "opinions", "--since", "soon")[0] == 2


def test_a_label_that_the_model_does_not_have_cannot_surge(two_versions):
    PredictionLog(two_versions, "opinions").append(rows(0, 12), "one")
    with pytest.raises(UserError, match='no label "negativ"'):
        monitor_model(two_versions, "opinions", LOG.model_copy(update={"surge_labels": ("negativ",)}))


def test_one_late_answer_of_another_version_hides_nothing(two_versions):
    log = PredictionLog(two_versions, "opinions")
    log.append(rows(0, 20), "one")
    log.append(rows(20, 21, version=1).tail(1), "stray")
    line = monitor_model(two_versions, "opinions", LOG)
    assert (line["version"], line["rows"], line["other_versions"]) == (2, 600, 1)


def test_rows_that_come_late_are_examined_once(two_versions):
    log = PredictionLog(two_versions, "opinions")
    settings = LOG.model_copy(update={"surge_labels": ("negative",), "min_change": 0.9})
    log.append(rows(0, 30), "one")
    log.append(rows(35, 36), "two")
    assert monitor_model(two_versions, "opinions", settings)["rows"] == 930
    log.append(rows(31, 32, shares=(0.95, 0.02), seed=1), "late")
    line = monitor_model(two_versions, "opinions", settings)
    assert (line["rows"], line["alarms"], line["surge"]["windows"]) == (30, ["surge"], 1)
    assert [event["event"] for event in told(two_versions)] == ["stillhouse.surge"]
    assert monitor_model(two_versions, "opinions", settings)["notes"] == ["no new rows in the prediction log"]
    log.append(rows(36, 37), "three")
    assert monitor_model(two_versions, "opinions", settings)["rows"] == 30


def test_a_run_for_a_span_takes_nothing_from_the_run_for_all(two_versions):
    log = PredictionLog(two_versions, "opinions")
    frame = rows(0, 20)
    log.append(frame, "one")
    hours = (frame["time"] - START) / HOUR
    count = {end: int((hours < end).sum()) for end in (5, 10, 12)}
    assert monitor_model(two_versions, "opinions", LOG, until=START + 10 * HOUR)["rows"] == count[10]
    log.append(rows(2, 3, seed=1), "late")
    again = monitor_model(two_versions, "opinions", LOG, since=START + 5 * HOUR, until=START + 12 * HOUR)
    assert (again["rows"], again["recorded"], again["surge"]["windows"]) == (count[12] - count[5], True, 2)
    last = monitor_model(two_versions, "opinions", LOG)
    assert last["rows"] == 600 - count[12] + 30, "the hours after 12, and the late one"
    assert monitor_model(two_versions, "opinions", LOG)["rows"] == 0


def test_late_rows_are_tested_against_the_windows_before_them(two_versions):
    log = PredictionLog(two_versions, "opinions")
    settings = LOG.model_copy(
        update={"surge_labels": ("negative",), "min_change": 0.9, "baseline_days": 2.0, "cool_down_hours": 100.0}
    )
    log.append(rows(0, 60), "one")
    monitor_model(two_versions, "opinions", settings)
    log.append(rows(12, 13, shares=(0.95, 0.02), seed=1), "late")
    log.append(rows(60, 61), "two")
    line = monitor_model(two_versions, "opinions", settings)
    assert (line["rows"], line["surge"]["learning"], line["alarms"]) == (60, 0, ["surge"])


def test_a_log_of_many_versions_has_one_to_look_at(two_versions):
    log = PredictionLog(two_versions, "opinions")
    parts = [rows(hour, hour + 1).assign(version=2 if hour % 11 == 0 else 100 + hour) for hour in range(12)]
    for number, part in enumerate(parts):
        log.append(part, f"part-{number}")
    line = monitor_model(two_versions, "opinions", LOG)
    assert (line["version"], line["rows"], line["other_versions"]) == (2, 60, 300)


def test_a_log_that_was_copied_is_not_examined_again(two_versions):
    log = PredictionLog(two_versions, "opinions")
    path = log.append(rows(0, 20), "one")
    os.utime(path, (START, START))  # written long ago; the copying sets the time of the status alone
    assert monitor_model(two_versions, "opinions", LOG)["rows"] == 600
    os.utime(path, (START, START))
    assert monitor_model(two_versions, "opinions", LOG)["notes"] == ["no new rows in the prediction log"]


def test_the_log_as_reference_does_not_slide_along(two_versions):
    log = PredictionLog(two_versions, "opinions")
    settings = LOG.model_copy(update={"baseline_days": 1.0, "surge_labels": ("negative",), "min_change": 0.3})
    for day in range(4):  # slowly: nothing of it can be seen from one day to the next
        log.append(rows(24 * day, 24 * day + 24, shares=(0.1 + 0.2 * day, 0.1)), f"day-{day}")
        line = monitor_model(two_versions, "opinions", settings)
    assert "drift" in line["alarms"]


def test_another_version_begins_without_the_surges_of_the_one_before(two_versions):
    log = PredictionLog(two_versions, "opinions")
    settings = LOG.model_copy(update={"surge_labels": ("negative",), "min_change": 0.9})
    state = two_versions / "monitor" / "opinions" / "state.json"
    log.append(pd.concat([rows(0, 30, version=1), rows(30, 31, shares=(0.9, 0.05), version=1)]), "one")
    assert monitor_model(two_versions, "opinions", settings)["alarms"] == ["surge"]
    log.append(rows(31, 32, version=1), "more")
    monitor_model(two_versions, "opinions", settings)
    assert list(read_json(state)["surges"]) == ["(all)\tnegative"]
    log.append(rows(32, 40), "released")
    monitor_model(two_versions, "opinions", settings)
    assert (read_json(state)["version"], read_json(state)["surges"]) == (2, {})

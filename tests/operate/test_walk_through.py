"""The walk-through of docs/guides/operate.md in real time, on the tweets, on real servers:

up, train, predict a steady stream, a new topic and a surge of negative opinions on a known one arrive, alerts and a
retraining that finds nothing to learn from, labelled rows arrive, retraining, gate, new champion, better
predictions, rollback.
"""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from flows.prefect_api import ask
from tests.operate.tweets import NEW_TOPIC, tweets
from tests.operate.up_process import Up

pytestmark = pytest.mark.slow

NAME = "tweets"
RECIPE = """\
extends: opinions
name: tweets
steps:
  data: {{with: {{source: {source}, label: sentiment, max_train_rows: 1500}}}}
  int8: {{with: {{accept_loss: 0.06}}}}
  words: {{with: {{accept_loss: 0.06}}}}
  cheapest: {{with: {{max_loss: 0.06}}}}
  release: {{with: {{max_loss: 0.08}}}}
"""
HOUR = 3600.0
STEADY_DAYS, STEADY_RATE = 7, 24
"""Known topics only, rows an hour."""
NEWS_HOURS, NEWS_RATE = 3, 80
"""Then the new topic as well,"""
LOUD_TOPIC, LOUD_RATE = "airlines", 240
"""and a wave of negative opinions on a known one: most of what is said of it is negative anyway, so it takes many."""
LIMIT_SECONDS = 15 * 60


class Receiver:
    """What the webhook got."""

    def __init__(self) -> None:
        self.got: list[dict] = []
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/alerts"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait_for(self, event: str, seconds: float = 60) -> dict:
        deadline = time.monotonic() + seconds
        while True:
            found = next((one for one in self.got if one["event"] == event), None)
            if found:
                return found
            assert time.monotonic() < deadline, self.got
            time.sleep(0.2)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def up(tmp_path: Path, receiver: Receiver) -> Iterator[Up]:
    """An `up` of its own: its automations and its alerts are this story's."""
    running = Up(tmp_path / "home", "--webhook", receiver.url)
    yield running
    running.stop()


def in_time(frame: pd.DataFrame, start: float, hours: float) -> pd.DataFrame:
    """Evenly over so many hours."""
    return frame.assign(time=start + np.linspace(0, hours * HOUR, len(frame), endpoint=False))


def write_files(directory: Path) -> dict[str, Path]:
    """What the model learns from, two streams without labels, and labelled rows that come later."""
    everything = tweets()
    known, news = (everything[(everything["topic"] == NEW_TOPIC) == new] for new in (False, True))
    half = len(known) // 2
    now = time.time() - 60
    begin = now - (NEWS_HOURS + 24 * STEADY_DAYS) * HOUR
    steady = in_time(known[half:].head(24 * STEADY_DAYS * STEADY_RATE), begin, 24 * STEADY_DAYS)
    arrives, later = news.head(NEWS_HOURS * NEWS_RATE), news[NEWS_HOURS * NEWS_RATE :].head(1500)
    rest = known[half + 24 * STEADY_DAYS * STEADY_RATE :]
    angry = rest[(rest["topic"] == LOUD_TOPIC) & (rest["sentiment"] == "negative")].head(NEWS_HOURS * LOUD_RATE)
    usual = rest.drop(angry.index).head(NEWS_HOURS * STEADY_RATE)
    mixed = pd.concat([arrives, angry, usual]).sample(frac=1, random_state=1)
    frames = {
        "known": known[:half][["text", "sentiment"]],
        "steady": steady[["id", "text", "topic", "time"]],
        "news": in_time(mixed, now - NEWS_HOURS * HOUR, NEWS_HOURS)[["id", "text", "topic", "time"]],
        "labelled": later[["id", "text", "sentiment"]],
    }
    for name, frame in frames.items():
        frame.to_csv(directory / f"{name}.csv", index=False)
    return {name: directory / f"{name}.csv" for name in frames}


def predict(up: Up, source: Path) -> pd.DataFrame:
    output = source.with_suffix(".out.csv")
    up.cli(
        "predict", NAME, str(source), "--id", "id", "--topic", "topic", "--time", "time", "-o", str(output)
    )  # fmt: skip
    return pd.read_csv(output)


def retrain_runs(up: Up, wanted: int, seconds: float = 480) -> list[dict]:
    """The runs of the deployment, in their order, once so many of them are over."""
    deadline = time.monotonic() + seconds
    while True:
        runs = ask(up.api, "flow_runs/filter", {"deployments": {"name": {"any_": ["retrain"]}}})
        over = [run for run in runs if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")]
        if len(over) >= wanted:
            return sorted(over, key=lambda run: run["expected_start_time"])
        assert time.monotonic() < deadline, ([(run["name"], run["state"]) for run in runs], up.log())
        time.sleep(0.5)


def accuracy(frame: pd.DataFrame) -> float:
    """On the new topic."""
    truth = tweets().set_index("id")["sentiment"]
    frame = frame[frame["topic"] == NEW_TOPIC]
    return float((frame["predicted"].to_numpy() == truth.loc[frame["id"]].to_numpy()).mean())


def test_from_the_first_model_to_the_rollback(up, receiver, tmp_path):
    started = time.monotonic()
    files = write_files(tmp_path)
    (up.home / "recipes").mkdir()
    (up.home / "recipes" / "tweets.yaml").write_text(RECIPE.format(source=files["known"]))

    trained = up.finished(up.deploy_run("train/train", {"recipe": NAME}), 600)
    assert trained["state_name"] == "Completed", (trained["state"], up.log())
    champion = up.cli.json("models")[0]["aliases"]
    assert champion == {"champion": 1}

    predict(up, files["steady"])
    quiet = up.cli.json("monitor", NAME, "--surge-label", "negative")
    assert not quiet["alarm"], quiet["alarms"]

    before = predict(up, files["news"])
    loud = up.cli.json("monitor", NAME, "--surge-label", "negative")
    kinds = {alarm["kind"] if isinstance(alarm, dict) else alarm for alarm in loud["alarms"]}
    assert kinds, loud
    assert receiver.wait_for("stillhouse.surge")["model"] == NAME
    assert receiver.wait_for("stillhouse.drift")["model"] == NAME
    assert retrain_runs(up, 1)[0]["state_name"] == "NothingNew"  # the drift asked for it; nobody has labelled anything

    added = up.cli.json("data", "add", NAME, str(files["labelled"]), "--label", "sentiment", "--id", "id")
    assert added["rows"] > 1300, added
    learned = retrain_runs(up, 2)[1]
    assert learned["state_name"] == "Released", (learned["state"], up.log())
    assert up.cli.json("models")[0]["aliases"] == {"champion": 2, "previous": 1}

    after = predict(up, files["news"])
    assert accuracy(after) > accuracy(before) + 0.02, (accuracy(before), accuracy(after))
    since = time.monotonic()
    back = up.cli.json("rollback", NAME)
    assert (back["version"], back["previous"]) == (1, 2)
    assert time.monotonic() - since < 5
    assert time.monotonic() - started < LIMIT_SECONDS
    print(f"walk-through: {time.monotonic() - started:.0f} s, new topic {accuracy(before):.3f} → {accuracy(after):.3f}")

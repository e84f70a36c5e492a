"""Events of a model: always in the log, once on the server, kept while it is down, never in the way."""

import contextlib
import http.server
import json
import os
import threading
from collections.abc import Iterator

import pytest

from stillhouse.errors import UserError
from tasks.alerts import send_unsent, tell
from tasks.automations import check_webhook


class Receiver(http.server.BaseHTTPRequestHandler):
    """Takes what is posted; answers with the code that the server object holds."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        server = self.server
        server.got.append((self.path, dict(self.headers), json.loads(body)))  # type: ignore[attr-defined]
        self.send_response(server.code)  # type: ignore[attr-defined]
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch) -> Iterator[http.server.HTTPServer]:
    made = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    made.got, made.code = [], 204  # type: ignore[attr-defined]
    thread = threading.Thread(target=made.serve_forever)
    thread.start()
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{made.server_port}/api")
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def logged(home) -> list[dict]:
    return [json.loads(line) for line in (home / "logs" / "events.jsonl").read_text().splitlines()]


def test_without_a_server_the_log_has_it(tmp_path):
    tell(tmp_path, "new-data", "opinions", version=3, rows=120)
    (line,) = logged(tmp_path)
    assert {k: line[k] for k in ("event", "name", "version", "rows")} == {
        "event": "stillhouse.new-data", "name": "opinions", "version": 3, "rows": 120,
    }  # fmt: skip
    assert not (tmp_path / "logs" / "unsent").exists()


def test_the_server_gets_the_event_with_the_models_resource(tmp_path, server, monkeypatch):
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "me:secret")
    tell(tmp_path, "surge", "opinions", topic="bags", share=0.4, time=17.0)
    ((path, headers, (event,)),) = server.got
    assert path == "/api/events" and headers["Authorization"] == "Basic bWU6c2VjcmV0"
    assert event["event"] == "stillhouse.surge"
    assert event["resource"] == {
        "prefect.resource.id": "stillhouse.model.opinions", "prefect.resource.name": "opinions",
    }  # fmt: skip
    assert event["payload"] == {"model": "opinions", "topic": "bags", "share": 0.4, "time": 17.0}
    (line,) = logged(tmp_path)
    assert line["payload_time"] == 17.0 and line["time"] > 1e9, "the log's own time stays"


def test_what_a_server_did_not_take_is_sent_later_under_the_same_id(tmp_path, server):
    server.code = 503
    tell(tmp_path, "drift", "opinions", auc=0.9)
    assert send_unsent(tmp_path, os.environ["PREFECT_API_URL"]) == 0
    server.code = 204
    tell(tmp_path, "quality", "opinions", accuracy=0.5)
    events = [event for _, _, (event,) in server.got]
    assert [event["event"].rpartition(".")[2] for event in events] == ["drift", "drift", "quality", "drift"]
    assert len({event["id"] for event in events}) == 2
    assert send_unsent(tmp_path, os.environ["PREFECT_API_URL"]) == 0 and len(server.got) == 4


def test_a_message_that_is_refused_does_not_hold_up_the_others(tmp_path, server):
    server.code = 503
    tell(tmp_path, "drift", "opinions", auc=0.9)
    tell(tmp_path, "surge", "opinions", share=0.9)
    kept = sorted((tmp_path / "logs" / "unsent").glob("*.json"))
    kept[0].write_text("{")
    server.code = 204
    assert send_unsent(tmp_path, os.environ["PREFECT_API_URL"]) == 1
    assert [path.name for path in (tmp_path / "logs" / "unsent" / "refused").iterdir()] == [kept[0].name]
    server.code = 422
    tell(tmp_path, "quality", "opinions", accuracy=0.1)
    assert send_unsent(tmp_path, os.environ["PREFECT_API_URL"]) == 0
    assert len(list((tmp_path / "logs" / "unsent" / "refused").iterdir())) == 2
    assert not list((tmp_path / "logs" / "unsent").glob("*.json"))


def test_nothing_stops_the_teller(tmp_path, monkeypatch):
    (tmp_path / "logs").write_text("a file where the log's directory should be")
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    tell(tmp_path, "refused", "opinions", reason=object())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("hooks.example.org/x", "is no address"), ("https://", "is no address"),
        ("http://example.org/x", "neither https"), ("https://example.org/x", ""), ("http://127.0.0.1:9/x", ""),
    ],
)  # fmt: skip
def test_a_webhook_goes_over_https_or_stays_on_this_machine(url, says):
    with pytest.raises(UserError, match=says) if says else contextlib.nullcontext():
        check_webhook(url)

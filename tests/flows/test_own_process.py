"""A flow of this process asks a busy server of this machine again soon; one elsewhere is left to Prefect's client."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from prefect.context import SyncClientContext

from flows.own_process import ATTEMPTS, SoonAgain, own_process


class Busy(ThreadingHTTPServer):
    """Answers 503 `busy` times, then 200, always with what it was sent; `asked` counts."""

    busy = asked = 0


class Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        sent = self.rfile.read(int(self.headers["Content-Length"]))
        assert isinstance(self.server, Busy)
        self.server.asked += 1
        self.send_response(503 if self.server.asked <= self.server.busy else 200)
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


@pytest.fixture
def server() -> Iterator[Busy]:
    with Busy(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def post(server: Busy) -> httpx.Response:
    with httpx.Client(transport=SoonAgain()) as client:
        return client.post(f"http://127.0.0.1:{server.server_port}/", json={"a": 1})


def test_a_busy_database_is_asked_again_within_a_second_with_the_same_body(server):
    server.busy = 2
    started = time.monotonic()
    answer = post(server)
    assert (answer.status_code, answer.json(), server.asked) == (200, {"a": 1}, 3)
    assert time.monotonic() - started < 1.0, "Prefect's own client would have waited for 2 s and more"


def test_a_server_that_stays_busy_gets_its_answer_through(server, monkeypatch):
    monkeypatch.setattr("flows.own_process.PAUSE_SECONDS", (0.0, 0.0))
    server.busy = 1000
    assert post(server).status_code == 503
    assert server.asked == ATTEMPTS + 1


@pytest.mark.parametrize("address", ["", "http://prefect.example:4200/api", "https://127.0.0.1/api"])
def test_another_server_than_one_of_this_machine_is_left_to_prefects_client(monkeypatch, address):
    monkeypatch.setenv("PREFECT_API_URL", address)
    with own_process():
        assert SyncClientContext.get() is None

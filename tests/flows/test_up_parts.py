"""The parts of `up` that need no server: ports, marked processes, the keeper, restarts, discovery, refusals."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from flows import environment, keeper, ports, prefect_api, servers, supervised, up
from flows.marked import FLOW_RUN, MARK, alive, marked
from flows.ports import Reserved, choose
from flows.servers import Service, services, shipped
from flows.supervised import Supervised
from flows.up import bring_up
from stillhouse.errors import UserError, WorkerError
from stillhouse.files import write_json
from stillhouse.home import make_home
from tasks.mlflow_home import DATABASE, database_file
from tasks.processes import process_start
from tasks.running_up import FILE, running

ROOT = Path(__file__).parents[2]


@pytest.fixture
def two_free_ports():
    """Two ports that are free, held until they are to be used."""
    with socket.socket() as first, socket.socket() as second:
        for each in (first, second):
            each.bind(("127.0.0.1", 0))
        found = [each.getsockname()[1] for each in (first, second)]
    return found


@pytest.fixture
def usual(monkeypatch, two_free_ports):
    monkeypatch.setattr(ports, "USUAL", {"prefect": two_free_ports[0], "mlflow": two_free_ports[1]})
    return two_free_ports


def test_ports_are_the_usual_ones_and_the_same_after_a_restart(tmp_path, usual):
    first = choose(tmp_path, {}, Reserved())
    assert [first.prefect, first.mlflow] == usual
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        kept = other.getsockname()[1]
    write_json(tmp_path / ports.FILE, {"prefect": kept, "mlflow": first.mlflow})
    again = choose(tmp_path, {}, Reserved())
    assert again.prefect == kept


def test_a_taken_port_is_passed_over_unless_it_was_asked_for(tmp_path, usual):
    with socket.socket() as other:
        other.bind(("127.0.0.1", usual[0]))
        other.listen()
        found = choose(tmp_path, {}, Reserved())
        assert found.prefect > usual[0]
        with pytest.raises(UserError, match=f"port {usual[0]} is taken"):
            choose(tmp_path, {"prefect": usual[0]}, Reserved())


def test_two_homes_that_start_at_once_get_different_ports(tmp_path, usual):
    held = [Reserved(), Reserved()]
    found = [choose(tmp_path / name, {}, each) for name, each in zip("ab", held, strict=True) if made(tmp_path / name)]
    assert found[0].prefect != found[1].prefect and found[0].mlflow != found[1].mlflow


def made(path: Path) -> bool:
    path.mkdir()
    return True


def sleeper(home: Path, flow_run: str = "") -> "subprocess.Popen[bytes]":
    """A process of an `up`, in a session of its own, that ignores SIGTERM."""
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); time.sleep(99)"
    marks = {MARK: str(home)} | ({FLOW_RUN: flow_run} if flow_run else {})
    process = subprocess.Popen(
        [sys.executable, "-c", code], env={**os.environ, **marks}, start_new_session=True, stdout=subprocess.PIPE
    )
    assert process.stdout
    process.stdout.readline()
    process.stdout.close()
    return process


def test_processes_of_an_up_are_found_by_home_with_their_flow_run(tmp_path):
    mine, other = sleeper(tmp_path, "run-1"), sleeper(tmp_path / "other")
    try:
        assert marked(tmp_path) == {mine.pid: "run-1"}
    finally:
        for process in (mine, other):
            process.kill()
            process.wait()
    assert marked(tmp_path) == {} and not alive(mine.pid)


def test_the_keeper_ends_what_a_killed_up_leaves_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    mine, other = sleeper(tmp_path), sleeper(tmp_path / "other")
    watch = keeper.start(tmp_path, grace_seconds=0.1)
    try:
        os.kill(watch.pid, signal.SIGTERM)  # it is the last to go
        time.sleep(0.3)
        assert alive(mine.pid)
        assert watch.stdin
        watch.stdin.close()
        assert mine.wait(15) == -signal.SIGKILL
        assert watch.wait(15) == 0 and alive(other.pid)
    finally:
        for process in (mine, other, watch):
            process.kill()
            process.wait()


def service(tmp_path: Path, code: str) -> Service:
    return Service(
        "thing", [sys.executable, "-c", code], dict(os.environ), tmp_path / "logs" / "log", lambda since: True
    )


def test_what_dies_is_started_again_and_given_up_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr(supervised, "PAUSES", (0.0, 0.0))
    said: list[str] = []
    one = Supervised(service(tmp_path, "print('no such thing'); raise SystemExit(7)"), said.append)
    one.start()
    with pytest.raises(WorkerError, match="the thing ended with code 7, 3 times in 120 s: no such thing"):
        for _ in range(3):
            assert one.process
            one.process.wait()
            one.revive()
    assert said == ["the thing ended with code 7; starting it again"] * 2


def test_a_death_long_ago_is_forgotten_and_a_pause_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(supervised, "PAUSES", (0.2,))
    monkeypatch.setattr(supervised, "WINDOW_SECONDS", 0.5)
    one = Supervised(service(tmp_path, "import time; time.sleep(99)"), lambda line: None)
    one.start()
    for _ in range(2):
        assert one.process
        one.process.kill()
        one.process.wait()
        one.revive()
        assert not one.alive(), "the pause is not over"
        time.sleep(0.25)
        one.revive()
        assert one.alive() and one.is_healthy()
        time.sleep(0.5)
    one.ended()


def up_file(home: Path, process: str | None) -> None:
    home.mkdir(exist_ok=True)
    given = {"pid": os.getpid(), "process": process, "prefect": "http://p", "api": "http://p/api", "mlflow": "http://m"}
    write_json(home / FILE, {**given, "pool": "stillhouse"})


def test_a_running_up_is_discovered_and_a_dead_one_is_not(tmp_path, monkeypatch):
    for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI"):
        monkeypatch.setenv(name, "")  # so that what is set below goes away again
        monkeypatch.delenv(name)
    up_file(tmp_path, "another boot:1")
    environment.prepare(tmp_path)
    assert running(tmp_path) is None and "PREFECT_API_URL" not in os.environ
    up_file(tmp_path, process_start(os.getpid()))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mine.db")
    environment.prepare(tmp_path)
    assert os.environ["PREFECT_API_URL"] == "http://p/api"
    assert os.environ["MLFLOW_TRACKING_URI"] == "sqlite:///mine.db", "the user's own stays"


def test_the_file_behind_the_server_of_this_homes_up_is_known_and_of_no_other(tmp_path, monkeypatch):
    up_file(tmp_path, process_start(os.getpid()))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://m")
    assert database_file(tmp_path) == tmp_path.resolve() / DATABASE
    assert database_file(tmp_path / "other") is None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://elsewhere")
    assert database_file(tmp_path) is None
    up_file(tmp_path, "another boot:1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://m")
    assert database_file(tmp_path) is None, "nobody says what is behind that address now"


def test_everything_listens_on_loopback_and_answers_its_own_pages_alone(tmp_path):
    prefect, mlflow, worker = services(tmp_path, ports.Ports(4242, 5252))
    for server in (prefect, mlflow):
        assert server.command[server.command.index("--host") + 1] == "127.0.0.1"
        assert server.environment["DO_NOT_TRACK"] == "1"
    assert prefect.environment["PREFECT_SERVER_CORS_ALLOWED_ORIGINS"] == "http://127.0.0.1:4242,http://localhost:4242"
    assert prefect.environment["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"
    assert mlflow.environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    assert "127.0.0.1:5252,localhost:5252" in mlflow.command
    assert worker.environment["PREFECT_WORKER_WEBSERVER_HOST"] == "127.0.0.1"


def test_the_deployments_are_found_in_an_installed_wheel(tmp_path):
    from hatchling.builders.wheel import WheelBuilder

    wheel = next(WheelBuilder(str(ROOT)).build(directory=str(tmp_path), versions=["standard"]))
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    code = "from flows.servers import shipped; print(shipped('prefect.yaml'), shipped('process-pool.json'))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    found = [Path(path) for path in done.stdout.split()]
    for path, name in zip(found, ("prefect.yaml", "process-pool.json"), strict=True):
        assert path.is_relative_to(tmp_path / "site") and path.read_text() == shipped(name).read_text()


@pytest.mark.parametrize("broken", ["prefect", "mlflow"])
def test_an_unreadable_database_is_said_before_anything_starts(tmp_path, monkeypatch, broken):
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    path = tmp_path / ("prefect/prefect.db" if broken == "prefect" else DATABASE)
    path.parent.mkdir(exist_ok=True)
    path.write_text("not a database at all, but long enough to have a header")
    with pytest.raises(UserError, match="cannot be read"):
        bring_up(tmp_path, {}, None, print, lambda addresses, already: None)


def test_servers_named_by_the_shell_are_refused_in_one_line(tmp_path, monkeypatch, usual):
    write_json(tmp_path / "x", {})
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere:4200/api")
    monkeypatch.setattr("flows.up._check", lambda home: None)
    with pytest.raises(UserError, match="PREFECT_API_URL is set to http://elsewhere:4200/api"):
        bring_up(tmp_path, {}, None, print, lambda addresses, already: None)


def test_a_second_up_tells_the_addresses_of_the_first(tmp_path):
    from tasks.mlflow_home import lock

    up_file(tmp_path, process_start(os.getpid()))
    told: list[tuple[str, bool]] = []
    with lock(tmp_path, "up"):
        code = bring_up(
            tmp_path, {}, None, print, lambda addresses, already: told.append((addresses["prefect"], already))
        )
    assert (code, told) == (0, [("http://p", True)])


def test_a_second_up_goes_on_when_the_first_ends_instead_of_starting(tmp_path):
    from tasks.mlflow_home import lock

    first, second, said = lock(tmp_path, "up"), lock(tmp_path, "up"), []
    first.acquire()

    def say(line: str) -> None:
        said.append(line)
        first.release()

    assert up._acquire_or_find(second, tmp_path, say) is None
    assert second.is_locked and said == ["another `up` of this home is starting or stopping"]
    second.release()


def test_modules_of_the_working_directory_are_not_ours(tmp_path, monkeypatch):
    for name in ("flows", "tasks"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('not this one')")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "prefect"))
    watch = keeper.start(tmp_path / "home", grace_seconds=0.1)
    assert watch.stdin
    watch.stdin.close()
    assert watch.wait(15) == 0
    up._check(make_home(tmp_path / "home"))
    assert (tmp_path / "home" / "mlflow.db").exists()


def test_an_answer_that_breaks_off_is_no_answer():
    def half(listener: socket.socket) -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=half, args=(listener,), daemon=True).start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(OSError, match="broke off"):
            prefect_api.ask(address, "health", method="GET")
        assert servers._answers(lambda: servers._get(address) == b"{") is False


def test_a_home_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "home").write_text("a file")
    done = subprocess.run(
        [sys.executable, "-m", "flows.cli", "up", "--json"], cwd=ROOT, capture_output=True, text=True, check=False,
        env={**os.environ, "STILLHOUSE_HOME": str(tmp_path / "home" / "below")},
    )  # fmt: skip
    assert done.returncode == 2 and "cannot write to the home directory" in json.loads(done.stdout)["error"]["message"]


@pytest.fixture
def prefect_double():
    """A server that answers as Prefect does, for a pool with one run in each state; what it was told is kept."""
    import http.server
    import threading

    states = {"a": "RUNNING", "b": "RUNNING", "c": "PENDING", "d": "CANCELLING", "e": "RUNNING"}
    told: dict[str, dict] = {}
    busy = [2]

    class Double(http.server.BaseHTTPRequestHandler):
        def log_message(self, format, *args):
            pass

        def answer(self, value, code=200):
            body = json.dumps(value).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self):
            run = self.path.rpartition("/")[2]
            self.answer({"id": run, "state_type": "COMPLETED" if run == "e" else states[run]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if self.path.endswith("filter") and busy[0]:
                busy[0] -= 1
                self.answer({}, 503)
            elif self.path.endswith("filter"):
                asked = body["flow_runs"]["state"]["type"]["any_"]
                assert body["work_pools"] == {"name": {"any_": ["stillhouse"]}}
                labels = {"c": {}, "a": {"prefect.worker.name": "up"}}  # one that nobody took yet has none
                there = [{"id": run, "labels": labels.get(run)} for run, state in states.items() if state in asked]
                self.answer([*there, {"id": "elsewhere", "labels": {"prefect.worker.name": "ProcessWorker 1"}}])
            else:
                told[self.path.split("/")[2]] = body
                self.answer({"status": "ACCEPT"})

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Double)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", told
    server.shutdown()
    server.server_close()


def test_runs_that_lost_their_process_are_told_apart(prefect_double, monkeypatch):
    """`b` has a process; `e` ended after the question was asked; a busy server is asked again."""
    monkeypatch.setattr(prefect_api, "PAUSES", (0.01, 0.01))
    api, told = prefect_double
    mended = prefect_api.mend_flow_runs(api, lambda: {"b", ""}, ("PENDING", "RUNNING", "CANCELLING"))
    assert sorted(mended) == ["a", "c", "d"] == sorted(told)
    assert {run: (change["state"]["type"], change["force"]) for run, change in told.items()} == {
        "a": ("CRASHED", False), "c": ("SCHEDULED", True), "d": ("CANCELLED", False),
    }  # fmt: skip
    assert told["c"]["state"]["state_details"]["scheduled_time"]

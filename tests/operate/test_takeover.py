"""`stillhouse serve` takes over a promotion under load: no request fails, and none is answered by a mixture."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.interrupt import descendants
from stillhouse.files import read_json
from tasks import fresh_check, registry
from tasks import register as registration
from tests.end_to_end.model_server import asked, predicted
from tests.tasks.tiny_release import make_release

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
THREADS = 4
SECONDS = 180


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Version 1 of "opinions" is previous, version 2 champion."""
    made = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        patch.setattr(registration, "check_in_fresh_process", lambda *given: "")
        for seed in (1, 2):
            against = registry.against_for(made, "opinions", f"model-{seed}")
            given = make_release(made / f"release-{seed}", seed=seed, model_key=f"model-{seed}", against=against)
            release, manifest, lineage = given
            registration.register(made, "opinions", release, manifest, promote=True, lineage=lineage)
    return made


class Served:
    """`stillhouse serve opinions` as a child; `said` are its lines so far."""

    def __init__(self, home: Path) -> None:
        environment = {**os.environ, "STILLHOUSE_HOME": str(home), "PYTHONPATH": str(ROOT)}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.cli", "serve", "opinions", "--port", "0", "--poll-seconds", "0.3"],
            env=environment, stderr=subprocess.PIPE, text=True, cwd=home,
        )  # fmt: skip
        self.said: list[str] = []
        self.reader = threading.Thread(target=lambda: self.said.extend(iter(self.process.stderr.readline, "")))
        self.reader.start()
        self.address = self.wait(r"serving opinions/2 on (\S+)")

    def wait(self, pattern: str) -> str:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            found = re.search(pattern, "".join(self.said))
            if found:
                return found.group(found.lastindex or 0)
            time.sleep(0.05)
        raise AssertionError(f"it never said {pattern!r}: {self.said}")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self.reader.join(10)
        self.process.stderr.close()


@pytest.fixture(scope="module")
def served(home: Path) -> Iterator[Served]:
    child = Served(home)
    yield child
    child.close()


def version_of(home: Path, answers: list[dict], rows: dict[int, list[dict]]) -> int:
    """Whose answers these are, all of them."""
    fits = []
    for version, expected in rows.items():
        found = fresh_check.compare(expected[: len(answers)], answers)
        fits += [version] if found["changed"] == 0 and found["largest_change"] < 1e-5 else []
    assert len(fits) == 1, answers[:2]
    return fits[0]


def test_a_promotion_under_load_fails_no_request(home: Path, served: Served) -> None:
    rows = {v: read_json(home / f"release-{v}" / "bundle" / "check.json")["rows"][:5] for v in (1, 2)}
    texts = [row["text"] for row in rows[1]]
    seen: list[tuple[float, int]] = []
    wrong: list[BaseException] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            started = time.monotonic()
            try:
                seen.append((started, version_of(home, predicted(served.address, texts), rows)))
            except BaseException as error:
                wrong.append(error)
                return

    threads = [threading.Thread(target=load) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(1)
        registry.rollback(home, "opinions")
        served.wait("opinions/1 took over from opinions/2")
        switched = time.monotonic()
        time.sleep(2)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not wrong, wrong[0]
    counts = Counter(version for _, version in seen)
    assert counts[1] > 10 and counts[2] > 10, counts
    assert {version for started, version in seen if started > switched} == {1}


def test_bad_requests_are_answered_and_change_nothing(served: Served) -> None:
    status, message = asked(served.address, b"not json")
    assert status == 400 and "BAD_REQUEST" in message
    status, message = asked(served.address, b'{"dataframe_split": {"columns": ["txt"], "data": [["a"]]}}')
    assert status == 400 and "text" in message
    assert predicted(served.address, ["bad flight"])[0]["label"]


def test_a_server_that_dies_is_started_again(served: Served) -> None:
    before = descendants(served.process.pid)
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    served.wait("opinions/1 took over from opinions/1")
    assert predicted(served.address, ["bad flight"])[0]["label"]


def test_it_ends_with_all_its_processes(served: Served) -> None:
    children = descendants(served.process.pid)
    assert len(children) >= 2
    served.close()
    assert served.process.returncode == 0
    deadline = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in children) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not [pid for pid in children if Path(f"/proc/{pid}").exists()]

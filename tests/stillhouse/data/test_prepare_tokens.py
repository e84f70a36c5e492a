"""prepare.tokens: CoNLL files and Hub data sets, tags of every scheme made BIO."""

import json
from collections import Counter

import pytest

from stillhouse.data._conll import sentences, to_bio
from stillhouse.data.read import load_info, load_labels, load_split
from stillhouse.data.tokens import Tokens
from stillhouse.errors import UserError
from stillhouse.method import Input, Job, Source
from stillhouse.source import DigestMemo, resolve_source
from tests.shared_data import shared_data

NAMES = ["Ada", "Bo", "Cy", "Dee", "Eli", "Fay", "Gus", "Hal", "Ivy", "Jo"]
PLACES = ["Northtown", "Southbay", "Eastham", "Westford", "Midvale"]


def made_up(count):
    rows = []
    for number in range(count):
        words = [
            NAMES[number % 10],
            "went",
            "to",
            PLACES[number % 5],
            f"{number * 7919}",
            "times",
            f"{number * 104729}",
        ]
        rows.append((words, ["B-person", "O", "O", "B-place", "O", "O", "O"]))
    return rows


def write_conll(path, rows, separator="\t"):
    text = "\n".join("".join(f"{word}{separator}{tag}\n" for word, tag in zip(*row, strict=True)) for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


def prepare(tmp_path, source, out="out", previous=None, **settings):
    method = Tokens(source=str(source), **settings)
    method.check(set())
    named = {name: getattr(method, name) for name in Tokens.external}
    sources = {
        name: resolve_source(value, "data", tmp_path, {}, DigestMemo()) for name, value in named.items() if value
    }
    return run(tmp_path, method, sources, out, previous)


def run(tmp_path, method, sources, out="out", previous=None):
    (tmp_path / out).mkdir()
    inputs = {"previous": [Input(previous, "k", "data", "c")]} if previous else {}
    metrics = method.run(Job(tmp_path / out, tmp_path / "scratch", 42, inputs, sources))
    return tmp_path / out, metrics


def tagged(directory):
    """{(words, names of their tags)} of all splits."""
    labels = load_labels(directory)
    return {
        (tuple(words), tuple(labels[tag] for tag in tags))
        for split in ("train", "validation", "test")
        for words, tags in load_split(directory, split)[["words", "tags"]].itertuples(index=False)
    }


@pytest.mark.parametrize(
    ("tags", "expected", "repairs"),
    [
        ("B-a I-a O B-a B-a", "B-a I-a O B-a B-a", {}),
        ("I-a I-a O I-b B-b", "B-a I-a O B-b B-b", {"tags_inside_without_begin": 2}),
        ("B-a I-b", "B-a B-b", {"tags_inside_without_begin": 1}),
        ("S-a B-b E-b E-b", "B-a B-b I-b B-b", {"tags_other_scheme": 3}),
        ("S-a I-a", "B-a B-a", {"tags_other_scheme": 1, "tags_inside_without_begin": 1}),
        ("U-a B-b I-b L-b", "B-a B-b I-b I-b", {"tags_other_scheme": 2}),
        ("a a o b", "B-a I-a O B-b", {"tags_unknown_prefix": 3}),
        ("Q-a creative-work b-a i-a", "B-a B-creative-work B-a I-a", {"tags_unknown_prefix": 2}),
    ],
)
def test_tags_of_every_scheme_become_bio(tags, expected, repairs):
    counts = Counter()
    assert to_bio(tags.split(), counts) == expected.split()
    assert +counts == repairs


def test_bio_tags_are_left_alone_by_a_second_pass():
    once = to_bio(["I-a", "E-a", "S-b", "c", "O", "I-d"], Counter())
    counts = Counter()
    assert to_bio(once, counts) == once
    assert not +counts


def test_conll_files_skip_comments_and_document_starts_and_count_broken_sentences(tmp_path):
    path = tmp_path / "a.conll"
    path.write_bytes(
        b"-DOCSTART- -X- O O\r\n\r\n# id 7\r\nAda NNP B-person\r\nsang VB O\r\n\r\n\r\n"
        b"# NN O\r\n\r\nalone\r\n\r\nBo X O"
    )
    counts = Counter()
    found = list(sentences(path, 0, -1, counts))
    assert found == [(["Ada", "sang"], ["B-person", "O"]), (["#"], ["O"]), (["Bo"], ["O"])]
    assert counts["malformed"] == 1


@pytest.mark.parametrize("separator", ["\t", " "])
def test_a_conll_file_gives_the_artifact_of_the_contract(tmp_path, separator):
    rows = made_up(120)
    out, metrics = prepare(tmp_path, write_conll(tmp_path / "rows.conll", rows, separator))
    assert load_labels(out) == ["O", "B-person", "I-person", "B-place", "I-place"]
    assert tagged(out) == {(tuple(words), tuple(tags)) for words, tags in rows}
    assert list(load_split(out, "train").columns) == ["id", "words", "tags", "epoch"]
    assert load_split(out, "train")["tags"][0].dtype == "int32"
    report = load_info(out)["report"]
    assert load_info(out)["problem"] == "token-classification"
    assert report["classes"]["train"] == dict.fromkeys(["person", "place"], metrics["train_rows"])


def test_repairs_duplicates_and_invisible_words_are_reported(tmp_path):
    rows = [*made_up(120), (["Ada", "\u200b", "Bo"], ["I-person", "B-person", "I-person"]), made_up(1)[0]]
    out, _ = prepare(tmp_path, write_conll(tmp_path / "rows.conll", rows))
    assert (("Ada", "Bo"), ("B-person", "I-person")) in tagged(out)
    report = load_info(out)["report"]
    assert report["dropped"] == {"duplicate": 1}
    assert "1 entities began with I: made B" in report["warnings"]


def test_a_sample_and_previous_data_work_for_sentences_too(tmp_path):
    rows = made_up(150)
    old, metrics = prepare(tmp_path, write_conll(tmp_path / "old.conll", rows[:100]), "old", max_train_rows=30)
    assert metrics["train_rows"] == 30
    other = [(["Zed", f"{n * 7919}", f"{n * 31}"], ["B-name", "O", "O"]) for n in range(60)]
    new, _ = prepare(tmp_path, write_conll(tmp_path / "new.conll", other), "new", previous=old)
    assert load_labels(new)[:5] == load_labels(old)
    assert load_labels(new)[5:] == ["B-name", "I-name"]
    assert tagged(old) < tagged(new)
    epochs = load_split(new, "train")["epoch"]
    assert epochs.value_counts()[0] == 30
    assert set(epochs) == {0, 1}


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_rows_with_lists_are_read_like_conll(tmp_path, form):
    import pandas as pd

    rows = made_up(120)
    frame = pd.DataFrame({"tokens": [words for words, _ in rows], "ner_tags": [tags for _, tags in rows]})
    path = tmp_path / f"rows.{form}"
    frame.to_parquet(path) if form == "parquet" else frame.to_json(path, orient="records", lines=True)
    out, _ = prepare(tmp_path, path)
    assert tagged(out) == {(tuple(words), tuple(tags)) for words, tags in rows}


def write_hub_cache(cache, repository, rows, revision="a" * 40):
    """A data set as the Hub's client keeps it, with class names for its numbers."""
    from datasets import ClassLabel, Dataset, Features, List, Value

    names = ["O", "B-person", "I-person", "B-place", "I-place"]
    features = Features(
        {"id": Value("string"), "tokens": List(Value("string")), "ner_tags": List(ClassLabel(names=names))}
    )
    folder = cache / f"datasets--{repository.replace('/', '--')}"
    snapshot = folder / "snapshots" / revision / "data"
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text(revision)
    for split, part in rows.items():
        numbers = [[names.index(tag) for tag in tags] for _, tags in part]
        table = {"id": list(map(str, range(len(part)))), "tokens": [words for words, _ in part], "ner_tags": numbers}
        Dataset.from_dict(table, features=features).to_parquet(str(snapshot / f"{split}-00000-of-00001.parquet"))


@pytest.mark.filterwarnings("ignore::Warning")
def test_a_hub_data_set_in_the_cache_needs_no_network(tmp_path, monkeypatch):
    import huggingface_hub.constants as constants

    rows = made_up(120)
    write_hub_cache(
        tmp_path / "hub", "someone/made-up", {"train": rows[:80], "validation": rows[80:95], "test": rows[95:]}
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    pinned = {}
    source = resolve_source("hub:someone/made-up", "data", tmp_path, pinned, DigestMemo())
    assert pinned == {"hub:someone/made-up": "a" * 40}
    assert source == Source(source.name, f"hub:someone/made-up@{'a' * 40}", None, "someone/made-up", "a" * 40)
    out, metrics = run(tmp_path, Tokens(source=source.name), {"source": source})
    assert (metrics["validation_rows"], metrics["test_rows"]) == (15, 25)
    assert tagged(out) == {(tuple(words), tuple(tags)) for words, tags in rows}
    assert "source_id" in load_split(out, "train")


def test_the_three_files_of_wnut17_keep_their_splits(tmp_path):
    out, metrics = prepare(tmp_path, shared_data("wnut17"))
    assert metrics["test_rows"] == 1287
    assert 980 < metrics["validation_rows"] <= 1009
    assert 3200 < metrics["train_rows"] < 3394
    assert len(load_labels(out)) == 13
    assert load_labels(out)[0] == "O"


@pytest.mark.parametrize(
    ("content", "settings", "expected"),
    [
        ("only\nwords\n\nhere\n", {}, "no line with a word and a tag"),
        ("", {}, "no line with a word and a tag"),
        ("a O\n\nb O\n", {}, "distinct row"),
        ("a\tO\n", {"tag_column": 5}, "no line with a word and a tag"),
        ("a\tO\n", {"tag_column": 0}, "both 0"),
        ("a\tO\n", {"format": "hub"}, "does not fit"),
        ("\n\n".join(f"word{n * 7919} O\nnumber{n} O" for n in range(90)), {}, "too few classes"),
    ],
)
def test_bad_files_are_one_line(tmp_path, content, settings, expected):
    (tmp_path / "bad.conll").write_text(content)
    with pytest.raises(UserError, match=expected) as caught:
        prepare(tmp_path, "bad.conll", **settings)
    assert "\n" not in str(caught.value)
    assert caught.value.fix


def test_texts_in_place_of_lists_are_named(tmp_path):
    (tmp_path / "bad.jsonl").write_text(json.dumps({"tokens": "not a list", "ner_tags": ["O"]}))
    with pytest.raises(UserError, match="must hold lists"):
        prepare(tmp_path, "bad.jsonl")

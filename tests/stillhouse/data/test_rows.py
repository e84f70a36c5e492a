"""Files to be predicted: every row, in order, in batches of bounded size."""

import json
from pathlib import Path

import pandas as pd
import pytest

from stillhouse.data._tables import Layout
from stillhouse.data.rows import iter_rows
from stillhouse.errors import UserError


def read_rows(path: Path, text: str) -> pd.DataFrame:
    return pd.concat(list(iter_rows(path, text)), ignore_index=True)


def test_batches_hold_no_more_rows_than_asked(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("text\n" + "".join(f"row {number}\n" for number in range(2500)))
    sizes = [len(frame) for frame in iter_rows(path, "text", chunk=1000)]
    assert sizes == [1000, 1000, 500]


def test_predict_gets_one_row_out_for_one_in(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('id,text\n1,plain\n2,"with, comma"\n3,unquoted, comma\n4\n5,\n')
    frame = read_rows(path, "text")
    assert frame["text"].tolist() == ["plain", "with, comma", "unquoted, comma", "", ""]
    assert frame["id"].tolist() == ["1", "2", "3", "4", "5"]


def test_empty_rows_count_and_empty_lines_do_not(tmp_path):
    one, two = tmp_path / "one.csv", tmp_path / "two.csv"
    one.write_text('text\nhello\n""\n\nbye\n')
    assert read_rows(one, "text")["text"].tolist() == ["hello", "", "bye"]
    two.write_text("text,id\nhello,1\n,\n\nbye,2\n")
    assert read_rows(two, "text")["text"].tolist() == ["hello", "", "bye"]


def test_a_field_that_appears_late_is_a_column_from_the_start(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": "b"}\n{"text": "c", "late": 1}\n')
    assert [list(frame.columns) for frame in iter_rows(path, "text", chunk=2)] == [["text", "late"]] * 2


def test_a_tsv_file_may_hold_lone_quotation_marks(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text('a\ttext\n1\t"lone mark\n2\t"said ""yes"" twice"\n')
    assert read_rows(path, "text")["text"].tolist() == ['"lone mark', 'said "yes" twice']


def test_a_file_without_a_header_takes_names(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("1,first\n2,second\n")
    frames = list(iter_rows(path, "b", layout=Layout(column_names=("a", "b"), keep_all=True)))
    assert [frame["b"].tolist() for frame in frames] == [["first", "second"]]


@pytest.mark.parametrize("rows", [3, 4, 5])
def test_json_lines_come_out_whole_with_missing_texts_empty(tmp_path, rows):
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": None if n == 1 else f"t{n}", "n": n}) for n in range(rows)))
    frames = list(iter_rows(path, "text", chunk=2))
    assert [len(frame) for frame in frames][:2] == [2, min(2, rows - 2)]
    assert [text for frame in frames for text in frame["text"]] == ["t0", "", *(f"t{n}" for n in range(2, rows))]


def test_half_a_surrogate_pair_can_be_written_again(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "ok \\ud83d", "other": "\\ude00"}\n')
    frame = read_rows(path, "text")
    frame.to_csv(tmp_path / "out.csv", index=False)
    assert frame["text"].tolist() == ["ok \ufffd"] and frame["other"].tolist() == ["\ufffd"]


def test_a_line_that_cannot_be_read_is_named_not_skipped(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a"}\n{"text": \n')
    with pytest.raises(UserError, match="line 2 is not a JSON object"):
        read_rows(path, "text")


def test_a_missing_text_column_names_the_nearest(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("texts,id\na,1\n")
    with pytest.raises(UserError, match='did you mean "texts"'):
        read_rows(path, "text")


def test_a_closed_quotation_at_the_end_of_a_file_is_a_row(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text('text,label\n"one\ntwo",a\n5" pipe,b\n"three ""and""\nfour",c\n')
    assert read_rows(path, "text")["text"].tolist() == ["one\ntwo", '5" pipe', 'three "and"\nfour']


def test_two_columns_of_one_name_are_refused_in_parquet_too(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    column = pa.array(["a", "b"])
    pq.write_table(pa.Table.from_arrays([column, column], names=["label", "label"]), tmp_path / "rows.parquet")
    with pytest.raises(UserError, match='has two columns "label"'):
        read_rows(tmp_path / "rows.parquet", "label")

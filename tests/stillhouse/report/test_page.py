import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from stillhouse.files import read_json, write_json
from stillhouse.report._judged import confusion
from stillhouse.report.collect import collect, read_lines, read_retrains
from stillhouse.report.page import build_page
from tests.stillhouse.report.tiny_report import SCRIPT, add_watch, make_home, verdict

PLOTS = {
    "quality", "difference-champion", "difference-baseline", "confusion", "calibration", "ladder-speed", "ladder-bytes",
    "stages", "learning-curve", "label-shares", "lineage",
}  # fmt: skip
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Page(HTMLParser):
    """Tags, ids, texts, and whether every tag is closed where it was opened."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.texts: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def values(self, name: str) -> list[str]:
        return [value for attribute, value in self.attributes if attribute == name]

    @property
    def plots(self) -> set[str]:
        return {"calibration" if value == "reliability" else value for value in self.values("data-plot")}


def page(home: Path, key: str, **more: object) -> Page:
    return Page(html(home, key, **more))


def html(home: Path, key: str, **more: object) -> str:
    return build_page({**collect(home, key), "made": 1.7e9, **more})


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> str:
    home = tmp_path_factory.mktemp("whole")
    return html(home, make_home(home))


def test_everything_is_there_and_well_formed(whole):
    found = Page(whole)
    assert found.open == [] and found.plots == PLOTS
    sections = {value for value in found.values("id") if value}
    assert {value[1:] for value in found.values("href") if value.startswith("#")} <= sections
    assert {"summary", "quality", "slices", "errors", "comparison", "settings", "environment"} <= sections
    labels = found.values("aria-label")
    assert len(labels) >= len(found.values("data-plot")) and all(labels)


def test_texts_of_the_data_stay_text(whole):
    assert not {"script", "img", "iframe", "object"} & set(Page(whole).tags)
    assert "<b>" not in whole.replace("<b>12,345</b>", "").replace("<b>20</b>", "").replace("<b>30</b>", "")
    assert "&lt;script&gt;" in whole and "{{ 7*7 }}" in whole and "49" not in re.findall(r">\s*49\s*<", whole)
    assert not set(map(ord, whole)) & {*range(9), *range(11, 32), 0x202E, 0x202C, 0x7F}
    assert "a␀b␇c" in whole and "⟨U+202E⟩gnihton" in whole and "שלום עולם" in whole
    assert "w" * 500 + "… (19,500 more characters)" in whole and "w" * 501 not in whole


def test_nothing_is_asked_of_the_network_and_no_place_of_this_machine_is_told(whole):
    found = Page(whole)
    assert "default-src 'none'" in " ".join(found.values("content"))
    outside = [v for name in ("src", "href", "action", "srcset") for v in found.values(name)]
    assert all(value.startswith(("#", "data:")) for value in outside)
    assert "url(" not in whole and "@import" not in whole
    assert "somebody" not in whole and "rows.csv" in whole


def test_figures_stand_where_they_belong(whole):
    text = " ".join(" ".join(Page(whole).texts).split())
    assert "macro F1 0.710 0.690 to 0.730 +0.030 against the champion (0.010 to 0.050)" in text
    assert "1.0 × smaller" in text and "5.0 × the baseline’s (4.5 to 5.5)" in text
    assert "champion version 3" in text and "passed the gate" in text
    assert "neutral 30 6" not in text and "By data epoch" in text and "+0.140" in text
    assert "prepare.text" in text and "A <CPU>" in text


def test_the_matrix_is_in_the_order_of_the_labels_not_of_the_alphabet(whole):
    tips = re.findall(r"<title>([^<]*)</title>", whole)
    assert "negative → negative: 30 (75.0 % of negative)" in tips
    assert any(tip.startswith("&lt;script&gt;alert") and "→ neutral: 4 (26.7 %" in tip for tip in tips)


def test_a_refusal_says_why(tmp_path):
    key = make_home(tmp_path)
    write_json(tmp_path / "store" / "artifacts" / key / "verdict.json", verdict(passed=False))
    text = " ".join(page(tmp_path, key).texts)
    assert "refused by the gate" in text and f"F1 of {SCRIPT} is below its floor" in text


def test_entities_have_a_matrix_of_types_and_marked_sentences(tmp_path):
    found = page(tmp_path, make_home(tmp_path, "token-classification"))
    text = " ".join(" ".join(found.texts).split())
    assert found.open == [] and "calibration" not in found.plots and "confusion" in found.plots
    assert "2 right, 1 missed, 1 spurious, 1 wrong type, 1 wrong boundary." in text
    assert 'wrong boundary · true: Ann <script>alert("x")</script> (person) · found: Ann (person)' in text
    assert "mark" in found.tags and "script" not in found.tags


@pytest.mark.parametrize("kind", ["data", "head", "int8", "scores"])
def test_a_report_of_any_artifact_tells_what_there_is(tmp_path, kind):
    make_home(tmp_path)
    keys = {m["step"]: m["key"] for m in map(read_json, tmp_path.glob("store/artifacts/*/manifest.json"))}
    found = page(tmp_path, keys[kind])
    assert found.open == [] and "lineage" in found.plots
    assert ("quality" in found.plots) == (kind == "scores") and ("label-shares" in found.plots)


def test_what_is_gone_or_damaged_is_left_out(tmp_path):
    key = make_home(tmp_path)
    for name in ("scores.json", "data.json", "ladder.json", "metrics.jsonl", "rung.json", "stillhouse.json"):
        for place, path in enumerate(tmp_path.glob(f"store/artifacts/*/{name}")):
            path.unlink() if place % 2 else path.write_text("{")
    for path in tmp_path.glob("store/artifacts/*/predictions.parquet"):
        path.write_bytes(b"PAR1 no more")
    found = page(tmp_path, key)
    assert found.open == [] and found.plots == {"lineage"} and "settings" in found.values("id")


def test_a_release_of_which_only_the_bundle_is_left(tmp_path):
    write_json(tmp_path / "verdict.json", verdict())
    facts = collect(tmp_path, "a" * 64, tmp_path)
    found = Page(build_page({**facts, "model": {"name": "m", "version": 2, "aliases": ["champion"]}, "made": 0.0}))
    assert "passed the gate" in " ".join(found.texts) and found.open == []


def test_drift_alarms_and_retraining(tmp_path):
    key = make_home(tmp_path)
    add_watch(tmp_path, "tiny")
    history = read_lines(tmp_path / "monitor" / "tiny" / "history.jsonl")
    found = page(tmp_path, key, history=history, retrains=read_retrains(tmp_path / "retrain" / "tiny"))
    text = " ".join(" ".join(found.texts).split())
    assert found.open == [] and "script" not in found.tags
    assert {"drift-input-drift", "drift-in-use"} <= found.plots
    assert "8 monitor runs from 2023-11-14" in text and "4,000 rows, 4 alarms." in text
    assert f"negative in {SCRIPT}: 40 of 50 rows" in text
    assert "released" in text and "3 times" in text and "epoch 0: 0.710 → 0.700" in text and "15 min 0 s" in text


@pytest.mark.parametrize(
    "line",
    [
        {"time": 1.0}, {"time": 1.0, "tests": {"a": 1}, "surge": 3, "quality": [1], "notes": None, "rows": "many"},
        {"time": 1e300, "tests": [{"name": None}, {"name": "x", "effect": "big", "alarm": True}, 7]},
    ],
)  # fmt: skip
def test_a_history_of_another_release_breaks_nothing(tmp_path, line):
    found = page(tmp_path, make_home(tmp_path), history=[line], retrains=[{"id": "a"}, {"id": "b", "quality": 3}])
    assert found.open == [] and "drift" in found.values("id")


def test_a_torn_line_costs_only_itself(tmp_path):
    (tmp_path / "lines.jsonl").write_bytes(b'{"a": 1}\n[2]\n{"b"\n\xff\n{"c": 3}')
    assert read_lines(tmp_path / "lines.jsonl") == [{"a": 1}, {"c": 3}]
    assert read_lines(tmp_path / "none") == []


def test_of_many_entity_types_the_worst_are_shown_with_shares_of_all_their_rows():
    names = [*(f"t{i:02d}" for i in range(35)), "only predicted", "(none)"]
    counts = [[0] * len(names) for _ in names]
    for i in range(35):
        counts[i][i], counts[i][35] = 20, 10 + i
    section = confusion({"predictions": {"entities": {"names": names, "counts": counts}}})
    assert section and "The 30 of 37 classes" in section["note"] and not section["numbered"]
    assert "t34 → t34: 20 (31.2 % of t34)" in section["plot"], "20 of 64, though a column may be left out"
    assert "only predicted → " not in section["plot"] and section["pairs"][0]["rows"] == 44

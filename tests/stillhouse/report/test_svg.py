import itertools

import pytest

from stillhouse.report._grids import heat_map, step_graph
from stillhouse.report._plots import interval_dots, label_shares, learning_curve, over_time
from stillhouse.report._svg import Scale, element, nice_ticks
from stillhouse.report._text import clean, duration, number, signed, size


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [(0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]), (-0.02, 0.005, [-0.02, -0.015, -0.01, -0.005, 0, 0.005]), (3, 3, [3])],
)
def test_ticks_are_round(low, high, ticks):
    assert nice_ticks(low, high) == pytest.approx(ticks)


@pytest.mark.parametrize(("low", "high"), [(1, 1.0001), (0, 1e-9), (-1e9, 1e9), (130, 570), (0.003, 4000)])
def test_there_are_always_a_few_ticks_within_the_range(low, high):
    for log in (False, True) if low > 0 else (False,):
        ticks = Scale(low, high, 0, 100, log).ticks()
        assert 1 <= len(ticks) <= 13 and all(low * 0.999 <= tick <= high * 1.001 or not log for tick in ticks)


def test_what_is_put_into_an_element_is_escaped():
    made = element("text", "<b>\x00", element("title", '"&'), x=1.0, class_='"><script>')
    assert made == '<text x="1" class="&#34;&gt;&lt;script&gt;">&lt;b&gt;␀<title>&#34;&amp;</title></text>'


def test_equal_values_and_single_points_do_not_break_a_plot():
    row = {"name": "a", "value": 0.5, "low": 0.5, "high": 0.5, "tone": 1}
    assert "NaN" not in interval_dots([row, row], "f1", "quality")
    assert learning_curve("head", [{"step": 1, "train_loss": 1.0, "f1": 0.5}], "f1", 1) is None
    assert over_time([("share", [(1.0, 0.2)])], "share", "drift", show_x=str) is not None
    assert over_time([("share", [])], "share", "drift", show_x=str) is None
    assert label_shares({"train": {}, "test": {}}) is None


def test_a_big_matrix_has_a_cell_for_each_pair_and_no_numbers():
    names = [f"class {number}" for number in range(30)]
    counts = [[3 if row == column else 0 for column in range(30)] for row in range(30)]
    drawn = heat_map(names, names, counts, [3] * 30)
    assert drawn.count('class="cell"') == 900 and 'class="count' not in drawn


def test_the_graph_leaves_out_what_other_lines_imply():
    feeds = {"data": [], "head": ["data"], "full": ["data", "head"], "onnx": ["full"], "pick": ["full", "onnx", "data"]}
    steps = [
        {"name": name, "key": name, "method": "m", "inputs": [{"key": key} for key in inputs]}
        for name, inputs in feeds.items()
    ]
    assert step_graph(steps, "pick").count('class="edge"') == 4
    wide = [{"name": f"s{n}", "key": f"s{n}", "method": "m", "inputs": []} for n in range(3)]
    drawn = step_graph(
        [*wide, {"name": "e", "key": "e", "method": "m", "inputs": [{"key": s["key"]} for s in wide]}], "e"
    )
    boxes = sorted(
        (float(part.split('"')[0]), float(part.split('width="')[1].split('"')[0]))
        for part in drawn.split('<rect x="')[1:4]
    )
    assert all(x + width <= after for (x, width), (after, _) in itertools.pairwise(boxes))


def test_words_and_numbers():
    assert clean("a\ud800\ufffe\u2066b\n\t") == "a\ufffd\ufffd⟨U+2066⟩b\n\t" and clean(None) == "" and clean(3) == 3
    assert (number(-0.5), number(None), number(float("nan")), signed(0.1), signed(-0.1)) == (
        "−0.500",
        "",
        "",
        "+0.100",
        "−0.100",
    )
    assert (size(999), size(6_570_000), duration(3.21), duration(200), duration(7500)) == (
        "999 B",
        "6.6 MB",
        "3.2 s",
        "3 min 20 s",
        "2 h 5 min",
    )

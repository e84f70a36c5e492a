import numpy as np
import pandas as pd
import pytest

from stillhouse.report._predictions import calibrate, confident_errors, look_at, spans, wilson


def test_ece_by_hand():
    # Eight answers of 0.95, six right; two of 0.45, both right: 0.8 * 0.2 + 0.2 * 0.55.
    confidence = np.array([0.95] * 8 + [0.45] * 2)
    right = np.array([True] * 6 + [False] * 2 + [True] * 2)
    found = calibrate(confidence, right)
    assert found["ece"] == pytest.approx(0.8 * 0.2 + 0.2 * 0.55)
    assert found["largest"] == pytest.approx(0.55)
    assert [b["rows"] for b in found["bins"]] == [0, 0, 0, 0, 2, 0, 0, 0, 0, 8]
    assert found["bins"][9]["accuracy"] == 0.75 and found["bins"][9]["confidence"] == pytest.approx(0.95)


@pytest.mark.parametrize(("confidence", "place"), [(0.0, 0), (0.1, 0), (0.1001, 1), (0.9, 8), (1.0, 9)])
def test_the_edges_of_a_bin(confidence, place):
    found = calibrate(np.array([confidence]), np.array([True]))
    assert [b["rows"] for b in found["bins"]].index(1) == place


def test_wilson_against_known_values():
    # Newcombe 1998, table I: 81 of 263, 0.2553 to 0.3662; 0 of 20, 0 to 0.1611.
    assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)
    assert wilson(0.0, 20) == pytest.approx((0.0, 0.1611), abs=1e-4)
    assert wilson(1.0, 20)[1] == pytest.approx(1.0)


def test_errors_go_by_pair_the_surest_first():
    frame = pd.DataFrame({
        "text": list("abcdef"), "label": ["x", "x", "x", "x", "y", "y"], "predicted": ["y", "y", "y", "x", "x", "y"],
    })  # fmt: skip
    right = (frame["label"] == frame["predicted"]).to_numpy()
    found = confident_errors(frame, right, np.array([0.6, 0.9, 0.7, 0.5, 0.8, 0.9]))
    assert [(p["label"], p["predicted"], p["rows"], p["share"]) for p in found] == [
        ("x", "y", 3, 0.75),
        ("y", "x", 1, 0.5),
    ]
    assert [e["text"] for e in found[0]["examples"]] == ["b", "c", "a"]


def test_without_probabilities_there_is_no_calibration():
    found = look_at(pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"], "predicted": ["x", "x"]}))
    assert "calibration" not in found and found["pairs"][0]["examples"] == [{"text": "b", "confidence": None}]
    assert look_at(pd.DataFrame({"text": ["a"]})) == {}


@pytest.mark.parametrize(
    ("tags", "found"),
    [
        ("O B-a I-a O B-b", [("a", 1, 3), ("b", 4, 5)]),
        ("B-a B-a I-b", [("a", 0, 1), ("a", 1, 2), ("b", 2, 3)]),
        ("I-a I-a", [("a", 0, 2)]),
        ("O O", []),
    ],
)
def test_spans_of_tags(tags, found):
    assert spans(tags.split()) == found

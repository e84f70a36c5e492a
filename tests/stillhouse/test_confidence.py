"""Calibration on numbers that can be worked out by hand, and on drawn ones whose temperature is known."""

import numpy as np
import pytest

from stillhouse.confidence import calibration_error, fit_temperature, log_loss, sure_cut, sure_figures


@pytest.mark.parametrize("true", [0.4, 1.0, 3.0])
def test_the_temperature_that_the_labels_were_drawn_with_is_found(true):
    chance = np.random.default_rng(0)
    logits = chance.normal(size=(20_000, 3)) * 2 * true
    drawn = (logits / true + chance.gumbel(size=logits.shape)).argmax(axis=1)
    found = fit_temperature(logits, drawn)
    assert found == pytest.approx(true, rel=0.05)
    around = [log_loss(logits, drawn, found * factor) for factor in (0.99, 1.01)]
    assert log_loss(logits, drawn, found) <= min(around)


def test_calibration_error_is_the_weighted_gap():
    confidence = np.array([0.81, 0.83, 0.85, 0.85, 0.31])  # bins 12 (four rows) and 4 (one)
    right = np.array([True, True, False, False, True])
    assert calibration_error(confidence, right) == pytest.approx((abs(3.34 - 2) + abs(0.31 - 1)) / 5)
    assert calibration_error(np.ones(3), np.ones(3, bool)) == 0


def test_the_cut_keeps_as_many_rows_as_the_accuracy_allows():
    confidence = np.array([0.5, 0.9, 0.8, 0.6, 0.7])
    right = np.array([False, True, True, False, True])
    assert sure_cut(confidence, right, 1.0, 0.2) == pytest.approx(0.65)
    assert sure_cut(confidence, right, 0.75, 0.2) == pytest.approx(0.55)
    assert sure_cut(confidence, right, 0.6, 0.2) == 0.0
    wrong = ~right
    assert sure_cut(confidence, wrong, 0.99, 0.8) == 0.0, "out of reach: the best of what covers enough"


def test_rows_of_equal_confidence_are_sure_together():
    confidence, right = np.array([0.9, 0.7, 0.7, 0.2]), np.array([True, True, False, False])
    assert sure_cut(confidence, right, 1.0, 0.1) == pytest.approx(0.8)
    assert sure_cut(confidence, right, 0.66, 0.1) == pytest.approx(0.45)


def test_figures_of_the_sure_rows():
    found = sure_figures(np.array([1.0, 1.0, 0.0]), np.array([True, False, False]), np.array([True, True, False]))
    assert found == {"calibration_error": pytest.approx(1 / 3), "coverage": pytest.approx(2 / 3), "sure_accuracy": 0.5}
    assert sure_figures(np.array([0.5]), np.array([True]), np.array([False]))["sure_accuracy"] == 1.0

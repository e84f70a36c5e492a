"""The drift tests: known answers, the stated false-alarm rate, effects that are too small to matter."""

import numpy as np
import pytest
from scipy.stats import binom

from stillhouse.monitor.drift import input_drift, prediction_drift
from stillhouse.monitor.significance import permutation_p, share_of


def within_binomial(alarms: int, runs: int, rate: float) -> bool:
    """`alarms` of `runs` lies in the central 99.9 % of a binomial."""
    low, high = binom.interval(0.999, runs, rate)
    return low <= alarms <= high


def test_levels_add_up_to_the_rate():
    assert share_of(0.01, 1) == pytest.approx(0.01)
    assert 1 - (1 - share_of(0.01, 7)) ** 7 == pytest.approx(0.01)


def test_a_permutation_p_value_is_uniform_and_stops_early():
    generator, drawn = np.random.default_rng(0), []

    def draw(count):
        drawn.append(count)
        return generator.normal(size=count)

    small = sum(permutation_p(generator.normal(), draw, 0.02) <= 0.02 for _ in range(2000))
    assert within_binomial(small, 2000, 0.02), small
    assert sum(drawn) < 2000 * 150, "an unremarkable value needs few permutations"
    assert permutation_p(9.0, draw, 0.001) == pytest.approx(1 / 4001)


def test_steady_embeddings_raise_alarms_at_the_stated_rate():
    alarms = 0
    for seed in range(400):
        rows = np.random.default_rng(seed).normal(size=(80, 6))
        alarms += input_drift(rows[:40], rows[40:], 0.05, min_auc=0.0, seed=seed).alarm
    assert within_binomial(alarms, 400, 0.05), alarms


def test_a_shift_of_embeddings_is_found_and_a_tiny_one_is_not_an_alarm():
    generator = np.random.default_rng(1)
    reference = generator.normal(size=(400, 20))
    shifted = generator.normal(size=(300, 20)) + np.r_[1.0, np.zeros(19)]
    found = input_drift(reference, shifted, 0.001)
    assert found.alarm and found.effect > 0.65 and found.p_value <= 0.001
    # The best classifier of two normals that differ by d has AUC Phi(d / sqrt 2), here 0.76.
    assert found.effect < 0.76 + 0.04
    slightly = np.random.default_rng(2).normal(size=(400, 2)) + np.r_[0.3, 0.0]
    found = input_drift(np.random.default_rng(3).normal(size=(400, 2)), slightly, 0.05)
    assert found.p_value <= 0.05 and not found.alarm, "significant, but AUC below 0.6"


def test_equal_rows_and_constant_columns_are_no_drift():
    rows = np.ones((50, 4))
    found = input_drift(rows, rows, 0.01)
    assert found.effect == pytest.approx(0.5) and found.p_value > 0.5 and not found.alarm


def test_steady_labels_raise_alarms_at_the_stated_rate():
    generator, alarms = np.random.default_rng(0), 0
    for seed in range(2000):
        reference, window = (generator.multinomial(count, [0.6, 0.3, 0.1]) for count in (300, 120))
        alarms += prediction_drift("abc", reference, window, 0.02, min_change=0.0, seed=seed).alarm
    assert within_binomial(alarms, 2000, 0.02), alarms


def test_changed_labels_are_found_with_their_size():
    found = prediction_drift(["good", "bad"], [300, 100], [60, 60], 0.001)
    assert found.alarm and found.effect == pytest.approx(0.25)
    assert found.detail["shares"]["bad"] == {"reference": 0.25, "window": 0.5}
    assert not prediction_drift(["good", "bad"], [300_000, 100_000], [27_000, 10_000], 0.001).alarm, "2 points"

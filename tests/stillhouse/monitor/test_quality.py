"""Quality measured and estimated: known answers, the stated rate, small drops."""

import numpy as np
import pytest
from scipy.stats import binom

from stillhouse.monitor.quality import estimate_quality, exact_interval, learn_estimator, measured_quality


def test_a_drop_is_found_with_an_exact_interval():
    found = measured_quality(60, 100, 800, 1000, 0.001)
    assert found.alarm and found.effect == pytest.approx(0.2)
    assert (found.detail["low"], found.detail["high"]) == pytest.approx((0.4972, 0.6967), abs=1e-4)
    assert not measured_quality(79_000, 100_000, 80_000, 100_000, 0.001).alarm, "one point is below the smallest drop"
    assert not measured_quality(90, 100, 800, 1000, 0.05).alarm, "better is no alarm"
    assert measured_quality(0, 0, 800, 1000, 0.05).p_value == 1.0


def test_the_interval_at_its_ends():
    assert exact_interval(0, 10)[0] == 0.0 and exact_interval(10, 10)[1] == 1.0
    assert exact_interval(0, 10)[1] == pytest.approx(1 - 0.025**0.1)


def test_steady_quality_raises_alarms_at_most_at_the_stated_rate():
    generator, alarms = np.random.default_rng(0), 0
    for right, before in zip(generator.binomial(150, 0.8, 2000), generator.binomial(800, 0.8, 2000), strict=True):
        alarms += measured_quality(int(right), 150, int(before), 800, 0.05, min_drop=0.0).alarm
    assert 20 < alarms <= binom.ppf(0.9995, 2000, 0.05), "Fisher's test stays below its level, not far"


def test_the_estimates_follow_a_shift_of_confidence():
    generator = np.random.default_rng(0)
    confidence = generator.uniform(0.4, 1.0, size=4000)
    right = generator.random(4000) < confidence
    learnt = learn_estimator(confidence, right)
    same = estimate_quality(learnt, confidence)
    assert same["accuracy"] == pytest.approx(right.mean(), abs=0.01)
    assert same["atc"] == pytest.approx(right.mean(), abs=1e-3)
    harder = generator.uniform(0.4, 0.6, size=1000)
    found = estimate_quality(learnt, harder)
    assert found["accuracy"] == pytest.approx(0.5, abs=0.04), "well calibrated, so the mean confidence is right"
    assert found["reference"] == pytest.approx(right.mean()) and found["rows"] == 1000


def test_an_estimator_of_rows_that_are_all_right():
    learnt = learn_estimator(np.full(50, 0.9), np.ones(50, dtype=bool))
    assert estimate_quality(learnt, np.array([0.9, 0.95]))["atc"] == 1.0
    learnt = learn_estimator(np.full(50, 0.9), np.zeros(50, dtype=bool))
    assert estimate_quality(learnt, np.array([0.9]))["accuracy"] < 0.05

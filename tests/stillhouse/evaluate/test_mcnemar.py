import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, bootstrap

from stillhouse.evaluate._mcnemar import mcnemar, right_rows
from stillhouse.metrics import paired_difference
from tests.stillhouse.evaluate.tiny_models import CLASSIFICATION, LABELS, TOKENS


def rows(both: int, only_a: int, only_b: int, neither: int) -> tuple[np.ndarray, np.ndarray]:
    counts = (both, only_a, only_b, neither)
    return np.repeat([True, True, False, False], counts), np.repeat([True, False, True, False], counts)


@settings(deadline=None, max_examples=50)
@given(both=st.integers(0, 50), only_a=st.integers(0, 400), only_b=st.integers(0, 400), neither=st.integers(0, 50))
def test_it_is_the_exact_binomial_test_of_the_rows_that_differ(both, only_a, only_b, neither):
    a, b = rows(both, only_a, only_b, neither)
    found = mcnemar(a, b)
    assert (found["only_a"], found["only_b"]) == (only_a, only_b)
    differing = only_a + only_b
    expected = binomtest(only_a, differing, 0.5).pvalue if differing else 1.0
    assert found["p_value"] == pytest.approx(expected, rel=1e-9)
    assert mcnemar(b, a)["p_value"] == found["p_value"], "which of the two comes first does not matter"


def test_a_great_many_rows_are_no_trouble():
    assert mcnemar(*rows(0, 30_000, 30_500, 0))["p_value"] == pytest.approx(binomtest(30_000, 60_500).pvalue, rel=1e-9)


def test_a_sentence_is_right_when_all_its_tags_are():
    truth = [np.array([0, 1]), np.array([2]), np.array([], int)]
    logits = [np.eye(3)[[0, 2]], np.eye(3)[[2]], np.zeros((0, 3))]
    assert right_rows(TOKENS, truth, logits).tolist() == [False, True, True]
    assert right_rows(CLASSIFICATION, np.array([0, 1]), np.eye(3)[[0, 2]]).tolist() == [True, False]


@settings(deadline=None, max_examples=10)
@given(seed=st.integers(0, 1000))
def test_the_paired_interval_is_that_of_scipy_s_bootstrap(seed):
    """Accuracy is a mean over rows, so scipy's percentile bootstrap of the paired differences is the reference."""
    random = np.random.default_rng(seed)
    truth = random.integers(3, size=300)
    a, b = (np.eye(3)[np.where(random.random(300) < share, truth, (truth + 1) % 3)] for share in (0.8, 0.75))
    value, low, high = paired_difference(CLASSIFICATION, LABELS, truth, a, b, "accuracy", 4000, seed)
    each = (a.argmax(1) == truth).astype(float) - (b.argmax(1) == truth)
    reference = bootstrap(
        (each,), np.mean, n_resamples=4000, method="percentile", rng=np.random.default_rng(seed + 1)
    ).confidence_interval
    assert value == pytest.approx(each.mean())
    assert (low, high) == (pytest.approx(reference.low, abs=0.008), pytest.approx(reference.high, abs=0.008))

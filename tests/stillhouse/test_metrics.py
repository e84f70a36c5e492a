import time

import numpy as np
import pytest
import seqeval.metrics
import sklearn.metrics

from stillhouse.errors import UserError
from stillhouse.metrics import (
    bootstrap_interval,
    confusion,
    evaluate_predictions,
    metric_names,
    paired_difference,
    per_class,
    probabilities,
)

TEXTS, TOKENS = "text-classification", "token-classification"
LABELS = ["a", "b", "c"]
TAGS = ["O", "B-x", "I-x", "B-y", "I-y"]


def classified(rows: int = 300, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(seed)
    truth = generator.integers(classes, size=rows)
    logits = generator.normal(size=(rows, classes)).round(1)  # rounded: ties in the ranks
    logits[np.arange(rows), truth] += 1
    return truth, logits


def tagged(rows: int = 200, seed: int = 0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    generator = np.random.default_rng(seed)
    truth = [generator.integers(len(TAGS), size=size) for size in generator.integers(0, 12, size=rows)]
    logits = [generator.normal(size=(len(row), len(TAGS))) + 2 * np.eye(len(TAGS))[row] for row in truth]
    return truth, logits


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_classification_figures_are_those_of_sklearn(classes):
    truth, logits = classified(classes=classes)
    guess, shares = logits.argmax(axis=1), probabilities(logits).round(12)
    found = evaluate_predictions(TEXTS, list(map(str, range(classes))), truth, logits)
    macro = sklearn.metrics.precision_recall_fscore_support(truth, guess, average="macro")
    assert found == pytest.approx(
        {
            "accuracy": sklearn.metrics.accuracy_score(truth, guess),
            "f1_macro": macro[2],
            "f1_micro": sklearn.metrics.f1_score(truth, guess, average="micro"),
            "precision_macro": macro[0],
            "recall_macro": macro[1],
            "roc_auc": sklearn.metrics.roc_auc_score(
                truth, shares[:, 1] if classes == 2 else shares, multi_class="ovr", average="macro"
            ),
        }
    )
    assert list(found) == metric_names(TEXTS)


def test_a_class_that_never_occurs_counts_for_nothing():
    truth, logits = np.array([0, 1, 1]), np.array([[2.0, 0, -9], [0, 2, -9], [0, 2, -9]])
    assert evaluate_predictions(TEXTS, LABELS, truth, logits)["f1_macro"] == 1
    assert evaluate_predictions(TEXTS, LABELS, np.array([1, 1, 1]), logits)["f1_macro"] == pytest.approx(0.4)


def test_roc_auc_is_left_out_where_one_class_is_all_there_is():
    found = evaluate_predictions(TEXTS, LABELS, np.array([1, 1]), np.eye(3)[[1, 2]])
    assert "roc_auc" not in found
    assert found["accuracy"] == 0.5


def test_entity_figures_are_those_of_seqeval():
    truth, logits = tagged()
    names = [[TAGS[tag] for tag in row] for row in truth]
    guesses = [[TAGS[tag] for tag in scores.argmax(axis=-1)] for scores in logits]
    assert evaluate_predictions(TOKENS, TAGS, truth, logits) == pytest.approx(
        {
            "entity_f1": seqeval.metrics.f1_score(names, guesses),
            "entity_precision": seqeval.metrics.precision_score(names, guesses),
            "entity_recall": seqeval.metrics.recall_score(names, guesses),
            "accuracy": seqeval.metrics.accuracy_score(names, guesses),
        }
    )


def test_sentences_without_entities_give_zero_not_a_crash():
    found = evaluate_predictions(
        TOKENS, TAGS, [np.array([0, 0]), np.array([], int)], [np.eye(5)[[0, 0]], np.zeros((0, 5))]
    )
    assert found == {"entity_f1": 0, "entity_precision": 0, "entity_recall": 0, "accuracy": 1}


@pytest.mark.parametrize("metric", ["f1_macro", "roc_auc"])
def test_the_interval_is_that_of_resampled_rows(metric):
    truth, logits = classified(rows=150)
    generator = np.random.default_rng(3)
    draws = [
        evaluate_predictions(TEXTS, LABELS, truth[rows], logits[rows])[metric]
        for rows in generator.integers(len(truth), size=(800, len(truth)))
    ]
    low, high = bootstrap_interval(TEXTS, LABELS, truth, logits, metric)
    assert (low, high) == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=0.015)


def test_entity_interval_is_that_of_resampled_sentences():
    truth, logits = tagged(rows=120)
    generator = np.random.default_rng(3)
    draws = [
        evaluate_predictions(TOKENS, TAGS, [truth[i] for i in rows], [logits[i] for i in rows])["entity_f1"]
        for rows in generator.integers(len(truth), size=(200, len(truth)))
    ]
    low, high = bootstrap_interval(TOKENS, TAGS, truth, logits, "entity_f1")
    assert (low, high) == pytest.approx(tuple(np.percentile(draws, [2.5, 97.5])), abs=0.03)


def test_the_seed_decides_the_interval():
    truth, logits = classified()
    same = [bootstrap_interval(TEXTS, LABELS, truth, logits, "f1_macro", seed=seed) for seed in (1, 1, 2)]
    assert same[0] == same[1] != same[2]


@pytest.mark.parametrize("metric", ["f1_macro", "roc_auc"])
def test_a_model_does_not_differ_from_itself(metric):
    truth, logits = classified()
    assert paired_difference(TEXTS, LABELS, truth, logits, logits, metric) == (0, 0, 0)


def test_pairing_makes_a_small_difference_visible():
    truth, worse = classified(rows=1000)
    better = worse.copy()
    wrong = np.flatnonzero(worse.argmax(axis=1) != truth)[:25]
    better[wrong, truth[wrong]] += 100
    value, low, high = paired_difference(TEXTS, LABELS, truth, better, worse, "accuracy")
    assert value == pytest.approx(0.025)
    assert 0 < low < value < high
    alone = [bootstrap_interval(TEXTS, LABELS, truth, logits, "accuracy") for logits in (better, worse)]
    assert alone[1][1] > alone[0][0]  # the two separate intervals overlap


def test_four_thousand_rows_take_less_than_two_seconds():
    truth, logits = classified(rows=4000)
    started = time.perf_counter()
    bootstrap_interval(TEXTS, LABELS, truth, logits, "f1_macro", resamples=1000)
    assert time.perf_counter() - started < 2


def test_per_class_and_confusion_by_hand():
    truth, logits = np.array([0, 0, 1, 2]), np.eye(3)[[0, 1, 1, 1]]
    assert confusion(truth, logits, 3).tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    assert per_class(TEXTS, LABELS, truth, logits) == {
        "a": {"precision": 1, "recall": 0.5, "f1": pytest.approx(2 / 3), "support": 2},
        "b": {"precision": pytest.approx(1 / 3), "recall": 1, "f1": 0.5, "support": 1},
        "c": {"precision": 0, "recall": 0, "f1": 0, "support": 1},
    }


def test_per_type_of_entity_by_hand():
    truth = [np.array([1, 2, 0, 3])]  # x over two words, y over one
    logits = [np.eye(5)[[1, 0, 0, 3]]]  # x is cut short
    assert per_class(TOKENS, TAGS, truth, logits) == {
        "x": {"precision": 0, "recall": 0, "f1": 0, "support": 1},
        "y": {"precision": 1, "recall": 1, "f1": 1, "support": 1},
    }


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_scores_that_are_no_numbers_are_refused(bad):
    truth, logits = classified()
    logits[5, 1] = bad
    with pytest.raises(UserError, match="not finite"):
        evaluate_predictions(TEXTS, LABELS, truth, logits)


def test_mistakes_are_named():
    truth, logits = classified()
    with pytest.raises(UserError, match="f1_macro"):
        bootstrap_interval(TEXTS, LABELS, truth, logits, "f1-macro")
    with pytest.raises(UserError, match="no metrics for"):
        metric_names("text-clasification")
    with pytest.raises(UserError, match="no rows"):
        evaluate_predictions(TEXTS, LABELS, np.array([], int), np.zeros((0, 3)))
    with pytest.raises(ValueError, match="300 true rows but 299"):
        evaluate_predictions(TEXTS, LABELS, truth, logits[1:])

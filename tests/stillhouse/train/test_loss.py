import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stillhouse.train._loss import cross_entropy_share, label_weights
from stillhouse.train._tokens import IGNORED
from stillhouse.train.stage import Stage


@pytest.mark.parametrize("weights", [None, torch.tensor([1.0, 2.0, 0.5])])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_shares_of_a_batch_add_up_to_its_cross_entropy(weights, smoothing):
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([0, 1, 2, IGNORED, 1, 0])
    shares = [
        cross_entropy_share(logits[part], targets[part], targets, weights, smoothing)
        for part in (slice(0, 1), slice(1, 4), slice(4, 6))
    ]
    whole = F.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing, ignore_index=IGNORED)
    torch.testing.assert_close(sum(shares), whole)


def test_a_batch_without_targets_has_no_loss():
    targets = torch.tensor([IGNORED, IGNORED])
    assert cross_entropy_share(torch.zeros(2, 3), targets, targets).item() == 0.0


def test_balanced_weights_are_those_of_scikit_learn():
    from sklearn.utils.class_weight import compute_class_weight

    targets = np.array([0, 0, 0, 1, 2, 2, IGNORED])
    expected = compute_class_weight("balanced", classes=np.arange(3), y=targets[:-1])
    weights = label_weights(Stage(class_weights="balanced"), ["a", "b", "c"], targets)
    assert weights is not None
    np.testing.assert_allclose(weights.numpy(), expected, rtol=1e-6)


def test_labels_left_out_of_the_table_weigh_one():
    weights = label_weights(Stage(class_weights={"b": 3.0}), ["a", "b", "c"], np.array([0]))
    assert weights is not None and weights.tolist() == [1.0, 3.0, 1.0]

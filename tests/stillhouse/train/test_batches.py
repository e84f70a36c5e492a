import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from stillhouse.train._batches import collate, epoch_order, micro_batches, pad_pieces
from stillhouse.train._tokens import IGNORED, Tokens

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=300).map(np.asarray)


@given(LENGTHS, st.integers(1, 40), st.integers(0, 3), st.integers(0, 3))
def test_every_row_is_in_exactly_one_batch_of_an_epoch(lengths, size, seed, epoch):
    order = epoch_order(lengths, size, seed, epoch)
    assert sorted(row for batch in order for row in batch) == list(range(len(lengths)))
    assert len(order) == -(-len(lengths) // size)


def test_order_depends_on_seed_and_epoch_alone():
    lengths = np.random.default_rng(0).integers(1, 60, 500)

    def flat(seed: int, epoch: int) -> list[int]:
        return np.concatenate(epoch_order(lengths, 8, seed, epoch)).tolist()

    assert flat(1, 1) == flat(1, 1)
    assert len({tuple(flat(seed, epoch)) for seed in range(3) for epoch in range(3)}) == 9


def test_buckets_need_far_less_padding_than_chance():
    lengths = np.random.default_rng(0).integers(5, 60, 1600)
    padded = sum(len(rows) * lengths[rows].max() for rows in epoch_order(lengths, 32, 0, 0))
    assert padded < 1.05 * lengths.sum()


@given(LENGTHS, st.integers(1, 200))
def test_micro_batches_keep_the_budget_and_the_rows(lengths, budget):
    rows = np.argsort(-lengths, kind="stable")
    parts = micro_batches(rows, lengths, budget)
    assert np.concatenate(parts).tolist() == rows.tolist()
    assert all(len(part) == 1 or len(part) * lengths[part].max() <= budget for part in parts)


def test_padding_is_masked_and_ignored():
    tokens = Tokens(
        ids=np.array([5, 6, 7, 8, 9], np.int32),
        offsets=np.array([0, 2, 5]),
        targets=np.array([1, IGNORED, 2, 0, IGNORED]),
        words=np.array([0, -1, 1, 2, -1], np.int32),
    )
    batch = collate(tokens, np.array([1, 0]), pad_id=3, device=torch.device("cpu"))
    assert batch.inputs["input_ids"].tolist() == [[7, 8, 9], [5, 6, 3]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.targets.tolist() == [[2, 0, IGNORED], [1, IGNORED, IGNORED]]


def test_features_of_tokens_are_padded_alike():
    padded = pad_pieces(np.ones((3, 2), np.float32), np.array([0, 1, 3]), np.array([0, 1]), 0.0)
    assert padded.tolist() == [[[1, 1], [0, 0]], [[1, 1], [1, 1]]]

"""The split follows content: what appending, reordering and near-duplicates may and may not change."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.data._decide import LEFT_OUT, SPLIT_NAMES, TEST, TRAIN, VALIDATION, Index, Role, Rules, decide, rank_of
from stillhouse.data._near import PIECE, bands_for, near_duplicates
from stillhouse.data._spool import _short_hash

WORDS = ["red", "green", "blue", "the cat", "a dog", "ran home", "slept", "quickly today", "and then some more words"]
TEXTS = st.lists(st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join), min_size=1, max_size=40)
LABELLED = st.lists(
    st.tuples(st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(" ".join), st.sampled_from("ab")), min_size=1
)


def build_index(rows, roles=None, seed=7):
    import hashlib

    return Index(
        np.array([hashlib.sha256(text.encode()).digest() for text, _ in rows], dtype="S32"),
        np.array([rank_of(text, seed) for text, _ in rows], dtype=np.uint64),
        np.array([_short_hash(label, signed=True) for _, label in rows], dtype=np.int64),
        np.zeros(len(rows), dtype=np.uint64),
        np.array(roles or [Role.NEW] * len(rows), dtype=np.int8),
    )


def split_of(rows, roles=None, seed=7, **rules):
    """({text: (split, label)} of what stays, what was dropped)."""
    split, dropped = decide(build_index(rows, roles, seed), Rules(**rules), lambda row: rows[row][0], lambda *_: None)
    kept = {rows[row][0]: (int(split[row]), rows[row][1]) for row in range(len(rows)) if split[row] != LEFT_OUT}
    assert (split != LEFT_OUT).sum() + sum(dropped.values()) == len(rows)
    return kept, dropped


def shared(left, right):
    """Jaccard similarity, written down once more without numpy."""
    a, b = ({text[i : i + PIECE] for i in range(max(1, len(text) - PIECE + 1))} for text in (left, right))
    return len(a & b) / len(a | b)


@settings(deadline=None, max_examples=60)
@given(LABELLED, LABELLED)
def test_appending_moves_no_row_to_another_split(rows, more):
    before, _ = split_of(rows)
    after, _ = split_of(rows + more)
    moved = {text for text in before.keys() & after.keys() if before[text][0] != after[text][0]}
    assert moved == set()


@settings(deadline=None, max_examples=60)
@given(LABELLED, st.randoms(use_true_random=False), st.sampled_from([0, 4]))
def test_the_order_of_rows_is_irrelevant(rows, random, max_train_rows):
    shuffled = random.sample(rows, len(rows))
    assert split_of(rows, max_train_rows=max_train_rows) == split_of(shuffled, max_train_rows=max_train_rows)


@settings(deadline=None, max_examples=60)
@given(TEXTS, st.sampled_from([0.7, 0.8, 0.9]))
def test_no_two_rows_that_stay_are_near_each_other(texts, threshold):
    kept, dropped = split_of([(text, "a") for text in texts], near_duplicate_threshold=threshold)
    names = sorted(kept)
    close = [(a, b) for i, a in enumerate(names) for b in names[:i] if shared(a, b) >= threshold]
    assert close == []
    if not any(dropped.values()):
        assert len(kept) == len(texts)


@settings(deadline=None, max_examples=60)
@given(TEXTS)
def test_every_row_left_out_is_near_one_that_stays(texts):
    distinct = sorted(set(texts))
    dropped = near_duplicates(range(len(distinct)), distinct.__getitem__, 0.8)
    assert all(shared(distinct[row], distinct[kept]) >= 0.8 and kept not in dropped for row, kept in dropped.items())


def test_shares_are_80_10_10_and_follow_the_seed():
    rows = [(f"text number {number} {_short_hash(str(number))}", "ab"[number % 2]) for number in range(3000)]
    kept, _ = split_of(rows, near_duplicate_threshold=None)
    shares = np.bincount([split for split, _ in kept.values()]) / len(rows)
    np.testing.assert_allclose(shares, [0.8, 0.1, 0.1], atol=0.02)
    other, _ = split_of(rows, seed=8, near_duplicate_threshold=None)
    assert 0.2 < np.mean([kept[text] != other[text] for text in kept]) < 0.5


def texts_in(split, count=1, seed=7):
    """Made-up texts whose hash puts them into `split`."""
    low, high = {TRAIN: (0, 0.8), VALIDATION: (0.8, 0.9), TEST: (0.9, 1)}[split]
    tries = (
        f"a made up sentence with the number {number} that goes on for quite a few words" for number in range(9999)
    )
    fitting = (text for text in tries if low <= rank_of(text, seed) / 2**64 < high)
    return [next(fitting) for _ in range(count)]


def test_a_training_row_near_a_held_out_row_leaves_and_never_the_reverse():
    held_out = texts_in(TEST)[0]
    near = next(text for mark in "abcdefghijkl" if rank_of(text := held_out + mark, 7) / 2**64 < 0.8)
    kept, dropped = split_of([(near, "a"), (held_out, "a")])
    assert kept == {held_out: (TEST, "a")}
    assert dropped == Counter(near_held_out=1)


def test_previous_rows_win_over_new_ones_and_keep_their_split():
    held_out, training = texts_in(TEST)[0], texts_in(TRAIN)[0]
    near = next(text for mark in "abcdefghijkl" if rank_of(text := training + mark, 7) / 2**64 >= 0.9)
    rows = [(near, "a"), (held_out, "b"), (training, "a"), (held_out, "a")]
    roles = [Role.NEW, Role.NEW, Role.TRAIN_PREVIOUS, Role.TRAIN_PREVIOUS]
    kept, dropped = split_of(rows, roles)
    assert kept == {training: (TRAIN, "a"), held_out: (TRAIN, "a")}
    assert dropped == Counter(near_duplicate=1, contradictory=1)


def test_given_files_are_used_as_given_and_clear_the_training_rows():
    text = texts_in(TRAIN)[0]
    rows = [(text, "a"), (text, "a"), (text + "!", "a"), (text, "b"), (text + "?", "a"), ("something else", "a")]
    roles = [Role.TEST_GIVEN, Role.TEST_GIVEN, Role.TEST_GIVEN, Role.VALIDATION_GIVEN, Role.NEW, Role.NEW]
    split, dropped = decide(
        build_index(rows, roles), Rules(given=frozenset({VALIDATION, TEST})), lambda row: rows[row][0], lambda *_: None
    )
    assert split.tolist() == [TEST, TEST, TEST, LEFT_OUT, LEFT_OUT, TRAIN]
    assert dropped == Counter(contradictory=1, near_held_out=1)


def test_with_a_given_test_file_only_the_validation_share_leaves_training():
    rows = [(f"{_short_hash(str(number))} words", "a") for number in range(2000)]
    split, _ = decide(
        build_index(rows), Rules(None, given=frozenset({TEST})), lambda row: rows[row][0], lambda *_: None
    )
    assert (split == TEST).sum() == 0
    assert 0.07 < (split == VALIDATION).mean() < 0.13


def test_of_contradictory_rows_the_majority_stays_and_a_tie_goes():
    majority, tie = "one text here", "quite another thing"
    rows = [(majority, "a"), (majority, "b"), (majority, "b"), (tie, "a"), (tie, "b")]
    kept, dropped = split_of(rows)
    assert {text: label for text, (_, label) in kept.items()} == {majority: "b"}
    assert dropped == Counter(duplicate=1, contradictory=3)


def test_the_training_sample_is_the_smallest_hashes_of_each_class_in_proportion():
    rows = [(text, "a" if number < 30 else "b") for number, text in enumerate(texts_in(TRAIN, 40))]
    kept, dropped = split_of(rows, near_duplicate_threshold=None, max_train_rows=8)
    expected = {
        text
        for label, quota in (("a", 6), ("b", 2))
        for text in sorted((text for text, own in rows if own == label), key=lambda text: rank_of(text, 7))[:quota]
    }
    assert set(kept) == expected
    assert dropped == Counter(beyond_max_train_rows=32)


def test_a_rare_class_keeps_one_row_in_the_sample():
    rows = [(text, "a" if number else "rare") for number, text in enumerate(texts_in(TRAIN, 60))]
    kept, _ = split_of(rows, near_duplicate_threshold=None, max_train_rows=5)
    assert Counter(label for _, label in kept.values()) == Counter(a=4, rare=1)


def test_bands_miss_next_to_no_pair_at_the_threshold():
    for threshold in (0.6, 0.75, 0.9, 0.99):
        bands, rows = bands_for(threshold)
        assert bands * rows <= 64
        assert (1 - threshold**rows) ** bands <= 1e-6


def test_many_similar_but_not_near_texts_all_stay():
    texts = [f"order {number * 7919:09d} has been sent to you and will arrive soon" for number in range(300)]
    dropped = near_duplicates(range(300), texts.__getitem__, 0.95)
    assert dropped == {}
    assert SPLIT_NAMES[TEST] == "test"

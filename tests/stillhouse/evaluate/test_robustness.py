import unicodedata
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stillhouse.evaluate._perturb import TEXTS, WORDS, perturb
from stillhouse.evaluate._robustness import kinds_of, robustness
from stillhouse.evaluate._score import read_test, score_model
from stillhouse.evaluate.compare import Compare
from stillhouse.files import read_json
from tests.stillhouse.evaluate.tiny_models import CLASSIFICATION, TOKENS, as_input, make_data, make_job, make_model

TEXT = "The crew was wonderful and the café served excellent food on Monday"


@pytest.mark.parametrize("kind", TEXTS)
def test_the_same_text_and_seed_give_the_same(kind):
    assert perturb(TEXT, kind, 1) == perturb(TEXT, kind, 1) != TEXT
    assert perturb("", kind, 1) in ("", perturb("", kind, 1)) and perturb("?", kind, 1)


def test_another_seed_gives_other_typos_and_neighbours_do_not_matter():
    made = {perturb(TEXT, "typos", seed) for seed in range(20)}
    assert len(made) > 10
    words = perturb(TEXT, "typos", 3).split()
    assert sum(a != b for a, b in zip(words, TEXT.split(), strict=True)) == 2, "15 % of 11 words"


def test_what_each_kind_does():
    assert perturb(TEXT, "upper", 0) == TEXT.upper() and perturb(TEXT, "lower", 0) == TEXT.lower()
    assert perturb(TEXT, "truncated", 0) == "The crew was wonderful and the"
    assert unicodedata.normalize("NFC", perturb(TEXT, "decomposed", 0)) == TEXT
    assert perturb(TEXT, "emoji", 0).startswith(TEXT + " ")
    hidden = perturb(TEXT, "invisible", 0)
    assert "".join(c for c in hidden if unicodedata.category(c) != "Cf") == TEXT
    alike = perturb(TEXT, "lookalikes", 0)
    assert len(alike) == len(TEXT) and any("CYRILLIC" in unicodedata.name(c) for c in alike)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=12), max_size=12), st.sampled_from(sorted(WORDS)), st.integers(0, 9))
def test_rows_of_words_keep_their_number_and_no_word_vanishes(words, kind, seed):
    changed = perturb(words, kind, seed)
    assert len(changed) == len(words)
    assert all(bool(new) == bool(old) for new, old in zip(changed, words, strict=True))


def measured(tmp_path: Path, problem: str, most: int) -> dict:
    data, given = make_data(tmp_path / "data", problem), as_input(make_model(tmp_path / "model", problem))
    job, test = make_job(tmp_path, data=as_input(data, "data")), read_test(data)
    return robustness(score_model("candidate", given, test, job), given, test, most, job)


def test_losses_and_kept_labels(tmp_path):
    """The tiny model reads one word, written in small letters: capitals take all it knows."""
    found = measured(tmp_path, CLASSIFICATION, 40)
    kinds = found["kinds"]
    assert found["clean"]["f1_macro"] == 1 and sorted(kinds) == kinds_of("text") == sorted(TEXTS)
    assert (kinds["lower"]["loss"], kinds["lower"]["agreement"], kinds["lower"]["accuracy"]) == (0, 1, 1)
    assert (kinds["decomposed"]["loss"], kinds["emoji"]["accuracy"]) == (0, 1)
    assert kinds["upper"]["loss"] > 0.5 and kinds["upper"]["agreement"] < 0.6
    assert kinds["truncated"]["loss"] == pytest.approx(1 - kinds["truncated"]["f1_macro"])
    (kept,) = (tmp_path / "derived").glob("robustness-logits-*/logits.npy")
    assert np.load(kept).shape == (len(TEXTS) * 40, 3)


def test_tags_stay_with_their_words(tmp_path):
    kinds = measured(tmp_path, TOKENS, 30)["kinds"]
    assert sorted(kinds) == sorted(WORDS)
    assert kinds["lower"] == {
        "entity_f1": 1, "entity_precision": 1, "entity_recall": 1, "accuracy": 1, "loss": 0, "agreement": 1,
    }  # fmt: skip
    assert kinds["upper"]["loss"] > 0.5


def test_old_rows_are_those_before_the_newest_data(tmp_path):
    """The newest data may have left no row for the test."""
    data = make_data(tmp_path / "data")
    for split, epochs in (("train", [0, 1, 2]), ("test", [0, 1, 1])):
        frame = pd.read_parquet(data / f"{split}.parquet")
        frame.assign(epoch=[epochs[i % 3] for i in range(60)]).to_parquet(data / f"{split}.parquet")
    model, other = make_model(tmp_path / "model"), make_model(tmp_path / "other", noise=4.0)
    job = make_job(tmp_path, data=as_input(data, "data"), model=as_input(model), champion=as_input(other))
    Compare(linear_reference=False, resamples=100, speed_seconds=0.05, slices=("epoch",)).run(job)
    scores = read_json(job.out / "scores.json")
    assert (scores["old_rows"]["newest_epoch"], scores["old_rows"]["rows"]) == (2, 60)
    assert scores["old_rows"]["by_role"]["candidate"]["f1_macro"] == 1
    assert scores["old_rows"]["by_role"]["champion"] == {**scores["champion"]["metrics"], "rows": 60}
    mcnemar = scores["differences"]["champion"]["mcnemar"]
    wrong = round(60 * (1 - scores["champion"]["metrics"]["accuracy"]))
    found = scores["robustness"]
    assert (found["rows"], found["kinds"], set(found["by_role"])) == (60, sorted(TEXTS), {"candidate", "champion"})
    assert (mcnemar["only_candidate"], mcnemar["only_other"]) == (wrong, 0) and mcnemar["p_value"] < 0.01

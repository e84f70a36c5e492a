"""Scores come in the order of the rows, whatever the rows are, and do not depend on their company."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import stillhouse.scoring as scoring
from stillhouse.data._clean import clean_text
from stillhouse.errors import UserError
from stillhouse.scorer import load_scorer
from stillhouse.scoring import OnnxScorer, clean, decide, entity_spans, normal, plan_batches, split_words
from tests.shared_data import shared_data
from tests.stillhouse.tiny_scoring import TEXTS, WORDS, export, furthest, make_model
from tests.stillhouse.train.tiny_training import text_rows, word_rows

AWKWARD = ["", " ", "good " * 500, "🙂🙂", "tea茶чай", "\ud83d", "a\x00b", None, float("nan"), "walking\n\n\tsuns"]


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    torch_model = make_model(tmp_path_factory.mktemp("texts"))
    return torch_model, export(torch_model)


@pytest.fixture(scope="module")
def words(tmp_path_factory):
    torch_model = make_model(tmp_path_factory.mktemp("words"), WORDS)
    return torch_model, export(torch_model)


def test_batches_hold_every_row_once_within_the_budget():
    lengths = [5, 1, 9, 3, 3, 40, 2] * 7
    batches = list(plan_batches(lengths, budget=20))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= 20 for batch in batches)
    assert len(batches) < len(lengths)
    assert list(plan_batches([], 20)) == []


def test_torch_and_onnx_give_the_same_scores_and_embeddings(texts):
    rows = [*text_rows(60, 1)["text"], *AWKWARD]
    torch_scorer, onnx_scorer = map(load_scorer, texts)
    assert type(torch_scorer) is not type(onnx_scorer)
    scores = onnx_scorer.score(rows)
    assert scores.shape == (70, 3) and scores.dtype == np.float32
    assert np.abs(scores - torch_scorer.score(rows)).max() < 1e-5
    pooled = onnx_scorer.embed(rows)
    assert pooled.shape == (70, 32)
    assert np.abs(pooled - torch_scorer.embed(rows)).max() < 1e-5
    assert np.ptp(scores, axis=0).max() > 0.01


def test_scores_do_not_depend_on_order_or_company(texts, monkeypatch):
    rows = [*text_rows(20, 2)["text"], *AWKWARD]
    for scorer in (load_scorer(path, threads=1) for path in texts):
        together = scorer.score(rows)
        alone = np.concatenate([scorer.score([row]) for row in rows])
        backward = scorer.score(rows[::-1])[::-1]
        assert np.abs(together - alone).max() < 1e-5
        assert np.abs(together - backward).max() < 1e-5
        monkeypatch.setattr(scoring, "ROWS_AT_ONCE", 7)
        assert np.abs(together - scorer.score(rows)).max() < 1e-5
        assert np.abs(scorer.embed(rows)[-1] - scorer.embed(rows[-1:])[0]).max() < 1e-5
        monkeypatch.undo()


def test_many_rows_are_scored_by_several_instances(texts, words, monkeypatch):
    monkeypatch.setattr(scoring, "ROWS_AT_ONCE", 50)
    monkeypatch.setattr(OnnxScorer, "tokens_per_batch", 64)
    for path, rows in ((texts[1], [*text_rows(300, 3)["text"], *AWKWARD]), (words[1], list(word_rows(80, 3)["words"]))):
        alone, several = OnnxScorer(path, threads=1), OnnxScorer(path, threads=3)
        several.score(rows[:1])
        assert several._session_alone is None, "one row shares the threads of the first session"
        before = threading.active_count()
        running, most = [], []
        run = several._run_alone

        def counted(feed, output, run=run, running=running, most=most):
            running.append(1)
            most.append(len(running))
            time.sleep(0.002)  # on one core a batch this small is done before another thread gets its turn
            scores = run(feed, output)
            running.pop()
            return scores

        several.alone = counted
        assert furthest(several.score(rows), alone.score(rows)) < 1e-5
        assert furthest(several.embed(rows), alone.embed(rows)) < 1e-5
        assert 1 < max(most) <= 3
        assert threading.active_count() == before


def test_memory_does_not_grow_with_the_rows(texts, monkeypatch):
    monkeypatch.setattr(scoring, "ROWS_AT_ONCE", 50)
    monkeypatch.setattr(OnnxScorer, "tokens_per_batch", 64)
    scorer = OnnxScorer(texts[1], threads=2)
    fed, done, waiting = [], [], []
    feed_of, run = scorer._feed, scorer._run_alone

    def feed(*arguments):
        fed.append(1)
        waiting.append(len(fed) - len(done))
        return feed_of(*arguments)

    def alone(*arguments):
        scores = run(*arguments)
        done.append(1)
        return scores

    monkeypatch.setattr(scorer, "_feed", feed)
    scorer.alone = alone
    scorer.score(list(text_rows(2000, 4)["text"]))
    assert len(done) > 100 and max(waiting) <= scoring.BATCHES_AHEAD * 2 + 2


def test_an_error_in_an_instance_reaches_the_caller(texts, monkeypatch):
    monkeypatch.setattr(OnnxScorer, "tokens_per_batch", 32)
    scorer = OnnxScorer(texts[1], threads=2)

    def broken(feed, output):
        raise RuntimeError("out of memory")

    scorer.alone = broken
    before = threading.active_count()
    with pytest.raises(RuntimeError, match="out of memory"):
        scorer.score(list(text_rows(200, 5)["text"]))
    assert threading.active_count() == before


def test_nothing_to_score_keeps_the_shapes(texts, words):
    scorer = load_scorer(texts[1])
    assert scorer.score([]).shape == (0, 3)
    assert scorer.embed([]).shape == (0, 32)
    assert scorer.predict([]) == []
    assert load_scorer(words[1]).score([]) == []


def test_one_text_is_not_a_list_of_letters_and_a_generator_is_a_list(texts, words):
    for model in (texts[1], words[1]):
        scorer = load_scorer(model)
        for method in (scorer.score, scorer.embed, scorer.predict):
            with pytest.raises(TypeError, match="give a list of texts, not one text"):
                method("good tea")
        assert scorer.predict(text for text in ["good tea", "bad rain"]) == scorer.predict(["good tea", "bad rain"])


def test_missing_texts_are_empty_and_surrogates_keep_offsets():
    assert [clean(value) for value in (None, float("nan"), "a\ud800b", 7)] == ["", "", "a\ufffdb", "7"]


@given(
    text=st.text(st.characters(codec=None) | st.sampled_from("\ud83d\ude00\u200b\u0301e\ufb01 \t\xad"), max_size=30),
    form=st.sampled_from(["NFC", "NFKC", None]),
)
def test_serving_sees_texts_in_the_form_in_which_training_saw_them(text, form):
    assert normal(text, form) == clean_text(text, form)


def test_the_form_of_the_training_texts_comes_with_the_model(texts, tmp_path):
    directory = shutil.copytree(texts[1], tmp_path / "model")
    info = json.loads((directory / "stillhouse.json").read_text())
    rows = ["good\u200b  day", "\uff47ood day", "good day"]
    scores = {}
    for form in ("NFC", "NFKC"):
        (directory / "stillhouse.json").write_text(json.dumps({**info, "normalize": form}))
        scores[form] = [load_scorer(directory).score([row])[0].tolist() for row in rows]
    hidden, wide, plain = scores["NFC"]
    assert hidden == plain != wide
    assert scores["NFKC"] == [plain] * 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('He said: "Hello, Peter!"', 'He said : " Hello , Peter ! "'),
        ("don't call Jim's mother", "do n't call Jim 's mother"),
        ("@anna #night_out (see https://t.co/a.b?c=1)!!", "@anna #night_out ( see https://t.co/a.b?c=1 ) ! !"),
        ("U.S.-based e-mail, $5 20%", "U.S.-based e-mail , $ 5 20 %"),
        ("cafe\u0301 हिन्दी 🙂🙂 'tis n't # @", "cafe\u0301 हिन्दी 🙂 🙂 ' tis n't # @"),
        ("", ""),
    ],
)
def test_raw_texts_are_cut_into_words_as_corpora_are(text, words):
    assert [text[start:end] for start, end in split_words(text)] == words.split()


def test_the_words_of_a_real_corpus_are_found_in_its_raw_texts():
    lines = (shared_data("wnut17") / "test.conll").read_text().splitlines()
    sentences = [group.split("\n") for group in "\n".join(line.split("\t")[0] for line in lines).split("\n\n")]
    same = every = 0
    for sentence in sentences:
        text = " ".join(word for word in sentence if word)
        found = {text[start:end] for start, end in split_words(text)}
        same += sum(word in found for word in sentence)
        every += len(sentence)
    assert every > 20_000 and same / every > 0.99


def test_every_word_gets_the_scores_of_its_first_token(words):
    rows = [list(row) for row in word_rows(40, 1)["words"]]
    for scorer in map(load_scorer, words):
        scores = scorer.score(rows)
        assert [len(row) for row in scores] == [len(row) for row in rows]
        # Longer than 16 tokens: windows that do not overlap, each scored as a sentence of its own.
        longest = max(rows, key=len)
        first, _ = next(iter(scorer._windows([longest])))
        cut = first[1][1]
        assert 0 < cut < len(longest)
        parts = [
            *scorer.score([longest[:cut]])[0],
            *scorer.score([longest[cut : first[2][1] if len(first) > 2 else None]])[0],
        ]
        assert furthest(scores[rows.index(longest)][: len(parts)], parts) < 1e-5
    assert furthest(load_scorer(words[0]).score(rows), load_scorer(words[1]).score(rows)) < 1e-5


def test_awkward_words_are_scored_too(words):
    scorer = load_scorer(words[1])
    rows = [[], [""], ["paris", "\x00", "rome"], ["abcdefghij" * 9], ["\ud800", None], ["walking"] * 100]
    scores = scorer.score(rows)
    assert [row.shape for row in scores] == [(len(row), 3) for row in rows]
    assert scores[1][0].argmax() == 0 and scores[2][1].argmax() == 0, "a word without tokens is outside"
    assert scorer.embed(rows).shape == (6, 32)
    assert np.isfinite(scorer.embed(rows)).all()


def test_entities_have_the_offsets_of_the_text(words, monkeypatch):
    scorer = OnnxScorer(words[1])
    text = "🙂 Old paris rome, \ud800 tea"

    def score(rows):
        assert rows == [["🙂", "Old", "paris", "rome", ",", "\ufffd", "tea"]]
        tags = [1 if word == "paris" else 2 if word == "rome" else 0 for word in rows[0]]
        return [np.eye(3, dtype=np.float32)[tags] * 9]

    monkeypatch.setattr(scorer, "score", score)
    (entity,) = scorer.predict([text])[0]["entities"]
    assert text[entity["start"] : entity["end"]] == entity["text"] == "paris rome"
    assert entity["label"] == "place" and 0.99 < entity["score"] <= 1


def test_bio_tags_become_spans():
    assert entity_spans(["B-a", "I-a", "O", "I-b", "B-b", "I-a"]) == [
        ("a", 0, 1),
        ("b", 3, 3),
        ("b", 4, 4),
        ("a", 5, 5),
    ]
    assert entity_spans(["O", "O"]) == [] == entity_spans([])


LOGITS = np.log(np.array([[0.7, 0.3], [0.55, 0.45]], np.float32))


def test_thresholds_move_the_cut():
    assert decide(LOGITS, ["no", "yes"], {})[1].tolist() == [0, 0]
    assert decide(LOGITS, ["no", "yes"], {"thresholds": {"yes": 0.4, "no": 0.6}})[1].tolist() == [0, 1]


def test_a_temperature_moves_probabilities_and_no_label():
    about = {"temperature": 0.5, "thresholds": None}
    probabilities, chosen, sure = decide(LOGITS, ["no", "yes"], about)
    assert probabilities[0].tolist() == pytest.approx([0.49 / 0.58, 0.09 / 0.58]) and chosen.tolist() == [0, 0]
    assert sure.all()


def test_what_is_below_its_labels_cut_is_unsure():
    labels, about = ["no", "yes"], {"thresholds": {"yes": 0.4, "no": 0.6}, "unsure_below": {"no": 0.71}}
    assert decide(LOGITS, labels, about)[2].tolist() == [False, True], "a label without a cut is always sure"
    assert decide(LOGITS, labels, {"unsure_below": {"no": 0.6, "yes": 1.0}})[2].tolist() == [True, False]
    assert [part.shape for part in decide(np.zeros((0, 2), np.float32), labels, about)] == [(0, 2), (0,), (0,)]


def test_a_prediction_says_unsure_and_still_names_the_label(texts, tmp_path):
    directory = shutil.copytree(texts[1], tmp_path / "model")
    info = json.loads((directory / "stillhouse.json").read_text())
    plain = load_scorer(directory).predict(["good tea"])[0]
    assert plain["outcome"] == plain["label"]
    (directory / "stillhouse.json").write_text(json.dumps({**info, "unsure_below": {plain["label"]: 0.99}}))
    assert load_scorer(directory).predict(["good tea"]) == [{**plain, "outcome": "unsure"}]


def test_the_file_alone_predicts_beside_a_model(texts, tmp_path):
    bundle = tmp_path / "bundle"
    shutil.copytree(texts[1], bundle)
    shutil.copyfile(scoring.__file__, bundle / "scoring.py")
    block = "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'stillhouse', 'onnx']))\n"
    program = (
        f"{block}import runpy; sys.argv[1:] = ['good tea', '🙂']; runpy.run_path('scoring.py', run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=bundle, capture_output=True, text=True, check=True, env={**os.environ}
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.stderr == ""
    assert [result["label"] for result in found] == [
        r["label"] for r in load_scorer(texts[1]).predict(["good tea", "🙂"])
    ]
    assert sum(found[0]["probabilities"].values()) == pytest.approx(1)


def test_a_directory_without_a_model_is_a_user_error(tmp_path):
    with pytest.raises(UserError, match=r"has no stillhouse\.json"):
        load_scorer(tmp_path)


def test_problem_and_labels_come_from_the_model(texts, words):
    assert [load_scorer(path).problem for path in (*texts, *words)] == [TEXTS, TEXTS, WORDS, WORDS]
    assert load_scorer(words[1]).labels == ["O", "B-place", "I-place"]
    assert load_scorer(texts[1], threads=1).max_length == 16

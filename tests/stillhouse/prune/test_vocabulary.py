"""Fewer tokens, the same cuts for known texts, a fallback for unseen words."""

import json

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers

from stillhouse.data.read import load_split
from stillhouse.models import load_model
from stillhouse.prune._tokenizer import shrink_tokenizer
from stillhouse.prune.vocabulary import Vocabulary
from stillhouse.scorer import load_scorer
from stillhouse.train.stage import Stage
from tests.stillhouse.train.tiny_training import WORDS, as_input, make_base, make_data, make_job

TEXTS = ["the crew was wonderful", "a late flight, again", "nobody answers the phone", "wonderful, wonderful crew"]
OTHERS = ["phones and planes were rather late", "answering the crews"]


def trained_tokenizer(kind: str) -> Tokenizer:
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    if kind == "WordPiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
        trainer = trainers.WordPieceTrainer(vocab_size=300, special_tokens=special, show_progress=False)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    elif kind == "BPE":
        tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(
            vocab_size=600, special_tokens=special, initial_alphabet=alphabet, show_progress=False
        )
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel()
        tokenizer.decoder = decoders.ByteLevel()
    else:
        tokenizer = Tokenizer(models.Unigram())
        trainer = trainers.UnigramTrainer(
            vocab_size=120, special_tokens=special, unk_token="[UNK]", show_progress=False
        )
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.train_from_iterator((TEXTS + OTHERS) * 3, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


@pytest.mark.parametrize("kind", ["WordPiece", "BPE", "Unigram"])
def test_known_texts_are_cut_as_before_and_unseen_words_into_known_pieces(kind):
    before = trained_tokenizer(kind)
    used = {token for text in TEXTS for token in before.encode(text).tokens}
    smaller, ids = shrink_tokenizer(before.to_str(), used)
    after = Tokenizer.from_str(smaller)
    assert after.get_vocab_size() == len(ids) < before.get_vocab_size()
    for text in TEXTS:
        assert after.encode(text).tokens == before.encode(text).tokens
        assert [ids[index] for index in after.encode(text).ids] == before.encode(text).ids
    for text in OTHERS:
        assert "[UNK]" not in after.encode(text).tokens and max(after.encode(text).ids) < len(ids)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("trained")
    letters = sorted({letter for word in WORDS for letter in word if letter.isalpha()})
    more = [*WORDS, *letters, *(f"##{letter}" for letter in letters), *(f"unused{i}" for i in range(200))]
    base, data = make_base(root / "base", words=more), make_data(root / "data")
    job = make_job(root, "model", data, base)
    Stage.model_validate({"base": "tiny", "learning_rate": 3e-3, "num_train_epochs": 4, "train_embeddings": True}).run(
        job
    )
    return data, job.out


def prune(root, trained, **settings):
    data, model = trained
    job = make_job(root, "small", data, inputs={"model": [as_input(model, "model.torch")]})
    figures = Vocabulary.model_validate({"speed_seconds": 0.05, **settings}).run(job)
    return job.out, json.loads((job.out / "rung.json").read_text()), figures


def test_the_model_says_the_same_with_fewer_tokens(tmp_path, trained):
    out, rung, figures = prune(tmp_path, trained)
    assert rung["accepted"] and rung["loss"] == 0 and figures["tokens_before"] - figures["tokens"] >= 200
    assert rung["bytes"] < rung["bytes_before"]
    texts = load_split(trained[0], "train")["text"].tolist()
    np.testing.assert_allclose(load_scorer(out).score(texts), load_scorer(trained[1]).score(texts), atol=1e-5)
    model = load_model(out)
    assert model.config.vocab_size == figures["tokens"] == model.get_input_embeddings().weight.shape[0]
    assert model.config.pad_token_id == 0


def test_an_unseen_word_is_spelt(tmp_path, trained):
    out, _, _ = prune(tmp_path, trained)
    tokens = Tokenizer.from_file(str(out / "tokenizer.json")).encode("unused7 sunwalk").tokens
    assert tokens[1] == "[UNK]" and "[UNK]" not in tokens[2:], "a digit was never a token; letters were"


def test_what_loses_too_much_is_rejected(tmp_path, trained):
    out, rung, figures = prune(tmp_path, trained, min_count=10_000, accept_loss=0.0)
    assert not rung["accepted"] and "loses too much" in rung["reason"] and figures["accepted"] == 0
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (out / name).read_bytes() == (trained[1] / name).read_bytes()


def test_a_useless_rung_is_rejected(tmp_path, trained):
    """Every token that is left is used: a second time drops nothing."""
    for name in ("once", "twice"):
        (tmp_path / name).mkdir()
    once, _, _ = prune(tmp_path / "once", trained)
    out, rung, figures = prune(tmp_path / "twice", (trained[0], once))
    assert not rung["accepted"] and figures["accepted"] == 0
    assert rung["reason"].startswith("not smaller")
    assert (out / "model.safetensors").read_bytes() == (once / "model.safetensors").read_bytes()

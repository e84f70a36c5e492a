"""Count, cut the tokenizer and the embedding table down, measure, accept or reject."""

import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from tokenizers import Tokenizer
from torch import nn

from stillhouse.data.read import load_info, load_split
from stillhouse.evaluate.rows import rows_of
from stillhouse.files import write_json, write_text
from stillhouse.method import Job, Metrics
from stillhouse.models import load_model, read_info, save_model, tokenizer_json
from stillhouse.prune._tokenizer import shrink_tokenizer
from stillhouse.prune.vocabulary import Vocabulary
from stillhouse.rungs import baseline_quality, judge, load_sample, measure, publish_input, summary
from stillhouse.scorer import load_scorer

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

CHUNK = 2048


def prune_vocabulary(settings: Vocabulary, job: Job) -> Metrics:
    """Fill `job.out` with the model and its smaller vocabulary, or with the input model; and with `rung.json`."""
    source, out = job.path("model"), job.out
    sample = load_sample(job, settings.metric, settings.max_rows)
    text = tokenizer_json(source)
    counts = count_tokens(job, text)
    wanted = {token for token, count in counts.items() if count >= settings.min_count}
    smaller, ids = shrink_tokenizer(text, wanted)
    model = load_model(source)
    before = int(model.config.vocab_size)
    keep_rows(model, ids)
    with tempfile.TemporaryDirectory(dir=job.scratch) as directory:
        write_text(Path(directory) / "tokenizer.json", smaller)
        save_model(model, Path(directory), read_info(source), out)
    job.progress(1, 2, "measuring")
    full, small = load_scorer(source), load_scorer(out)
    rung: dict[str, Any] = {
        "method": "prune.vocabulary",
        "metric": sample.metric,
        "quality": sample.quality(small.score(sample.rows)),
        "baseline": baseline_quality(job, sample),
        "bytes": (out / "model.safetensors").stat().st_size,
        "bytes_before": (source / "model.safetensors").stat().st_size,
        "tokens": len(ids),
        "tokens_before": before,
    }
    rung["loss"] = rung["baseline"]["value"] - rung["quality"]["value"]
    rung["measured"] = measure(full, small, sample.rows, settings.speed_seconds)
    # The table is looked up, not multiplied: what is gained is size.
    rung["accepted"], rung["reason"] = judge(rung, settings.accept_loss, min_speedup=0)
    if not rung["accepted"]:
        publish_input(source, out)
    write_json(out / "rung.json", rung)
    return {**summary(rung), "tokens": float(len(ids)), "tokens_before": float(before)}


def count_tokens(job: Job, tokenizer: str) -> Counter[str]:
    """How often each token is used by the training inputs, nothing cut off."""
    data = job.path("data")
    problem = load_info(data)["problem"]
    rows = rows_of(problem, load_split(data, "train"))[0]
    encoder, counts = Tokenizer.from_str(tokenizer), Counter[str]()
    words = bool(rows) and not isinstance(rows[0], str)
    for start in range(0, len(rows), CHUNK):
        for encoding in encoder.encode_batch(rows[start : start + CHUNK], is_pretokenized=words):
            counts.update(encoding.tokens)
        job.progress(start, len(rows) * 2, "counting tokens")
    return counts


def keep_rows(model: "PreTrainedModel", ids: list[int]) -> None:
    """Keep these rows of the embedding table, in place; the config's token ids follow."""
    old = model.get_input_embeddings()
    assert isinstance(old, nn.Embedding)
    new = {before: after for after, before in enumerate(ids)}
    table = nn.Embedding(
        len(ids), old.weight.shape[1], padding_idx=None if old.padding_idx is None else new.get(old.padding_idx)
    )
    with torch.no_grad():
        table.weight.copy_(old.weight[torch.tensor(ids)])
    model.set_input_embeddings(table)
    model.config.vocab_size = len(ids)
    for name, value in model.config.to_dict().items():
        if name.endswith("_token_id") and isinstance(value, int):
            setattr(model.config, name, new.get(value))

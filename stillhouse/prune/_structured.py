"""Prune, refit, measure against the input model and the baseline, accept or reject."""

import copy
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from stillhouse.blocks import describe_layers, layer_blocks, narrow
from stillhouse.errors import UserError
from stillhouse.files import write_json
from stillhouse.method import Job, Metrics
from stillhouse.models import encoder_layers, keep_layers, load_model, read_info, save_model, tokenizer_json
from stillhouse.prune._choose import Costs, choose, costs
from stillhouse.prune._importance import fisher_importance
from stillhouse.prune._refit import refit
from stillhouse.prune.structured import Structured
from stillhouse.rungs import baseline_quality, judge, load_sample, measure, publish_input, summary
from stillhouse.scorer import load_scorer
from stillhouse.train._batches import Batch, by_length, collate
from stillhouse.train._tokens import IGNORED, tokenize_data

if TYPE_CHECKING:
    from transformers.modeling_utils import PreTrainedModel

TOKENS_PER_BATCH = 2048


def prune_model(settings: Structured, job: Job) -> Metrics:
    """Fill `job.out` with the pruned model, or with the input model if that one stays; and with `rung.json`."""
    source, out = job.path("model"), job.out
    sample = load_sample(job, settings.metric, settings.max_rows)
    info = read_info(source)
    whole = load_model(source)
    nn.Module.to(whole, torch.device("cuda" if torch.cuda.is_available() else "cpu"))
    batches, length = calibration(settings, job, info, whole)
    before = multiplications(whole, length)
    model = remove_layers(whole, settings.drop_layers, batches, job) if settings.drop_layers else whole
    model = thin_out(settings, model, batches, length, before, job)
    nn.Module.to(model, torch.device("cpu"))
    model.config.pruned_layers = describe_layers(model)
    save_model(model, source, info, out)
    job.progress(3, 4, "measuring")
    full, small = load_scorer(source), load_scorer(out)
    rung: dict[str, Any] = {
        "method": "prune.structured",
        "metric": sample.metric,
        "quality": sample.quality(small.score(sample.rows)),
        "baseline": baseline_quality(job, sample),
        "bytes": (out / "model.safetensors").stat().st_size,
        "bytes_before": (source / "model.safetensors").stat().st_size,
        "multiplications_kept": multiplications(model, length) / before,
        "layers": model.config.pruned_layers,
    }
    rung["loss"] = rung["baseline"]["value"] - rung["quality"]["value"]
    rung["measured"] = measure(full, small, sample.rows, settings.speed_seconds)
    rung["accepted"], rung["reason"] = judge(rung, settings.accept_loss, settings.min_speedup)
    if not rung["accepted"]:
        publish_input(source, out)
    write_json(out / "rung.json", rung)
    return {**summary(rung), "multiplications_kept": rung["multiplications_kept"]}


def calibration(
    settings: Structured, job: Job, info: dict[str, Any], model: "PreTrainedModel"
) -> tuple[list[Batch], float]:
    """Batches of training rows, spread over the split, and the mean length of a piece in tokens."""
    data = tokenize_data(job, info["problem"], tokenizer_json(job.path("model")), info["max_length"], settings.max_rows)
    rows = np.linspace(0, len(data.train) - 1, min(len(data.train), settings.calibration_rows)).astype(int)
    lengths = data.train.lengths[rows]
    pad = model.config.pad_token_id or 0
    device = next(model.parameters()).device
    batches = [collate(data.train, rows[part], pad, device) for part in by_length(lengths, TOKENS_PER_BATCH)]
    return batches, float(lengths.mean())


def multiplications(model: "PreTrainedModel", length: float) -> float:
    """For one token, in all encoder layers."""
    found = layer_blocks(model)
    each = _costs(model, length)
    return sum(each.head * blocks.heads + each.unit * blocks.units for blocks in found)


def _costs(model: "PreTrainedModel", length: float) -> Costs:
    return costs(int(model.config.hidden_size), layer_blocks(model)[0].head_size, length)


def remove_layers(model: "PreTrainedModel", count: int, batches: list[Batch], job: Job) -> "PreTrainedModel":
    """A copy without `count` layers; each time the one goes without which the loss on `batches` is lowest."""
    available = len(encoder_layers(model)[1])
    if count >= available:
        raise UserError(f"drop_layers: {count} is not possible", f"the model has {available} layers, and one must stay")
    for number in range(count):
        candidates = []
        for layer in range(len(encoder_layers(model)[1])):
            tried = _without_layer(model, layer)
            candidates.append((total_loss(tried, batches), layer))
            job.progress(number * available + layer, count * available, "which layers matter least")
        model = _without_layer(model, min(candidates)[1])
    return model


def _without_layer(model: "PreTrainedModel", layer: int) -> "PreTrainedModel":
    kept = [index for index in range(len(encoder_layers(model)[1])) if index != layer]
    tried = copy.deepcopy(model)
    keep_layers(tried, kept)
    return tried


def total_loss(model: "PreTrainedModel", batches: list[Batch]) -> float:
    """Cross-entropy against the labels, summed."""
    total = 0.0
    model.eval()
    with torch.inference_mode():
        for batch in batches:
            logits = model(**batch.inputs).logits.float()
            flat = logits.reshape(-1, logits.shape[-1])
            total += F.cross_entropy(flat, batch.targets.reshape(-1), ignore_index=IGNORED, reduction="sum").item()
    return total


def thin_out(
    settings: Structured, whole: "PreTrainedModel", batches: list[Batch], length: float, before: float, job: Job
) -> "PreTrainedModel":
    """A copy with fewer heads and units, so that `settings.keep` of `before` multiplications stay; refitted."""
    share = settings.keep * before / multiplications(whole, length)
    if share >= 1 or not (settings.heads or settings.units):
        return whole
    model = copy.deepcopy(whole)
    found = fisher_importance(model, batches, lambda done, total: job.progress(done, total, "importance"))
    kept = choose(found, _costs(whole, length), share, settings.unit_multiple, settings.heads, settings.units)
    for blocks, (heads, units) in zip(layer_blocks(model), kept, strict=True):
        narrow(blocks, heads, units)
    stays = multiplications(model, length) / before
    if stays > settings.keep * (1 + 1e-9):
        raise UserError(
            f"keep: {settings.keep:g} cannot be reached: at least {stays:.2f} of the multiplications stay",
            "raise keep, leave heads and units true, or set drop_layers",
        )
    if settings.refit:
        refit(model, whole, batches, lambda done, total: job.progress(done, total, "fitting"))
    return model

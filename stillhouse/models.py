"""Loading and saving torch models: the only module that knows torch checkpoints.

Weights are safetensors, code never comes with them, nothing is looked up on the network except a hub source that
the recipe names, at its pinned revision.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stillhouse._quiet import quiet
from stillhouse.errors import UserError
from stillhouse.files import read_json, write_json, write_text
from stillhouse.method import Source
from stillhouse.problems import find_problem

if TYPE_CHECKING:
    from torch import nn
    from transformers.modeling_utils import PreTrainedModel

HUB_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "README.md"]
HEAD_PARTS = ("pooler", "final_norm")
"""Parts of an encoder that come after its layers: trained with the head, and new where the checkpoint has none."""


def base_directory(source: Source) -> Path:
    """The local directory of a pre-trained model, downloaded first if it is on the Hub; checked before it loads."""
    from stillhouse.source import check_model_directory

    directory = _download(source) if source.path is None else Path(source.path)
    check_model_directory(directory)
    return directory


def from_base(
    directory: Path, problem: str, labels: list[str], seed: int, dropout: float | None = None
) -> "PreTrainedModel":
    """A fresh head for `labels` on the encoder in `directory`; the head's first weights depend on `seed` alone."""
    import torch

    names = dict(enumerate(labels))
    extra: dict[str, Any] = {"id2label": names, "label2id": {v: k for k, v in names.items()}}
    if find_problem(problem).unit == "text":
        extra["problem_type"] = "single_label_classification"
    torch.manual_seed(seed)
    model, missing = _load(directory, problem, extra, dropout, other_head=True)
    absent = [name for name in missing if not in_head(model, name)]
    if absent:
        lacking = f"the weights lack {absent[0]} ({len(absent)} in all)"
        raise UserError(f"{directory}: {lacking}", "choose a complete encoder")
    _forget_classifier(model, missing, seed)
    return model


def _forget_classifier(model: "PreTrainedModel", new: list[str], seed: int) -> None:
    """A classifier that came with the checkpoint knows other labels: as new, too."""
    import torch

    chance = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name not in new and not name.startswith(f"{model.base_model_prefix}."):
                values = torch.randn(weight.shape, generator=chance) * model.config.initializer_range
                weight.copy_(values if weight.dim() > 1 else torch.zeros_like(weight))


def in_head(model: "PreTrainedModel", name: str) -> bool:
    """Whether parameter `name` comes after the encoder's layers: the classifier, or the encoder's pooler."""
    prefix = f"{model.base_model_prefix}."
    return not name.startswith(prefix) or name.removeprefix(prefix).split(".")[0] in HEAD_PARTS


def load_model(directory: Path, dropout: float | None = None) -> "PreTrainedModel":
    """The model of a `model.torch` artifact, in eval mode; `dropout` replaces the dropout of its config."""
    info = read_info(directory)
    model, missing = _load(directory, info["problem"], {}, dropout)
    if missing:
        raise UserError(f"{directory}: the weights lack {missing[0]}", "the model is not complete; build it again")
    return model


def resized_model(directory: Path, sizes: dict[str, int], seed: int, dropout: float | None = None) -> "PreTrainedModel":
    """A model of the kind in `directory` with other `sizes` (names of its config), its weights random by `seed`."""
    import torch
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import AutoConfig

    config = AutoConfig.from_pretrained(directory, local_files_only=True)
    unknown = [name for name in sizes if not hasattr(config, name)]
    if unknown:
        raise UserError(f'a "{config.model_type}" model has no {unknown[0]}', "leave it out of student_config")
    own = _set_dropout(config, dropout)
    if getattr(config, "pruned_layers", None):
        config.pruned_layers = None
    for name, value in sizes.items():
        setattr(config, name, value)
    if config.hidden_size % config.num_attention_heads:
        raise UserError(
            f"student_config: {config.num_attention_heads} heads do not divide hidden_size {config.hidden_size}",
            "choose num_attention_heads that do",
        )
    torch.manual_seed(seed)
    model = getattr(modeling_auto, find_problem(read_info(directory)["problem"]).auto_model).from_config(config)
    for name, value in own.items():
        setattr(model.config, name, value)
    return model.float()


def read_info(directory: Path) -> dict[str, Any]:
    """`stillhouse.json` of a model."""
    path = directory / "stillhouse.json"
    if not path.is_file():
        raise UserError(
            f"{directory} has no stillhouse.json", "give a model that Stillhouse made, not a bare checkpoint"
        )
    return read_json(path)


def save_model(model: "PreTrainedModel", tokenizer_json_source: Path, info: dict[str, Any], out: Path) -> None:
    """Write a `model.torch` artifact: weights, config, the tokenizer of directory `tokenizer_json_source`, `info`."""
    with quiet():
        model.save_pretrained(out, max_shard_size="1000GB")
    write_text(out / "tokenizer.json", tokenizer_json(tokenizer_json_source) + "\n")
    settings = tokenizer_json_source / "tokenizer_config.json"
    if settings.is_file():
        kept = {key: value for key, value in read_json(settings).items() if key not in ("auto_map", "name_or_path")}
        write_json(out / "tokenizer_config.json", kept)
    write_json(out / "stillhouse.json", info)


def tokenizer_json(directory: Path) -> str:
    """The tokenizer in `directory` as canonical JSON, without truncation and padding: equal text, equal tokenizer."""
    from tokenizers import Tokenizer

    path = directory / "tokenizer.json"
    tokenizer = Tokenizer.from_file(str(path)) if path.is_file() else _converted_tokenizer(directory)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return json.dumps(json.loads(tokenizer.to_str()), sort_keys=True, ensure_ascii=False)


def encoder_layers(model: "PreTrainedModel") -> tuple[str, "nn.ModuleList"]:
    """Name and list of the encoder's layers, lowest first."""
    from torch import nn

    count = int(model.config.num_hidden_layers)
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return name, module
    kind = model.config.model_type
    raise UserError(f'a "{kind}" model has no list of {count} encoder layers', "choose a BERT-like encoder")


def keep_layers(model: "PreTrainedModel", kept: list[int]) -> None:
    """Remove all encoder layers but `kept` (indices, lowest first) from `model`, in place."""
    from torch import nn

    name, layers = encoder_layers(model)
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, nn.ModuleList([layers[index] for index in kept]))
    model.config.num_hidden_layers = len(kept)
    kinds = getattr(model.config, "layer_types", None)
    if kinds:
        model.config.layer_types = [kinds[index] for index in kept]
    pruned = getattr(model.config, "pruned_layers", None)
    if pruned:
        model.config.pruned_layers = [pruned[index] for index in kept]


def longest_input(model: "PreTrainedModel") -> int | None:
    """How many tokens the model's positions allow; None where there is no limit."""
    config = model.config
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    # RoBERTa and its kin start counting after the padding index and offer that many more rows than tokens.
    offset = config.pad_token_id + 1 if config.model_type in {"roberta", "xlm-roberta", "camembert", "mpnet"} else 0
    return int(positions) - offset


def licence_of(directory: Path) -> str | None:
    """The licence that the model's own card (README.md front matter) names."""
    card = directory / "README.md"
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()[:60] if card.is_file() else []
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            break
        if line.startswith("license:"):
            return line.partition(":")[2].strip().strip("\"'") or None
    return None


def _load(
    directory: Path, problem: str, extra: dict[str, Any], dropout: float | None, other_head: bool = False
) -> tuple["PreTrainedModel", list[str]]:
    """The model and the names of weights that the checkpoint does not have, or (`other_head`) has in another size."""
    # Not from `transformers` itself: it names thousands of modules, which type checkers read for twenty seconds.
    from safetensors import SafetensorError
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import AutoConfig

    auto_model = getattr(modeling_auto, find_problem(problem).auto_model)
    try:
        with quiet():
            config = AutoConfig.from_pretrained(directory, local_files_only=True, **extra)
            own = _set_dropout(config, dropout)
            if getattr(config, "pruned_layers", None):
                model, missing = _load_pruned(auto_model, directory, config)
            else:
                model, report = auto_model.from_pretrained(
                    directory, config=config, local_files_only=True, use_safetensors=True, output_loading_info=True,
                    ignore_mismatched_sizes=other_head,
                )  # fmt: skip
                missing = {*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])}
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        fix = "it needs config.json and model.safetensors"
        raise UserError(f"{directory} does not load as a model: {reason}", fix) from error
    # The model's own dropout belongs to the published config: the override is a setting of this training only.
    for name, value in own.items():
        setattr(model.config, name, value)
    return model.float(), sorted(missing)


def _load_pruned(auto_model: Any, directory: Path, config: Any) -> tuple["PreTrainedModel", list[str]]:
    """A model whose layers differ in width: built as its config says, then filled."""
    from safetensors.torch import load_file

    from stillhouse.blocks import build_narrow

    model = auto_model.from_config(config)
    build_narrow(model, config.pruned_layers)
    missing, unexpected = model.load_state_dict(load_file(directory / "model.safetensors"), strict=False)
    if unexpected:
        raise ValueError(f"it has weights that do not belong to it, such as {unexpected[0]}")
    return model.eval(), list(missing)


def _set_dropout(config: Any, dropout: float | None) -> dict[str, Any]:
    """Set every dropout probability of `config`; return what was there."""
    own = {
        name: value
        for name, value in config.to_dict().items()
        if "dropout" in name and "layerdrop" not in name and (value is None or isinstance(value, int | float))
    }
    if dropout is None:
        return {}
    for name in own:
        setattr(config, name, dropout)
    return own


def _download(source: Source) -> Path:
    from huggingface_hub import snapshot_download

    if source.repository is None:
        raise UserError(f'"{source.name}" is neither a directory nor a hub name', "write hub:owner/name or a path")
    try:
        return Path(snapshot_download(source.repository, revision=source.revision, allow_patterns=HUB_FILES))
    except (OSError, ValueError) as error:
        raise UserError(
            f'"{source.name}" cannot be downloaded ({type(error).__name__}) and is not in the local cache',
            "check the network, or use a local directory or a pkg:// model",
        ) from error


def _converted_tokenizer(directory: Path) -> Any:
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{directory} has no tokenizer.json", "choose a model with a fast tokenizer") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise UserError(f"{directory} has no tokenizer.json", "choose a model with a fast tokenizer")
    return backend

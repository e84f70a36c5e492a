"""A tokenizer with fewer tokens, as JSON: the same cuts for texts whose tokens are all kept."""

import json
from typing import Any

from stillhouse.errors import UserError

PADDING = ("[PAD]", "<pad>", "<PAD>")


def always_kept(tokenizer: dict[str, Any]) -> set[str]:
    """Tokens that any text or batch may need: special ones, and single characters (of the continuing form too)."""
    model = tokenizer["model"]
    prefix = model.get("continuing_subword_prefix") or ""
    kept: set[str] = {token["content"] for token in tokenizer.get("added_tokens", [])}
    kept.update(PADDING, _processor_tokens(tokenizer.get("post_processor")))
    unknown = model.get("unk_token")
    if isinstance(unknown, str):
        kept.add(unknown)
    for token in _vocabulary(model):
        plain = token.removeprefix(prefix) if prefix else token
        if (
            len(plain) == 1
            or (plain.startswith("<0x") and plain.endswith(">"))
            or (plain[:1] == "▁" and len(plain) <= 2)
        ):
            kept.add(token)
    if isinstance(model.get("unk_id"), int):
        kept.add(model["vocab"][model["unk_id"]][0])
    return kept


def shrink_tokenizer(text: str, wanted: set[str]) -> tuple[str, list[int]]:
    """The tokenizer JSON with the `wanted` tokens and those that must stay, and the old ids in the order of the new."""
    tokenizer = json.loads(text)
    model = tokenizer["model"]
    if model["type"] not in ("WordPiece", "BPE", "Unigram"):
        raise UserError(f"a {model['type']} tokenizer cannot be cut down", "leave prune.vocabulary out")
    wanted = wanted | always_kept(tokenizer)
    if model["type"] == "BPE":
        wanted = _with_ancestors(model, wanted)
    old = _vocabulary(model)
    added = {token["content"]: token["id"] for token in tokenizer.get("added_tokens", [])}
    # A special token need not be an added one.
    ids = sorted({index for token, index in {**old, **added}.items() if token in wanted})
    new = {before: after for after, before in enumerate(ids)}
    if model["type"] == "Unigram":
        unknown = model.get("unk_id")
        model["vocab"] = [entry for index, entry in enumerate(model["vocab"]) if index in new]
        model["unk_id"] = new[unknown] if isinstance(unknown, int) else None
    else:
        model["vocab"] = {token: new[index] for token, index in old.items() if index in new}
    if model["type"] == "BPE":
        model["merges"] = [pair for pair in model["merges"] if _merged(pair) in wanted and set(_parts(pair)) <= wanted]
    for token in tokenizer.get("added_tokens", []):
        token["id"] = new[token["id"]]
    tokenizer["post_processor"] = _renumbered(tokenizer.get("post_processor"), new)
    return json.dumps(tokenizer, ensure_ascii=False, sort_keys=True), ids


def _vocabulary(model: dict[str, Any]) -> dict[str, int]:
    if model["type"] == "Unigram":
        return {token: index for index, (token, _) in enumerate(model["vocab"])}
    return model["vocab"]


def _parts(pair: Any) -> tuple[str, str]:
    left, right = pair.split(" ", 1) if isinstance(pair, str) else pair
    return left, right


def _merged(pair: Any) -> str:
    return "".join(_parts(pair))


def _with_ancestors(model: dict[str, Any], wanted: set[str]) -> set[str]:
    """`wanted` and all tokens that their merges go through: a merge that a text needed is below one of its tokens."""
    made_of: dict[str, list[tuple[str, str]]] = {}
    for pair in model["merges"]:
        made_of.setdefault(_merged(pair), []).append(_parts(pair))
    found, open_ones = set(wanted), list(wanted)
    while open_ones:
        for parts in made_of.get(open_ones.pop(), []):
            fresh = [part for part in parts if part not in found]
            found.update(fresh)
            open_ones += fresh
    return found


def _processor_tokens(processor: Any) -> list[str]:
    """Tokens that a post-processor puts around a text."""
    if not isinstance(processor, dict):
        return []
    inside = [token for one in processor.get("processors", []) for token in _processor_tokens(one)]
    pairs = [processor[name][0] for name in ("sep", "cls") if isinstance(processor.get(name), list)]
    named = processor.get("special_tokens")
    return [*inside, *pairs, *(named if isinstance(named, dict) else [])]


def _renumbered(processor: Any, new: dict[int, int]) -> Any:
    """Ids inside a post-processor, wherever the known kinds have them."""
    if not isinstance(processor, dict):
        return processor
    if processor.get("type") == "Sequence":
        return {**processor, "processors": [_renumbered(one, new) for one in processor["processors"]]}
    found = dict(processor)
    for name in ("sep", "cls"):
        if isinstance(found.get(name), list):
            found[name] = [found[name][0], new[found[name][1]]]
    if isinstance(found.get("special_tokens"), dict):
        found["special_tokens"] = {
            name: {**token, "ids": [new[index] for index in token["ids"]]}
            for name, token in found["special_tokens"].items()
        }
    return found

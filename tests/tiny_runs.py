"""A tiny encoder with random weights, made-up rows, recipes on them, and the command line: whole runs in seconds.

A `conftest.py` that wants these fixtures imports them.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
WORDS = {
    "good": ["great", "lovely", "kind", "warm", "happy"],
    "bad": ["awful", "rude", "late", "cold", "angry"],
    "plain": ["monday", "gate", "ticket", "page", "train"],
}
FILLER = ["the", "crew", "was", "a", "bit", "and", "very", "flight", "seat", "today", "we", "it", "so", "on", "my"]


def made_up_rows(count: int) -> list[tuple[str, str]]:
    """Distinct texts whose words give the label away."""
    rows = []
    for i in range(count):
        label = list(WORDS)[i % 3]
        words = [FILLER[(i * k + k) % len(FILLER)] for k in (1, 2, 3)]
        words += [WORDS[label][i % 5], WORDS[label][(i // 5) % 5], f"n{i}"]
        rows.append((" ".join(words), label))
    return rows


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two layers, 32 wide, with a word tokenizer; random weights from a fixed seed."""
    import torch
    from tokenizers import Tokenizer
    from tokenizers.models import WordPiece
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import BertProcessing
    from transformers import BertConfig, BertModel

    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *FILLER, *(w for group in WORDS.values() for w in group)]
    tokens += [*letters, *(f"##{letter}" for letter in letters), ".", ",", "!", "?"]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = BertProcessing(("[SEP]", vocabulary["[SEP]"]), ("[CLS]", vocabulary["[CLS]"]))
    directory = tmp_path_factory.mktemp("base") / "tiny"
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=64,
    )  # fmt: skip
    BertModel(config).save_pretrained(directory)
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizerFast"}))
    return directory


@pytest.fixture
def tiny_recipe(tiny_base: Path, tmp_path: Path) -> Path:
    """The whole chain on 400 made-up rows."""
    return write_tiny_recipe(tmp_path, tiny_base)


@pytest.fixture(scope="session")
def shared_recipe(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, once for all tests: an artifact of data says where its rows came from."""
    return write_tiny_recipe(tmp_path_factory.mktemp("shared"), tiny_base)


def write_tiny_recipe(directory: Path, tiny_base: Path) -> Path:
    data = directory / "rows.csv"
    data.write_text("text,label\n" + "".join(f"{text},{label}\n" for text, label in made_up_rows(400)))
    recipe = directory / "tiny.yaml"
    recipe.write_text(f"""\
name: tiny
steps:
  data: {{uses: prepare.text, with: {{source: {data}, near_duplicates: false}}, resources: {{retries: 0}}}}
  head:
    uses: train.stage
    inputs: {{data: data}}
    with: {{base: {tiny_base}, train: head, learning_rate: 1e-2, num_train_epochs: 1, max_length: 32}}
    resources: {{retries: 0}}
  full:
    uses: train.stage
    inputs: {{data: data, model: head}}
    with: {{train: all, train_embeddings: true, learning_rate: 1e-2, num_train_epochs: 4, save_steps: 5}}
    resources: {{retries: 0}}
  student:
    uses: distill.logits
    inputs: {{data: data, teachers: [full]}}
    with: {{layers: 1, train_embeddings: true, learning_rate: 1e-2, num_train_epochs: 4}}
  onnx: {{uses: export.onnx, inputs: {{model: student}}}}
  int8:
    uses: quantize.int8
    inputs: {{data: data, model: onnx, baseline: full}}
    with: {{accept_loss: 0.2, speed_seconds: 0.05}}
  scores: {{uses: evaluate.compare, inputs: {{data: data, model: int8, baseline: full}}, with: {{speed_seconds: 0.05}}}}
  release:
    uses: release.gate
    inputs: {{data: data, model: int8, scores: scores}}
    with: {{max_loss: 0.3, min_agreement: 0.9}}
""")
    return recipe


class Cli:
    """`stillhouse …` as a child process in a home of its own."""

    def __init__(self, home: Path, cwd: Path) -> None:
        self.home = home
        self.cwd = cwd

    def environment(self, fault: str = "") -> dict[str, str]:
        return {**os.environ, "STILLHOUSE_HOME": str(self.home), "STILLHOUSE_FAULT": fault, "COLUMNS": "200"}

    def start(self, *arguments: str, fault: str = "", **popen: object) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "flows.cli", *arguments], env=self.environment(fault), text=True, cwd=self.cwd,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, **popen,
        )  # type: ignore[call-overload]  # fmt: skip

    def __call__(self, *arguments: str, fault: str = "", code: int | None = 0) -> "subprocess.CompletedProcess[str]":
        process = self.start(*arguments, fault=fault)
        out, err = process.communicate(timeout=300)
        assert code is None or process.returncode == code, f"exit {process.returncode}\n{out}\n{err}"
        return subprocess.CompletedProcess(arguments, process.returncode, out, err)

    def json(self, *arguments: str, code: int | None = 0) -> dict:
        return json.loads(self(*arguments, "--json", code=code).stdout)

    def events(self, name: str | None = None) -> list[dict]:
        path = self.home / "logs" / "events.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [line for line in lines if name is None or line["event"] == name]


@pytest.fixture
def make_cli(tmp_path: Path) -> Callable[[str], Cli]:
    """A command line with a home of the given name."""
    os.environ["PYTHONPATH"] = str(ROOT)
    return lambda name: Cli(tmp_path / name, tmp_path)


@pytest.fixture
def cli(make_cli: Callable[[str], Cli]) -> Cli:
    return make_cli("home")


@pytest.fixture(scope="session")
def home_until(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """`home_until(STEP)` is a home where the tiny recipe ran up to that step; made once, to be copied."""
    os.environ["PYTHONPATH"] = str(ROOT)
    made: dict[str, Path] = {}

    def home(step: str) -> Path:
        if step not in made:
            directory = tmp_path_factory.mktemp(f"until-{step}")
            made[step] = directory / "home"
            recipe = str(write_tiny_recipe(directory, tiny_base))
            result = Cli(made[step], directory)("run", recipe, "--local", "--until", step, "--json").stdout
            (directory / "result.json").write_text(result)
        return made[step]

    return home


@pytest.fixture
def cli_with_head(cli: Cli, home_until: Callable[[str], Path]) -> Cli:
    """A command line in a home where `data` and `head` are done, with an event log that begins here."""
    return copied(cli, home_until("head"))


@pytest.fixture
def cli_after_run(cli: Cli, home_until: Callable[[str], Path]) -> Cli:
    """A command line in a home where the tiny recipe ran and its model is champion."""
    return copied(cli, home_until("release"))


@pytest.fixture
def first_run(home_until: Callable[[str], Path]) -> dict:
    """What the run that made the home of `cli_after_run` said."""
    return json.loads((home_until("release").parent / "result.json").read_text())


def copied(cli: Cli, home: Path) -> Cli:
    shutil.copytree(home, cli.home)
    (cli.home / "logs" / "events.jsonl").unlink()
    return cli

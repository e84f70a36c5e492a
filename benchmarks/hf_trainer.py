"""The Hugging Face Trainer on given batches with our settings: the peer of the training loop, in tests and timing."""

from math import ceil
from pathlib import Path
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from stillhouse.train.settings import TrainingSettings


class InOrder(Trainer):
    """Feeds the given batches as they are, in their order."""

    def __init__(self, batches: list[dict[str, torch.Tensor]], **rest: Any) -> None:
        super().__init__(**rest)
        self.batches = batches

    def get_train_dataloader(self) -> Any:
        return torch.utils.data.DataLoader(self.batches, batch_size=None, shuffle=False)  # type: ignore[arg-type]


def make_trainer(
    model: Any, batches: list[dict[str, torch.Tensor]], out: Path, settings: TrainingSettings, logging_steps: int = 1
) -> Trainer:
    """A Trainer for one optimizer step a batch; it evaluates and saves nothing."""
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=len(batches),
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=ceil(len(batches) * settings.warmup_ratio),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        logging_steps=logging_steps,
        save_strategy="no",
        report_to=[],
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = InOrder(batches, model=model, args=arguments)
    handler = trainer.callback_handler
    trainer.remove_callback(next(c for c in handler.callbacks if type(c).__name__ == "PrinterCallback"))
    return trainer

"""What the machine can do in 32 bits, measured, and what an encoder's forward pass needs of it."""

import time
from collections.abc import Sequence

SIZE = 1536
TRIES = 40


def sgemm_flops() -> float:
    """Floating-point operations a second of the best of many products of large matrices, with torch's and with numpy's
    library, on two threads. A shared machine has slow moments: take the best of several calls."""
    import numpy as np
    import torch

    left, right = torch.rand(SIZE, SIZE), torch.rand(SIZE, SIZE)
    arrays = left.numpy(), right.numpy()
    best = float("inf")
    for number in range(TRIES):
        started = time.perf_counter()
        torch.mm(left, right) if number % 2 else np.matmul(*arrays)
        best = min(best, time.perf_counter() - started)
    return 2 * SIZE**3 / best


def forward_flops(lengths: Sequence[int], layers: int = 6, hidden: int = 384, units: int = 1536) -> float:
    """Operations of one pass over texts of so many tokens, padding not counted: 2 N + 4 L S H for each token."""
    weights = layers * (4 * hidden**2 + 2 * hidden * units)
    return float(sum(length * (2 * weights + 4 * layers * length * hidden) for length in lengths))


def token_counts(texts: Sequence[str], max_length: int) -> list[int]:
    """Tokens of each text, cut at `max_length`."""
    from tokenizers import Tokenizer

    from benchmarks.harness import base_model

    tokenizer = Tokenizer.from_file(str(base_model() / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_length)
    return [len(encoding.ids) for encoding in tokenizer.encode_batch_fast(list(texts))]

"""A file of any size in the memory of a small one."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.stillhouse.batch.tiny_batch import write_rows
from tests.tasks.tiny_release import make_bundle

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FEW = 20_000
LARGEST_GROWTH_MB = 60.0
PROGRAM = """
import sys
from pathlib import Path
from tests.stillhouse.batch.tiny_batch import batch
model, source, output, home = map(Path, sys.argv[1:])
batch(model, source, output, home, chunk_rows=5000, topic="topic")
"""


def peak_mb(*arguments: Path) -> float:
    """Largest resident memory of a batch prediction in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, "-c", PROGRAM, *arguments], cwd=ROOT, env=environment)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = status
    assert status == 0
    return usage.ru_maxrss / 1024


@pytest.mark.parametrize(("suffix", "many"), [(".csv", 300_000), (".parquet", 100_000)])
def test_memory_does_not_grow_with_the_file(tmp_path, suffix, many):
    model, peaks = make_bundle(tmp_path / "model"), {}
    for count in (FEW, many):
        source = write_rows(tmp_path / f"{count}.csv", 0)
        with source.open("a") as file:
            file.writelines(f"2024-01-01,t{i % 3},the crew was fine {i},{i}\n" for i in range(count))
        peaks[count] = peak_mb(model, source, tmp_path / f"out-{count}{suffix}", tmp_path / f"home-{count}")
    print(f"peak memory {peaks[FEW]:.0f} MB for {FEW:,} rows, {peaks[many]:.0f} MB for {many:,}")
    assert peaks[many] < peaks[FEW] + LARGEST_GROWTH_MB
    output = tmp_path / f"out-{many}{suffix}"
    if suffix == ".parquet":
        assert pq.read_metadata(output).num_rows == many
    else:
        with output.open("rb") as file:
            assert sum(1 for _ in file) == many + 1

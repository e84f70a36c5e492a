"""The fingerprint is the same every time and says only what decides speed."""

import os
import subprocess
import sys

from stillhouse import machine
from stillhouse.machine import fingerprint
from stillhouse.scoring import default_threads


def test_the_fingerprint_is_stable_and_small():
    found = fingerprint()
    assert found == fingerprint()
    assert set(found) == {"cpu", "flags", "cores", "threads"}
    assert found["cpu"] and set(found["flags"]) <= set(machine.FLAGS)
    assert 1 <= found["threads"] == default_threads() <= found["cores"] == os.cpu_count()


def test_flags_are_read_from_the_first_core(tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text("model name\t: One\nflags\t\t: avx2 fma avx512_vnni\n\nmodel name\t: Two\nflags\t: sse\n")
    assert machine._cpuinfo(path) == {"model name": "One", "flags": "avx2 fma avx512_vnni"}
    assert machine._cpuinfo(tmp_path / "absent") == {}


def test_affinity_limits_the_threads():
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
    program += "from stillhouse.machine import fingerprint; print(fingerprint()['threads'])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1"]

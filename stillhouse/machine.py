"""What of this machine a measured time depends on."""

import os
import platform
from pathlib import Path
from typing import Any

FLAGS = ("amx_int8", "asimddp", "avx2", "avx512_bf16", "avx512_vnni", "avx512f", "avx_vnni", "bf16", "i8mm")
"""Instruction sets that decide how fast fp32, bf16 and int8 are (x86 and ARM names as Linux spells them)."""


def fingerprint() -> dict[str, Any]:
    """`{"cpu", "flags", "cores", "threads"}`: equal where speeds can be compared."""
    from stillhouse.scoring import default_threads

    fields = _cpuinfo()
    present = set((fields.get("flags") or fields.get("Features") or "").split())
    return {
        "cpu": fields.get("model name") or platform.processor() or platform.machine(),
        "flags": [flag for flag in FLAGS if flag in present],
        "cores": os.cpu_count() or 1,
        "threads": default_threads(),
    }


def _cpuinfo(path: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
    except OSError:
        return {}
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, _, value in pairs}

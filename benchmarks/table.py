"""The table in `benchmarks/README.md`, made from the committed results."""

import json
import re
from collections.abc import Sequence
from typing import Any

from benchmarks.harness import RESULTS, ROOT

README = ROOT / "benchmarks" / "README.md"
COLUMNS = ("#", "work", "against", "published", "goal", "ours, ratio", "share of the bound", "processor")
HEADER = f"| {' | '.join(COLUMNS)} |\n{'|---' * len(COLUMNS)}|\n"


def write_table(names: Sequence[str]) -> None:
    """Replace what stands between the two marks of the README."""
    lines: list[str] = []
    for number, name in enumerate(names, 1):
        path = RESULTS / f"bench_{name}.json"
        if path.is_file():
            lines += _lines(number, name, json.loads(path.read_text(encoding="utf-8")))
    text = README.read_text(encoding="utf-8")
    made = f"<!-- table -->\n{HEADER}{''.join(lines)}<!-- end of table -->"
    README.write_text(re.sub(r"<!-- table -->.*<!-- end of table -->", lambda _: made, text, flags=re.DOTALL))


def _lines(number: int, name: str, result: dict[str, Any]) -> list[str]:
    lines = []
    processor = "AVX-512, VNNI" if "avx512_vnni" in result["machine"]["flags"] else "AVX2"
    for row in result["rows"]:
        measured, target, share = row["ratio"], row["target"], row.get("bound_share")
        goal = "" if target is None else f"{target}x"
        verdict = {True: " met", False: " missed", None: ""}[row["met"]]
        lines.append(
            f"| {number} | {name} | {row['against']} | {row.get('anchor', '')} | {goal} "
            f"| **{measured['median']}x** [{measured['low']}, {measured['high']}]{verdict} "
            f"| {'' if share is None else f'{100 * share:.0f} %'} | {processor} |\n"
        )
    return lines

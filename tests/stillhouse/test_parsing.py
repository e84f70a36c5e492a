"""Two threads that parse at once, and a garbage collector that lets one in while the other is at it."""

import ast
import gc
import threading
from pathlib import Path

import pytest

from stillhouse.parsing import TIMES, parsed

SOURCE = (Path(__file__).parents[2] / "flows" / "up.py").read_text()


class Loop:
    """Left to the collector, whose call of this gives another thread its turn."""

    def __init__(self) -> None:
        self.me = self

    def __del__(self) -> None:
        for _ in range(50):
            pass


def test_two_threads_parse_at_once():
    trees: list[str] = []

    def parse(depth: int) -> None:
        if depth:
            return parse(depth - 1)
        for _ in range(30):
            _ = [Loop() for _ in range(20)]
            trees.append(ast.dump(parsed(lambda: ast.parse(SOURCE))))

    before = gc.get_threshold()
    gc.set_threshold(50)
    try:
        threads = [threading.Thread(target=parse, args=(depth,)) for depth in (5, 60)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        gc.set_threshold(*before)
    assert len(trees) == 60 and len(set(trees)) == 1


def test_what_stays_wrong_is_said():
    tries = []

    def never() -> None:
        tries.append(1)
        raise SystemError("still")

    with pytest.raises(SystemError, match="still"):
        parsed(never)
    assert len(tries) == TIMES

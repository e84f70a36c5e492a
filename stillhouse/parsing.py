"""Parsing Python while other threads do: CPython 3.11 counts the depth of syntax trees for all of them together.

Where the garbage collector lets another thread in while a tree is made, one of both gets `SystemError: AST constructor
recursion depth mismatch` (https://github.com/python/cpython/issues/106905; in 3.11.7, not in 3.12.1). pydantic parses
the source of every class whose attributes have docstrings, and one of some sixty flow runs that began at once failed.
"""

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
TIMES = 5


def parsed(parse: Callable[[], T]) -> T:
    """`parse()`, once more where another thread came in between."""
    for _ in range(TIMES - 1):
        try:
            return parse()
        except SystemError:
            continue
    return parse()

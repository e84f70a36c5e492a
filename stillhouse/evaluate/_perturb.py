"""Texts as people really send them: typos, capitals, cut off, odd Unicode. A text and a seed give the same every time.

Each kind has a function for one word, so that rows of words (for tags) keep their words and so their truth; what
changes the number of words is for whole texts alone.
"""

import unicodedata
from collections.abc import Callable
from random import Random
from typing import Any

SHARE = 0.15
"""Of the words of a row that typos, look-alikes and invisible characters are put into; at least one word."""
_SHORTEST = 4
"""Letters of a word that a typo may hit: in shorter ones it often makes another word."""
_NEAR = {
    letter: "".join(
        row[column]
        for row, column in (
            [(line, at + step) for step in (-1, 1)] + [(other, near) for other in others for near in (at - 1, at)]
        )
        if 0 <= column < len(row)
    )
    for line, others in (("qwertyuiop", ["asdfghjkl"]), ("asdfghjkl", ["zxcvbnm"]), ("zxcvbnm", ["asdfghjkl"]))
    for at, letter in enumerate(line)
}
"""Neighbours on a QWERTY keyboard."""
_LOOK_ALIKE = str.maketrans("aceopxyiABCEHKMOPTX", "асеорхуіАВСЕНКМОРТХ")
"""Latin letters → Cyrillic ones that look the same."""
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad"
_EMOJI = ("\U0001f600", "\U0001f644", "\U0001f62d", "\U0001f525", "\u2764\ufe0f", "\U0001f44d\U0001f3fd", "✈️")


def typo(word: str, random: Random) -> str:
    """One slip of the keyboard: a neighbouring key, two letters swapped, or one left out."""
    at = random.randrange(len(word) - 1)
    kind = random.choice(("near", "swap", "drop"))
    near = _NEAR.get(word[at].lower())
    if kind == "near" and near:
        return word[:at] + random.choice(near) + word[at + 1 :]
    if kind == "swap" and word[at] != word[at + 1]:
        return word[:at] + word[at + 1] + word[at] + word[at + 2 :]
    return word[:at] + word[at + 1 :]


def invisible(word: str, random: Random) -> str:
    """A character of no width inside the word."""
    at = random.randrange(1, len(word)) if len(word) > 1 else 1
    return word[:at] + random.choice(_INVISIBLE) + word[at:]


def _some(change: Callable[[str, Random], str], shortest: int) -> Callable[[list[str], Random], list[str]]:
    """`change` for some of the words that have at least `shortest` characters."""

    def apply(words: list[str], random: Random) -> list[str]:
        able = [at for at, word in enumerate(words) if len(word) >= shortest]
        hit = set(random.sample(able, min(len(able), max(1, round(SHARE * len(words))))))
        return [change(word, random) if at in hit else word for at, word in enumerate(words)]

    return apply


WORDS: dict[str, Callable[[list[str], Random], list[str]]] = {
    "typos": _some(typo, _SHORTEST),
    "upper": lambda words, _: [word.upper() for word in words],
    "lower": lambda words, _: [word.lower() for word in words],
    "lookalikes": _some(lambda word, _: word.translate(_LOOK_ALIKE), 1),
    "invisible": _some(invisible, 1),
    "decomposed": lambda words, _: [unicodedata.normalize("NFD", word) for word in words],
}
"""Kinds that keep the number of words."""
TEXTS: dict[str, Callable[[list[str], Random], list[str]]] = {
    **WORDS,
    "truncated": lambda words, _: words[: (len(words) + 1) // 2],
    "emoji": lambda words, random: [*words, random.choice(_EMOJI)],
}
"""Kinds for whole texts: these, a text cut to its first half, and one with an emoji at its end."""


def perturb(row: Any, kind: str, seed: int) -> Any:
    """`row` (a text, or a list of words) as `kind` makes it. The white space of a text becomes single blanks."""
    if isinstance(row, str):
        return " ".join(TEXTS[kind](row.split(), _random(row, kind, seed)))
    return WORDS[kind](list(row), _random(" ".join(row), kind, seed))


def _random(text: str, kind: str, seed: int) -> Random:
    # Seeded with the row itself: what is done to it does not depend on the rows around it.
    return Random(f"{seed} {kind} {text}".encode("utf-8", "surrogatepass"))

"""Text from data in Markdown: shown as it is, never as a link, a picture or a table."""

import re

_SPECIAL = re.compile(r"([\\`*_{}\[\]()<>#+!|~&-])")


def plain(text: object) -> str:
    """`text` on one line, with everything that Markdown would read as its own escaped."""
    return _SPECIAL.sub(r"\\\1", " ".join(str(text).split()))

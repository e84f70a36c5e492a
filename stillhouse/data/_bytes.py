"""From bytes to text: wrong bytes repaired and counted, files that are not text refused."""

import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from stillhouse.errors import UserError

_MARK = b"\xef\xbb\xbf"
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")
_WRONG = re.compile("[\udc80-\udcff]")
"""What the error handler `surrogateescape` makes of bytes that are no UTF-8; no sound byte becomes one of these."""
_PACKED = {
    b"\x1f\x8b": "gzip",
    b"PK\x03\x04": "zip (or a spreadsheet)",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
    b"(\xb5/\xfd": "zstd",
    b"%PDF": "PDF",
}


def text_lines(path: Path, counts: Counter[str]) -> Iterator[str]:
    r"""The lines of a text file, each with its `\n`; whatever ended it in the file (`\r\n`, `\r`).

    Bytes that are not UTF-8 are read as Windows-1252, one by one; `counts` gets `repaired_lines` and `repaired_bytes`.
    """
    with _open(path) as file:
        start = file.peek(4)[:4]
        if start.startswith(_WIDE_MARKS):
            yield from io.TextIOWrapper(file, encoding="utf-16", errors="replace")
            return
        if start.startswith(_MARK):
            file.read(len(_MARK))
        for number, raw in enumerate(file, 1):
            if b"\0" in raw:
                raise UserError(
                    f"{path} is not a text file: line {number} holds a zero byte",
                    "Export it as UTF-8 text, or name its format",
                )
            line = _decode(raw, counts)
            if "\r" in line:
                yield from _split_returns(line)
            else:
                yield line


def read_text(path: Path, counts: Counter[str]) -> str:
    """A whole text file."""
    return "".join(text_lines(path, counts))


def _open(path: Path) -> io.BufferedReader:
    try:
        file = path.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}", "Check the path and its permissions") from None
    start = file.peek(8)[:8]
    packed = next((name for magic, name in _PACKED.items() if start.startswith(magic)), None)
    if packed:
        file.close()
        raise UserError(f"{path} is not a text file but {packed}", "Unpack it, or export it as UTF-8 text")
    return file


def _split_returns(line: str) -> list[str]:
    # Not splitlines: that also splits at characters that belong to the text, such as U+2028.
    return re.findall(r"[^\n]*\n|[^\n]+", line.replace("\r\n", "\n").replace("\r", "\n"))


def _decode(raw: bytes, counts: Counter[str]) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        counts["repaired_lines"] += 1
    # Only the wrong bytes: their neighbours may be good UTF-8.
    text, repaired = _WRONG.subn(
        lambda found: bytes([ord(found.group()) - 0xDC00]).decode("cp1252", "replace"),
        raw.decode(errors="surrogateescape"),
    )
    counts["repaired_bytes"] += repaired
    return text

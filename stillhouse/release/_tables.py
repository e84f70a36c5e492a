"""Markdown tables."""


def table(head: list[str], rows: list[list[object]]) -> str:
    """A Markdown table; numbers with three decimals, whatever would break a cell escaped."""
    lines = [head, ["---"] * len(head), *([cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    return " ".join(str(value).split()).replace("\\", "\\\\").replace("|", "\\|")

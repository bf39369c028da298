"""Tables in Markdown."""

from collections.abc import Iterator, Sequence


def table(
    headers: Sequence[str], rows: Sequence[Sequence[str]], strong: frozenset[tuple[int, int]] = frozenset()
) -> Iterator[str]:
    """The lines of a table; the first column is aligned left, all others right, and `strong` are (row, column)."""
    yield "| " + " | ".join(headers) + " |"
    yield "|---|" + "---:|" * (len(headers) - 1)
    for i, row in enumerate(rows):
        cells = [f"**{cell}**" if (i, j) in strong else cell for j, cell in enumerate(row)]
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"

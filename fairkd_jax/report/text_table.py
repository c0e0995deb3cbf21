"""Text tables, for a terminal of any width and for files."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

_GAP = 2  # columns between two cells
_BOLD, _END = "\033[1m", "\033[0m"


@dataclass(frozen=True)
class Style:
    """The form of a table.

    Attributes:
      width: Number of columns of the terminal; None for no limit.
      is_bold: Whether the terminal shows bold letters.
    """

    width: int | None = None
    is_bold: bool = False


WIDE = Style()


def align_rows(
    rows: Sequence[Sequence[str]], style: Style = WIDE, bold: Collection[tuple[int, int]] = ()
) -> str:
    """Aligns rows of cells as a text table, with a rule below the first row.

    The first column is aligned to the left, all other columns to the right. Where the table is wider than the
    terminal, cells break into lines; where this is not enough, each row becomes a list.

    Args:
      rows: Cells of each row; a row of a single cell is a title across all columns.
      style: Form of the table.
      bold: Row and column of each cell in bold letters.

    Returns:
      The table, without a line break at the end.
    """
    rows = _break_cells(rows, style)
    widths = _measure(rows)
    if not _fits(widths, style):
        return _list_rows(rows)
    bold = bold if style.is_bold else ()
    lines = []
    for number, row in enumerate(rows):
        if len(row) == 1:
            lines.append(row[0])
            continue
        cells = [cell.split("\n") for cell in row]
        for place in range(max(map(len, cells))):
            parts = [cell[place] if place < len(cell) else "" for cell in cells]
            shown = [text.rjust(width) for text, width in zip(parts, widths, strict=True)]
            shown[0] = parts[0].ljust(widths[0])
            for column, text in enumerate(parts):
                if text and (number, column) in bold:
                    shown[column] = shown[column].replace(text, f"{_BOLD}{text}{_END}")
            lines.append((" " * _GAP).join(shown).rstrip() if style.width else (" " * _GAP).join(shown))
        if not number:
            lines.append("-" * (sum(widths) + _GAP * (len(widths) - 1)))
    return "\n".join(lines)


def measure_width(rows: Sequence[Sequence[str]]) -> int:
    """Returns the width of a table in columns, where no cell is broken.

    Args:
      rows: See `align_rows`.
    """
    widths = _measure(rows)
    return sum(widths) + _GAP * (len(widths) - 1)


def _measure(rows: Sequence[Sequence[str]]) -> list[int]:
    """Returns the width of each column."""
    return [max(_measure_cell(row[place]) for row in rows if len(row) > 1) for place in range(len(rows[0]))]


def _fits(widths: Sequence[int], style: Style) -> bool:
    return style.width is None or sum(widths) + _GAP * (len(widths) - 1) <= style.width


def _break_cells(rows: Sequence[Sequence[str]], style: Style) -> list[list[str]]:
    """Breaks cells into lines until the table fits, where there are places to break.

    In each step one column becomes narrower: the one that leaves the fewest lines, or the widest of several.
    """
    broken = [list(row) for row in rows]
    while not _fits(widths := _measure(broken), style):
        found = []
        for place, width in enumerate(widths):
            tried = [_narrow(row, other, place, width - 1) for row, other in zip(broken, rows, strict=True)]
            if _measure(tried)[place] < width:
                lines = sum(max(cell.count("\n") for cell in row) for row in tried)
                found.append((lines, -width, place, tried))
        if not found:
            break
        broken = min(found)[-1]
    return broken


def _narrow(row: Sequence[str], unbroken: Sequence[str], place: int, width: int) -> list[str]:
    """Breaks one cell of a row anew."""
    cells = list(row)
    if len(row) > 1:
        cells[place] = _wrap(unbroken[place], width)
    return cells


def _measure_cell(cell: str) -> int:
    return max(map(len, cell.split("\n")))


def _split(cell: str) -> list[str]:
    """Splits a cell behind spaces and underscores; spaces at its start stay with the first word."""
    return re.findall(r"^ *[^ _]*[ _]?|[^ _]+[ _]?|[ _]", cell)


def _wrap(cell: str, width: int) -> str:
    """Breaks a cell into lines of a width, where there are places to break."""
    lines = [""]
    for piece in _split(cell):
        if lines[-1] and len((lines[-1] + piece).rstrip()) > width:
            lines.append("")
        lines[-1] += piece
    return "\n".join(line.rstrip() for line in lines)


def _list_rows(rows: Sequence[Sequence[str]]) -> str:
    """Formats each row as a list of its cells, below its first cell."""
    head, *others = [[cell.replace("\n", " ").strip() for cell in row] for row in rows]
    lines = []
    for row in others:
        lines.append(row[0])
        for title, cell in zip(head[1:], row[1:], strict=len(row) > 1):
            if cell:
                lines.append(f"  {title}: {cell}")
    return "\n".join(lines)

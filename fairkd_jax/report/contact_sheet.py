"""Images of every class and group on one sheet, to be looked at before training."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MARGIN, _TEXT = 4, 14
_BACKGROUND, _INK, _EMPTY = (255, 255, 255), (20, 20, 20), (225, 225, 225)


def contact_sheet(
    cells: Mapping[tuple[str, str], np.ndarray], rows: Sequence[str], columns: Sequence[str], per_cell: int
) -> Image.Image:
    """Draws a row of images for each class, with a block for each group.

    Args:
      cells: (row, column) -> uint8 [n, S, S, 3], at most `per_cell` images; absent where there are none.
      rows: names of the rows.
      columns: names of the blocks.
      per_cell: how many images a block has room for.

    Returns:
      An image with names above the blocks and before the rows.
    """
    side = next(iter(cells.values())).shape[1]
    font = ImageFont.load_default(_TEXT - 2)
    label_width = _MARGIN * 2 + max(int(font.getlength(name)) for name in rows)
    block = per_cell * (side + _MARGIN) + 2 * _MARGIN
    sheet = Image.new(
        "RGB",
        (label_width + len(columns) * block, _TEXT + 2 * _MARGIN + len(rows) * (side + _MARGIN)),
        _BACKGROUND,
    )
    draw = ImageDraw.Draw(sheet)
    for j, column in enumerate(columns):
        draw.text((label_width + j * block, _MARGIN), column, _INK, font)
    for i, row in enumerate(rows):
        top = _TEXT + 2 * _MARGIN + i * (side + _MARGIN)
        draw.text((_MARGIN, top + (side - _TEXT) // 2), row, _INK, font)
        for j, column in enumerate(columns):
            images = cells.get((row, column), ())
            for k in range(per_cell):
                left = label_width + j * block + k * (side + _MARGIN)
                if k < len(images):
                    sheet.paste(Image.fromarray(images[k]), (left, top))
                else:
                    draw.rectangle((left, top, left + side - 1, top + side - 1), outline=_EMPTY)
    return sheet

"""Contact sheet with images of every class and group, to check the data before training."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MARGIN, _TEXT = 4, 14
_BACKGROUND, _INK, _EMPTY = (255, 255, 255), (20, 20, 20), (225, 225, 225)


def draw_contact_sheet(
    cells: Mapping[tuple[str, str], np.ndarray], rows: Sequence[str], columns: Sequence[str], per_cell: int
) -> Image.Image:
    """Draws a row of images for each class, with a block for each group.

    Args:
      cells: Images by (row, column), uint8 [n, S, S, 3] with n up to `per_cell`; absent without images.
      rows: Names of the rows.
      columns: Names of the blocks.
      per_cell: Number of places in a block.

    Returns:
      RGB image with the names of the blocks at the top and the names of the rows at the left.
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

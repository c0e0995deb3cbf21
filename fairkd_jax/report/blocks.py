"""The parts of a report: sections of texts, tables and figures, without any markup.

All texts are plain: the template escapes what data and users have named.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Attributes:
      text: The sentences.
      kind: "text"; "note" for what a measure means and when it misleads; "verdict" for a finding; "missing"
        for what the runs do not hold.
    """

    text: str
    kind: str = "text"


@dataclass(frozen=True)
class Table:
    """A table whose first column names the rows.

    Attributes:
      caption: What the table shows.
      head: Titles of the columns.
      rows: Cells of each row, as text.
      is_folded: Whether the reader has to open the table.
      is_prose: Whether the cells hold sentences, which are wrapped.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_folded: bool = False
    is_prose: bool = False


@dataclass(frozen=True)
class Figure:
    """A figure with the table of its values.

    Attributes:
      title: Title of the figure.
      alt: What a reader who cannot see the figure has to know.
      traces: Traces of plotly.
      layout: Layout of plotly, without colours of the page.
      table: The values.
      height: Height in pixels.
      is_turnable: Whether the figure has three dimensions.
    """

    title: str
    alt: str
    traces: Sequence[Mapping[str, Any]]
    layout: Mapping[str, Any]
    table: Table
    height: int = 360
    is_turnable: bool = False


@dataclass(frozen=True)
class Picture:
    """An image with what is known of it.

    Attributes:
      address: Address that holds the bytes of the image.
      caption: Words below the image.
      alt: What a reader who cannot see the image has to know.
      width: Width on the page in pixels.
    """

    address: str
    caption: str
    alt: str
    width: int


@dataclass(frozen=True)
class Gallery:
    """Images side by side.

    Attributes:
      title: What they have in common.
      pictures: The images.
    """

    title: str
    pictures: Sequence[Picture]


Block = Text | Table | Figure | Gallery


@dataclass(frozen=True)
class Section:
    """A section.

    Attributes:
      anchor: Name of the section in addresses.
      title: Title.
      blocks: The content, in order.
    """

    anchor: str
    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)

"""Decodes, resizes and encodes single images."""

import io

import numpy as np
import simplejpeg
from PIL import Image, ImageOps

_ORIENTATION = 0x0112  # of EXIF
RESIZE_MODES = ("squash", "pad")


class BadImageError(Exception):
    """An image that can be told to be unusable; the message is the reason."""


def decode_image(data: bytes, *, size: int, resize: str) -> np.ndarray:
    """Decodes an image to a square of RGB.

    The orientation of the camera is honoured, and shrinking is antialiased (bicubic). An image that already
    has the size is returned unchanged.

    Args:
      data: an encoded image of any format that PIL knows.
      size: side of the square in pixels.
      resize: "squash" stretches to the square; "pad" keeps the aspect and centres on black.

    Returns:
      uint8 [size, size, 3].

    Raises:
      BadImageError: an unsupported kind of pixel or too many of them.
      Exception: whatever PIL raises for a damaged file.
    """
    with Image.open(io.BytesIO(data)) as opened:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and opened.width * opened.height > limit:
            raise BadImageError(f"{opened.width}x{opened.height} pixels are more than {limit}")
        image = _fast_jpeg(opened, data, size)
        if image is None:
            opened.draft("RGB", (2 * size, 2 * size))
            image = _to_rgb(ImageOps.exif_transpose(opened))
    if image.size != (size, size):
        image = _resized(image, size, resize)
    return np.asarray(image)


def _fast_jpeg(opened: Image.Image, data: bytes, size: int) -> Image.Image | None:
    """An upright photograph by libjpeg-turbo, at its smallest scale with at least `size` pixels a side.

    None where that does not apply: to be decoded by PIL, which also says what is wrong with a damaged file.
    """
    if opened.format != "JPEG" or opened.mode != "RGB" or opened.getexif().get(_ORIENTATION, 1) != 1:
        return None
    try:
        return Image.fromarray(simplejpeg.decode_jpeg(data, "RGB", min_height=size, min_width=size))
    except ValueError:
        return None


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadImageError(f"pixels of kind {image.mode} (32 bits); save it with 8 bits per channel")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def _resized(image: Image.Image, size: int, resize: str) -> Image.Image:
    if resize == "squash":
        return image.resize((size, size), Image.Resampling.BICUBIC)
    ratio = size / max(image.size)
    width, height = (max(1, round(side * ratio)) for side in image.size)
    square = Image.new("RGB", (size, size))
    inner = image.resize((width, height), Image.Resampling.BICUBIC)
    square.paste(inner, ((size - width) // 2, (size - height) // 2))
    return square


def encode_png(pixels: np.ndarray) -> bytes:
    """Returns uint8 [H, W, 3] as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def decode_png(data: bytes) -> np.ndarray:
    """Returns the pixels of a PNG file that `encode_png` wrote, uint8 [H, W, 3]."""
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return np.asarray(image)

"""Decodes, resizes and encodes single images."""

import io

import numpy as np
import simplejpeg
from kornia_rs import imgproc
from PIL import Image, ImageOps

_ORIENTATION = 0x0112  # of EXIF
RESIZE_MODES = ("squash", "pad")


class BadImageError(Exception):
    """An image that can be told to be unusable; the message is the reason."""


def decode_image(data: bytes, *, size: int, resize: str) -> np.ndarray:
    """Decodes an image to a square of RGB.

    The orientation of the camera is honoured, and shrinking does not alias. An image that already has the
    size is returned unchanged.

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
        pixels = _fast_jpeg(opened, data, size, resize)
        if pixels is None:
            opened.draft("RGB", (2 * size, 2 * size))
            pixels = np.asarray(_to_rgb(ImageOps.exif_transpose(opened)))
    height, width = _inner_size(pixels.shape[0], pixels.shape[1], size, resize)
    inner = _resized(pixels, height, width)
    if (height, width) == (size, size):
        return inner
    square = np.zeros((size, size, 3), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = inner
    return square


def _inner_size(height: int, width: int, size: int, resize: str) -> tuple[int, int]:
    """Height and width of what becomes of the image within the square."""
    if resize == "squash":
        return size, size
    longer = max(height, width)
    return max(1, round(height * size / longer)), max(1, round(width * size / longer))


def _fast_jpeg(opened: Image.Image, data: bytes, size: int, resize: str) -> np.ndarray | None:
    """An upright photograph by libjpeg-turbo, at its smallest scale with no fewer pixels than are needed.

    None where that does not apply: to be decoded by PIL, which also says what is wrong with a damaged file.
    """
    if opened.format != "JPEG" or opened.mode != "RGB" or opened.getexif().get(_ORIENTATION, 1) != 1:
        return None
    height, width = _inner_size(opened.height, opened.width, size, resize)
    try:
        return simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    except ValueError:
        return None


def _resized(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Shrinks by less than two with a bilinear filter, which then needs no antialiasing and takes half the
    time; else bicubic, antialiased."""
    if pixels.shape[:2] == (height, width):
        return pixels
    covered = (pixels.shape[0] / height, pixels.shape[1] / width)
    if min(covered) < 1.0 or min(height, width) < 2:  # kornia-rs rounds coarsely there, or refuses
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    kind = "bilinear" if max(covered) < 2.0 else "bicubic"
    return np.asarray(imgproc.resize(np.ascontiguousarray(pixels), (height, width), kind))


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadImageError(f"pixels of kind {image.mode} (32 bits); save it with 8 bits per channel")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def encode_image(pixels: np.ndarray, *, quality: int) -> bytes:
    """Encodes an image to be stored.

    Args:
      pixels: uint8 [H, W, 3].
      quality: of a JPEG file without subsampled colours, 1 to 100; 0: a PNG file, which loses nothing.
    """
    if quality:
        return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "444")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def decode_stored(data: bytes) -> np.ndarray:
    """Returns the pixels of what `encode_image` wrote, uint8 [H, W, 3]."""
    if simplejpeg.is_jpeg(data):
        return simplejpeg.decode_jpeg(data, "RGB")
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return np.asarray(image)

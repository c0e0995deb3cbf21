"""Functions that decode, resize and encode single images."""

import io

import numpy as np
import simplejpeg
from kornia_rs import imgproc
from PIL import Image, ImageOps

_ORIENTATION = 0x0112  # EXIF tag
RESIZE_MODES = ("squash", "pad")


class BadImageError(Exception):
    """An image that cannot be used; the message is the reason."""


def decode_image(data: bytes, *, size: int, resize: str) -> np.ndarray:
    """Decodes an image and resizes the pixels to an RGB square.

    The function applies the EXIF orientation and shrinks with antialiasing. The pixels of an image that
    already has the size stay unchanged.

    Args:
      data: Bytes of an image file in any format that PIL reads.
      size: Side of the square in pixels.
      resize: "squash" stretches the image to the square. "pad" keeps the aspect ratio and centres the image
        on black.

    Returns:
      Pixels, uint8 [size, size, 3].

    Raises:
      BadImageError: The pixel format is not supported, or the image has too many pixels.
      Exception: The file is damaged. The type is the one that PIL raises.
    """
    with Image.open(io.BytesIO(data)) as opened:
        limit = Image.MAX_IMAGE_PIXELS
        if limit is not None and opened.width * opened.height > limit:
            raise BadImageError(f"{opened.width}x{opened.height} pixels are more than {limit}")
        pixels = _decode_jpeg(opened, data, size, resize)
        if pixels is None:
            opened.draft("RGB", (2 * size, 2 * size))
            pixels = np.asarray(_convert_to_rgb(ImageOps.exif_transpose(opened)))
    height, width = _compute_inner_size(pixels.shape[0], pixels.shape[1], size, resize)
    inner = _resize_pixels(pixels, height, width)
    if (height, width) == (size, size):
        return inner
    square = np.zeros((size, size, 3), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = inner
    return square


def _compute_inner_size(height: int, width: int, size: int, resize: str) -> tuple[int, int]:
    """Computes the height and width of the resized image within the square."""
    if resize == "squash":
        return size, size
    longer = max(height, width)
    return max(1, round(height * size / longer)), max(1, round(width * size / longer))


def _decode_jpeg(opened: Image.Image, data: bytes, size: int, resize: str) -> np.ndarray | None:
    """Decodes an upright RGB JPEG with libjpeg-turbo, at the smallest scale that has enough pixels.

    Returns:
      Pixels, uint8 [H, W, 3]. None for any other image: the caller then uses PIL, which also explains the
      fault of a damaged file.
    """
    if opened.format != "JPEG" or opened.mode != "RGB" or opened.getexif().get(_ORIENTATION, 1) != 1:
        return None
    height, width = _compute_inner_size(opened.height, opened.width, size, resize)
    try:
        return simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width)
    except ValueError:
        return None


def _resize_pixels(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resizes pixels to uint8 [height, width, 3].

    A factor of less than two uses a bilinear filter, which needs no antialiasing there and takes half the
    time. Any other factor uses an antialiased bicubic filter.
    """
    if pixels.shape[:2] == (height, width):
        return pixels
    covered = (pixels.shape[0] / height, pixels.shape[1] / width)
    if min(covered) < 1.0 or min(height, width) < 2:  # kornia-rs is inaccurate here, or fails
        return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC))
    kind = "bilinear" if max(covered) < 2.0 else "bicubic"
    return np.asarray(imgproc.resize(np.ascontiguousarray(pixels), (height, width), kind))


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) // 256).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise BadImageError(f"pixels of kind {image.mode} (32 bits); save the image with 8 bits per channel")
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


def encode_image(pixels: np.ndarray, *, quality: int) -> bytes:
    """Encodes an image for storage.

    Args:
      pixels: Pixels, uint8 [H, W, 3].
      quality: JPEG quality without chroma subsampling, 1 to 100. 0 encodes as PNG, which is lossless.

    Returns:
      Bytes of a JPEG or PNG file.
    """
    if quality:
        return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "444")
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return buffer.getvalue()


def decode_stored_image(data: bytes) -> np.ndarray:
    """Decodes the bytes from `encode_image` to pixels, uint8 [H, W, 3]."""
    if simplejpeg.is_jpeg(data):
        return simplejpeg.decode_jpeg(data, "RGB")
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return np.asarray(image)

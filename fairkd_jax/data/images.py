"""Functions that decode, resize and encode single images."""

import io

import numpy as np
import simplejpeg
from kornia_rs import imgproc
from PIL import Image, ImageOps, UnidentifiedImageError

_ORIENTATION = 0x0112  # EXIF tag
RESIZE_MODES = ("squash", "pad")
# Formats of image files; each is decoded within this process.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
# A decoded image and its copies take up to 16 bytes a pixel, in each thread.
MAX_PIXELS = 50_000_000
# Grows with each change of the rules by which a file becomes pixels, which then makes other data.
PIXELS_REVISION = 2
# Modes to which PIL reduces channels of 16 bits, with the number of channels beside transparency.
_REDUCED = {"RGB": 3, "RGBA": 3, "LA": 1}
_LEAST_HIGHEST = 2**14  # a quarter of the range of 16 bits


class BadImageError(Exception):
    """An image that cannot be used; the message is the reason."""


def decode_image(data: bytes, *, size: int, resize: str) -> np.ndarray:
    """Decodes an image and resizes the pixels to an RGB square.

    The function applies the EXIF orientation and shrinks with antialiasing. The pixels of an image that
    already has the size stay unchanged.

    Args:
      data: Bytes of an image file in one of the `FORMATS`.
      size: Side of the square in pixels.
      resize: "squash" stretches the image to the square. "pad" keeps the aspect ratio and centres the image
        on black.

    Returns:
      Pixels, uint8 [size, size, 3].

    Raises:
      BadImageError: The file is of another format, the pixel format is not supported, the pixels fill a small
        part of their range, or the image has too many pixels.
      Exception: The file is damaged. The type is the one that PIL raises.
    """
    with _open_image(data) as opened:
        if opened.width * opened.height > MAX_PIXELS:
            raise BadImageError(f"{opened.width}x{opened.height} pixels are more than {MAX_PIXELS}")
        pixels = _decode_jpeg(opened, data, size, resize)
        if pixels is None:
            opened.draft("RGB", (2 * size, 2 * size))
            loses_bits = any(";16" in str(tile[3]) for tile in getattr(opened, "tile", ()))
            upright = ImageOps.exif_transpose(opened)
            if loses_bits and upright.mode in _REDUCED:  # PIL has kept the higher 8 bits of each channel
                _check_range(int(np.asarray(upright)[..., : _REDUCED[upright.mode]].max()) * 256)
            pixels = np.asarray(_convert_to_rgb(upright))
    height, width = _compute_inner_size(pixels.shape[0], pixels.shape[1], size, resize)
    inner = _resize_pixels(pixels, height, width)
    if (height, width) == (size, size):
        return inner
    square = np.zeros((size, size, 3), np.uint8)
    top, left = (size - height) // 2, (size - width) // 2
    square[top : top + height, left : left + width] = inner
    return square


def _open_image(data: bytes) -> Image.Image:
    """Opens an image of one of the `FORMATS`.

    PIL would read some fifty formats, and would start other programs for a few of them.
    """
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise BadImageError(f"not an image of the formats {', '.join(FORMATS)}, or damaged") from None


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
    """Converts an image to 8 bits per channel, on black where the image is transparent.

    Raises:
      BadImageError: The pixels have 32 bits, or 16 bits of which the highest two are empty.
    """
    if image.mode.startswith("I;16"):
        values = np.asarray(image)
        if values.any():
            _check_range(int(values.max()))
        image = Image.fromarray((values // 256).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise BadImageError(f"pixels of kind {image.mode} (32 bits); save the image with 8 bits per channel")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        background = Image.new("RGBA", image.size, (0, 0, 0, 255))
        background.alpha_composite(image)
        image = background
    return image.convert("RGB")


def _check_range(highest: int) -> None:
    """Checks that 16 bits are filled: a camera of 12 or 14 bits would give an image that is nearly black.

    Args:
      highest: Highest value of the image, below 65,536.

    Raises:
      BadImageError: The highest two bits are empty.
    """
    if highest < _LEAST_HIGHEST:
        raise BadImageError(
            f"16 bits per channel, but no value above {highest / 65535:.0%} of the range; save the image with"
            " 8 bits per channel"
        )


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


def decode_like_stored(data: bytes, *, size: int, resize: str, quality: int) -> np.ndarray:
    """Decodes an image file to the pixels that a model would get, had the file been prepared.

    Args:
      data: Bytes of an image file.
      size: See `decode_image`.
      resize: See `decode_image`.
      quality: See `encode_image`.

    Returns:
      Pixels, uint8 [size, size, 3].

    Raises:
      BadImageError: As `decode_image` does.
      Exception: The file is damaged, as `decode_image` does.
    """
    return decode_stored_image(encode_image(decode_image(data, size=size, resize=resize), quality=quality))


def decode_stored_image(data: bytes) -> np.ndarray:
    """Decodes the bytes from `encode_image` to pixels, uint8 [H, W, 3]."""
    if simplejpeg.is_jpeg(data):
        return simplejpeg.decode_jpeg(data, "RGB")
    with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
        return np.asarray(image)

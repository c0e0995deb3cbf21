"""Images that people hand to the demo, with the limits of what it takes."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fairkd_jax.data.images import BadImageError, decode_like_stored
from fairkd_jax.errors import UsageError

MAX_UPLOAD_BYTES = 20 * 2**20


@dataclass(frozen=True)
class ImageForm:
    """The form in which the models' data are stored; see `decode_like_stored`.

    Attributes:
      size: Side of the images in pixels.
      resize: "squash" or "pad".
      quality: JPEG quality; 0 for no loss.
    """

    size: int
    resize: str
    quality: int


def read_upload(path: Path, form: ImageForm) -> np.ndarray:
    """Reads an image as preparation would have stored it.

    Args:
      path: The file.
      form: The form of the models' data.

    Returns:
      Pixels, uint8 [S, S, 3].

    Raises:
      UsageError: The file is too large, is no image, or is damaged; the message says what to do.
    """
    size = path.stat().st_size
    if size > MAX_UPLOAD_BYTES:
        raise UsageError(
            f"{size / 2**20:.0f} MiB are more than {MAX_UPLOAD_BYTES // 2**20}; make the image smaller"
        )
    try:
        return decode_like_stored(path.read_bytes(), size=form.size, resize=form.resize, quality=form.quality)
    except BadImageError as error:
        raise UsageError(f"This file cannot be used: {error}") from error
    except Exception as error:  # each library for images has errors of its own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise UsageError(f"This image is damaged or too large: {reason}") from error

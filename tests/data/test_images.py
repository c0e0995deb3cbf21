"""Single images: shapes, kinds of pixels, orientation."""

import io

import numpy as np
import pytest
from PIL import Image

from fairkd_jax.data.images import BadImageError, decode_image, decode_stored_image, encode_image


def encode(image, format="PNG", **options):
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L", "1", "P", "RGBA", "LA", "CMYK"])
def test_every_kind_becomes_rgb(picture, mode):
    image = Image.fromarray(picture(0)).convert("RGB" if mode == "LA" else mode)
    image = image.convert("LA") if mode == "LA" else image
    data = encode(image, "TIFF" if mode == "CMYK" else "PNG")
    assert decode_image(data, size=12, resize="squash").shape == (12, 12, 3)


def test_palette_with_transparency_and_sixteen_bits():
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([0, 0, 0, 250, 10, 20])
    pixels = decode_image(encode(palette, transparency=b"\x00\xff"), size=4, resize="squash")
    assert pixels[0, 0].tolist() == [250, 10, 20]
    deep = Image.fromarray(np.full((4, 4), 32768, np.uint16))
    assert decode_image(encode(deep), size=4, resize="squash")[0, 0].tolist() == [128, 128, 128]


def test_pixels_of_32_bits_are_refused():
    with pytest.raises(BadImageError, match="kind F"):
        decode_image(encode(Image.new("F", (4, 4)), "TIFF"), size=4, resize="squash")


def test_image_of_the_right_size_is_unchanged(picture):
    pixels = picture(1)
    data = encode_image(pixels, quality=0)
    np.testing.assert_array_equal(decode_image(data, size=20, resize="squash"), pixels)
    np.testing.assert_array_equal(decode_stored_image(data), pixels)


def test_storing_as_jpeg_loses_little_and_saves_much(picture):
    smooth = np.asarray(Image.fromarray(picture(1)).resize((96, 96), Image.Resampling.BICUBIC))
    data = encode_image(smooth, quality=90)
    assert len(data) < 0.7 * len(encode_image(smooth, quality=0))
    assert np.abs(decode_stored_image(data).astype(int) - smooth).mean() < 2


@pytest.mark.parametrize(("height", "width"), [(70, 90), (5, 7), (33, 100), (1, 9)])
def test_enlarging_and_strong_shrinking_are_pils_bicubic(picture, height, width):
    image = Image.fromarray(picture(3)).resize((width, height), Image.Resampling.BICUBIC)
    expected = np.asarray(image.resize((16, 16), Image.Resampling.BICUBIC), int)
    result = decode_image(encode(image), size=16, resize="squash")
    assert np.abs(result - expected).max() <= 2


@pytest.mark.parametrize("resize", ["squash", "pad"])
def test_photographs_are_close_to_the_slow_way(picture, resize):
    """Scaled decoding and bilinear shrinking against the whole image and an antialiased filter."""
    coarse = Image.fromarray(picture(4)).resize((400, 300), Image.Resampling.BICUBIC)
    data = encode(coarse, "JPEG", quality=95)
    result = decode_image(data, size=64, resize=resize)
    with Image.open(io.BytesIO(data)) as whole:
        height = 48 if resize == "pad" else 64
        inner = np.asarray(whole.resize((64, height), Image.Resampling.BICUBIC), int)
    top = (64 - height) // 2
    assert np.abs(result[top : top + height] - inner).mean() < 3
    assert result[:top].max(initial=0) == 0


def test_pad_keeps_the_aspect():
    data = encode(Image.new("RGB", (40, 20), (255, 255, 255)))
    padded = decode_image(data, size=16, resize="pad")
    np.testing.assert_array_equal(padded[:, 8, 0], [0] * 4 + [255] * 8 + [0] * 4)
    assert decode_image(data, size=16, resize="squash").min() == 255


def test_orientation_of_the_camera_is_honoured(picture):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter to the right
    pixels = picture(2, 20, 20)
    data = encode(Image.fromarray(pixels), "PNG", exif=exif)
    np.testing.assert_array_equal(decode_image(data, size=20, resize="squash"), np.rot90(pixels, -1))


def test_large_jpeg_is_shrunk_without_aliases():
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[::2] = 255
    shrunk = decode_image(encode(Image.fromarray(stripes), "JPEG", quality=95), size=32, resize="squash")
    assert np.abs(shrunk[4:-4].astype(int) - 128).max() < 12

"""Single images: shapes, kinds of pixels, orientation."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from fairkd_jax.data.images import FORMATS, BadImageError, decode_image, decode_stored_image, encode_image


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


def write_deep_png(pixels):
    """A PNG of 16 bits per channel, which PIL cannot write: uint16 [H, W, 3]."""

    def chunk(kind, content):
        checksum = zlib.crc32(kind + content)
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)

    height, width, _ = pixels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("kind", ["grey PNG", "grey TIFF", "colour PNG"])
def test_sixteen_bits_of_which_a_camera_fills_fewer_are_refused_rather_than_black(bits, kind):
    values = np.linspace(0, 2**bits - 1, 16).astype(np.uint16).reshape(4, 4)
    if kind == "colour PNG":
        data = write_deep_png(np.repeat(values[:, :, None], 3, axis=2))
    else:
        data = encode(Image.fromarray(values), kind.split()[1])
    if bits == 16:
        pixels = decode_image(data, size=4, resize="squash")
        np.testing.assert_array_equal(pixels[:, :, 0], values // 256)
        return
    with pytest.raises(BadImageError, match=r"16 bits per channel, but no value above \d+% of the range"):
        decode_image(data, size=4, resize="squash")


def test_a_black_image_of_sixteen_bits_stays_black():
    data = encode(Image.fromarray(np.zeros((4, 4), np.uint16)))
    assert decode_image(data, size=4, resize="squash").max() == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_black_whatever_its_colour(mode):
    image = Image.new("RGBA", (4, 4), (250, 200, 100, 255))
    for place in ((0, 0), (1, 0), (2, 2)):
        image.putpixel(place, (250, 200, 100, 0))
    image.putpixel((3, 3), (250, 200, 100, 51))
    if mode == "P":
        image = Image.new("P", (4, 4), 1)
        image.putpalette([9, 9, 9, 250, 10, 20])
        image.putpixel((0, 0), 0)
        data = encode(image, transparency=0)
    else:
        data = encode(image.convert(mode))
    pixels = decode_image(data, size=4, resize="squash")
    assert pixels[0, 0].tolist() == [0, 0, 0]
    assert pixels[1, 1].max() > 200
    if mode in ("RGBA", "LA"):
        assert pixels[3, 3].max() == pytest.approx(pixels[1, 1].max() / 5, abs=1)


@pytest.mark.parametrize("format", ["EPS", "PDF", "ICO", "SGI", "TGA"])
def test_a_file_of_another_format_is_refused_whatever_its_name(format):
    data = encode(Image.new("RGB", (16, 16)), format)
    with pytest.raises(
        BadImageError, match="not an image of the formats JPEG, PNG, WEBP, BMP, TIFF, GIF, PPM"
    ):
        decode_image(data, size=4, resize="squash")


@pytest.mark.parametrize("format", FORMATS)
def test_each_format_is_read(format):
    pixels = decode_image(encode(Image.new("RGB", (16, 16), (200, 0, 0)), format), size=4, resize="squash")
    assert abs(pixels.astype(int) - [200, 0, 0]).max() < 10


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr("fairkd_jax.data.images.MAX_PIXELS", 99)
    assert decode_image(encode(Image.new("RGB", (9, 11))), size=4, resize="squash").shape == (4, 4, 3)
    with pytest.raises(BadImageError, match="10x10 pixels are more than 99"):
        decode_image(encode(Image.new("RGB", (10, 10))), size=4, resize="squash")


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

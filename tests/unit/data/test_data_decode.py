"""Every kind of image file becomes the RGB picture that people see, or a DataError with its name."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tlsearch.data import decode_rgb
from tlsearch.errors import DataError

ORIENTATION = 0x0112


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes | Image.Image) -> np.ndarray:
    image = decode_rgb(data, "x")
    assert image.mode == "RGB"
    return np.asarray(image)


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "WEBP"])
def test_rgb_is_unchanged(kind):
    want = noise(9, 7, 3)
    assert np.array_equal(
        pixels(encode(Image.fromarray(want), kind, **({"lossless": True} if kind == "WEBP" else {}))), want
    )


def test_jpeg_decodes_as_pillow_does():
    data = encode(Image.fromarray(noise(16, 16, 3)), "JPEG")
    assert np.array_equal(pixels(data), np.asarray(Image.open(BytesIO(data))))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "PPM", "TIFF", "GIF"])
def test_grey(kind):
    want = noise(9, 7)
    assert np.array_equal(pixels(encode(Image.fromarray(want), kind)), np.stack([want] * 3, axis=2))


def test_black_and_white():
    bits = noise(9, 7) > 127
    assert np.array_equal(pixels(encode(Image.fromarray(bits), "PNG"))[..., 1], bits * np.uint8(255))


def test_rgba_is_laid_on_white():
    rgba = noise(9, 7, 4)
    rgba[0, 0] = (10, 20, 30, 0)
    rgba[0, 1] = (10, 20, 30, 255)
    got = pixels(encode(Image.fromarray(rgba), "PNG"))
    alpha = rgba[..., 3:] / 255
    want = rgba[..., :3] * alpha + 255 * (1 - alpha)
    assert np.abs(got - want).max() <= 1
    assert got[0, 0].tolist() == [255, 255, 255]
    assert got[0, 1].tolist() == [10, 20, 30]


def test_grey_with_alpha_is_laid_on_white():
    image = Image.new("LA", (2, 1))
    image.putpixel((0, 0), (40, 255))
    image.putpixel((1, 0), (40, 0))
    assert pixels(encode(image, "PNG")).tolist() == [[[40] * 3, [255] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palette_with_transparency(kind):
    image = Image.new("P", (3, 1))
    image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.putdata([0, 1, 2])
    assert pixels(encode(image, kind)).tolist() == [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    assert pixels(encode(image, kind, transparency=1)).tolist() == [[[255, 0, 0], [255, 255, 255], [0, 0, 255]]]


def test_palette_with_half_transparent_colours():
    image = Image.new("P", (2, 1))
    image.putpalette([0, 0, 0, 100, 0, 0])
    image.putdata([0, 1])
    got = pixels(encode(image, "PNG", transparency=bytes([51, 255])))
    assert got.tolist() == [[[204, 204, 204], [100, 0, 0]]]


@pytest.mark.parametrize(("mode", "colour"), [("RGB", (1, 2, 3)), ("L", 7)])
def test_a_transparent_colour(mode, colour):
    image = Image.new(mode, (2, 1), colour)
    image.putpixel((1, 0), 9 if mode == "L" else (9, 9, 9))
    assert pixels(encode(image, "PNG", transparency=colour)).tolist() == [[[255] * 3, [9] * 3]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled(kind):
    values = np.array([[0, 257, 128, 129, 32768, 65535]], dtype=np.uint16)
    data = encode(Image.fromarray(values), kind)
    assert pixels(data)[0, :, 0].tolist() == [0, 1, 0, 1, 128, 255]


def test_16_bit_grey_of_the_other_byte_order():
    values = np.array([[0, 257, 65535]], dtype=">u2")
    image = Image.frombytes("I;16B", (3, 1), values.tobytes())
    assert pixels(image)[0, :, 0].tolist() == [0, 1, 255]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_pixels_without_a_range_are_refused(dtype):
    data = encode(Image.fromarray(np.zeros((2, 2), dtype=dtype)), "TIFF")
    with pytest.raises(DataError, match=r"^scan.tif: 32-bit pixels \(mode [IF]\) have no fixed range"):
        decode_rgb(data, "scan.tif")


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk(kind):
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # red
    got = pixels(encode(image, kind))
    assert np.abs(got.astype(int) - [255, 0, 0]).max() <= 3


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_rotation(kind, orientation):
    upright = np.zeros((32, 48, 3), dtype=np.uint8)
    upright[:16, :16] = (255, 0, 0)
    upright[16:, :16] = (0, 255, 0)
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    data = encode(Image.fromarray(np.ascontiguousarray(stored)), kind, exif=exif)
    got = pixels(data)
    assert got.shape == upright.shape
    assert np.abs(got[8::16, 8::16].astype(int) - upright[8::16, 8::16]).max() < 40


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_broken_exif_block_does_not_spoil_the_picture():
    image = Image.fromarray(noise(16, 16, 3))
    data = encode(image, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff junk")
    assert pixels(data).shape == (16, 16, 3)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_the_first_frame_counts(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert np.abs(pixels(data).astype(int) - [255, 0, 0]).max() <= 3


def test_an_opened_image_is_taken_too():
    want = noise(5, 4, 3)
    image = Image.fromarray(want)
    assert np.array_equal(pixels(image), want)
    assert image.mode == "RGB"


def test_the_suffix_does_not_matter():
    assert decode_rgb(encode(Image.new("RGB", (2, 2)), "JPEG"), "cat.png").size == (2, 2)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM"])
def test_truncated_files_are_named(kind):
    data = encode(Image.fromarray(noise(64, 64, 3)), kind)
    for length in (1, 3, len(data) // 3, len(data) // 2, len(data) * 9 // 10):
        with pytest.raises(DataError, match=r"^some/cat.jpg: "):
            decode_rgb(data[:length], "some/cat.jpg")


def test_empty_and_foreign_files_are_named():
    with pytest.raises(DataError, match=r"^a.png: the file is empty$"):
        decode_rgb(b"", "a.png")
    for data in (b"<html>404</html>", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", bytes(1000)):
        with pytest.raises(DataError, match=r"^a.png: is no image of a known format"):
            decode_rgb(data, "a.png")


def test_flipped_bytes_never_give_another_error():
    random = np.random.default_rng(1)
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    for kind in ("PNG", "JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        data = np.frombuffer(encode(Image.fromarray(noise(24, 24, 3)), kind, exif=exif), dtype=np.uint8)
        for _ in range(40):
            broken = data.copy()
            broken[random.integers(0, min(len(data), 300), 4)] = random.integers(0, 256, 4)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Pillow's, about metadata
                try:
                    decode_rgb(broken.tobytes(), "x")
                except DataError:
                    pass


def _png_header(width: int, height: int) -> bytes:
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(bytes(100))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (body, data)
    )


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bombs_are_named(side):
    with pytest.raises(DataError, match=r"^bomb.png: too many pixels: "):
        decode_rgb(_png_header(side, side), "bomb.png")

"""Every kind of image file becomes the RGB picture that people see, or a DataError with its name."""

from __future__ import annotations

import struct
import warnings
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from tlsearch.core.errors import DataError
from tlsearch.data import decode_rgb
from tlsearch.data.images.decode import inspect_image

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
        with pytest.raises(DataError, match=r"^a.png: is not an image of a known format"):
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


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bombs_are_named(side):
    limit = Image.MAX_IMAGE_PIXELS
    with pytest.raises(DataError, match=rf"^bomb.png: too many pixels: {side} x {side} .*set data.max_pixels"):
        decode_rgb(_png_header(side, side), "bomb.png")
    assert limit == Image.MAX_IMAGE_PIXELS  # other users of Pillow in this process keep theirs


KINDS = ["PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "AVIF"]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", KINDS)
def test_one_limit_for_describing_and_for_reading(kind):
    data = encode(Image.new("L", (100, 60)), kind)
    for read in (decode_rgb, lambda *a, **k: inspect_image(*a, draft=(8, 8), **k)):
        with pytest.raises(DataError, match=r"^x: too many pixels: 100 x 60 are 6,000, at most 5,999 are read"):
            read(data, "x", max_pixels=5_999)
    assert decode_rgb(data, "x", max_pixels=6_000).size == (100, 60)
    assert inspect_image(data, "x", max_pixels=6_000, draft=(8, 8)).size == (100, 60)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000)])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "PPM", "GIF", "JPEG"])
def test_long_and_thin_images_are_refused_by_both(kind, size):
    data = encode(Image.new("L", size), kind)
    for read in (decode_rgb, lambda *a: inspect_image(*a, draft=(8, 8))):
        with pytest.raises(DataError, match=r"^x: too long and thin: .*at most 10,000 times the shorter"):
            read(data, "x")


@pytest.mark.filterwarnings("error")
def test_more_than_pillows_limit_is_read_where_the_option_allows_it():
    data = encode(Image.new("1", (12_000, 9_000)), "PNG")
    with pytest.raises(DataError, match="too many pixels"):
        decode_rgb(data, "x")
    assert inspect_image(data, "x", max_pixels=108_000_000, draft=(8, 8)).size == (12_000, 9_000)


def test_what_the_file_says_is_kept():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    got = inspect_image(encode(Image.new("L", (640, 320)), "JPEG", exif=exif), "x", draft=(64, 64))
    assert (got.size, got.mode, got.frames) == ((320, 640), "L", 1)
    assert got.rgb.size[0] < 320  # decoded at a part of its size
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue", "lime")]
    assert (
        inspect_image(encode(frames[0], "GIF", save_all=True, append_images=frames[1:]), "x", draft=(8, 8)).frames == 3
    )


def _chunk(name: bytes, body: bytes, *, checksum: int | None = None) -> bytes:
    crc = zlib.crc32(body, zlib.crc32(name)) if checksum is None else checksum
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)


def _png_with(*chunks: bytes, last: bool = False) -> tuple[bytes, np.ndarray]:
    want = noise(9, 7, 3)
    data = encode(Image.fromarray(want), "PNG")
    at = len(data) - 12 if last else 33  # before IEND, or behind IHDR
    return data[:at] + b"".join(chunks) + data[at:], want


HUGE = bytes(3_000_000)
ANCILLARY = {
    "zTXt": _chunk(b"zTXt", b"Comment\0\0" + zlib.compress(HUGE)),
    "iTXt": _chunk(b"iTXt", b"Comment\0\1\0\0\0" + zlib.compress(HUGE)),
    "iCCP": _chunk(b"iCCP", b"profile\0\0" + zlib.compress(HUGE)),
    "tEXt": b"".join(_chunk(b"tEXt", b"k%d\0" % i + b"x" * 3_000_000) for i in range(23)),
    "broken checksum": _chunk(b"tEXt", b"Comment\0hello", checksum=1),
    "no zlib": _chunk(b"iCCP", b"profile\0\0junk"),
    "unknown": _chunk(b"prVt", b"junk", checksum=1),
    "gamma": _chunk(b"gAMA", b""),
    "resolution": _chunk(b"pHYs", b"\0"),
}


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("name", ANCILLARY)
def test_a_png_is_good_if_its_pixels_are(name, last):
    data, want = _png_with(ANCILLARY[name], last=last)
    assert np.array_equal(pixels(data), want)


def test_a_png_cut_off_behind_its_pixels_is_good():
    data, want = _png_with(_chunk(b"tEXt", b"Comment\0" + bytes(500)), last=True)
    for missing in (5, 12, 13, 100, 300):
        assert np.array_equal(pixels(data[:-missing]), want)


def test_the_orientation_outlives_a_refused_text():
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    data = encode(Image.fromarray(noise(9, 7, 3)), "PNG", exif=exif)
    data = data[:33] + ANCILLARY["zTXt"] + data[33:]
    assert decode_rgb(data, "x").size == (9, 7)


@pytest.mark.parametrize("tail", [b"\0" * 1000, b"garbage", b"\xff\xd8\xff\xe0"])
def test_bytes_behind_a_jpeg_do_not_matter(tail):
    data = encode(Image.fromarray(noise(16, 16, 3)), "JPEG")
    assert np.array_equal(pixels(data + tail), pixels(data))


def test_a_photo_with_a_preview_is_read_as_the_photo():
    photo, preview = Image.fromarray(noise(32, 32, 3)), Image.new("RGB", (8, 8))
    data = encode(photo, "MPO", save_all=True, append_images=[preview])
    assert pixels(data).shape == (32, 32, 3)
    assert inspect_image(data, "x", draft=(8, 8)).frames == 1


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize("top", [1023, 4095, 65535])
def test_the_brightest_value_of_16_bit_files_is_known(kind, top):
    values = np.linspace(0, top, 12, dtype=np.uint16).reshape(3, 4)
    assert inspect_image(encode(Image.fromarray(values), kind), "x", draft=(8, 8)).brightest == top
    assert inspect_image(encode(Image.fromarray(noise(3, 4)), kind), "x", draft=(8, 8)).brightest is None


def _png_of_16_bit_colours(top: int) -> bytes:
    row = b"\0" + struct.pack(">6H", 0, top, 0, 0, 0, 0)
    header = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (_chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(row)), _chunk(b"IEND", b""))
    )


def test_16_bit_colours_keep_their_upper_byte():
    assert pixels(_png_of_16_bit_colours(0x1234))[0, 0].tolist() == [0, 0x12, 0]
    assert inspect_image(_png_of_16_bit_colours(4095), "x", draft=(8, 8)).brightest <= 4095


def _heif(brand: bytes, *others: bytes) -> bytes:
    brands = brand + bytes(4) + b"".join(others)
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + bytes(200)


@pytest.mark.parametrize("data", [_heif(b"heic", b"mif1", b"heic"), _heif(b"mif1", b"heic"), _heif(b"msf1")])
def test_a_missing_decoder_is_named(data, monkeypatch):
    monkeypatch.setattr("tlsearch.data.images.decode.has_decoder", lambda _: False)
    with pytest.raises(DataError, match=r"^a.heic: HEIF needs pillow-heif \(pip install pillow-heif\), or convert"):
        decode_rgb(data, "a.heic")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<!DOCTYPE html><html>404</html>", "an HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "a Git LFS pointer"),
        (b"PK\x03\x04" + bytes(50), "a ZIP archive"),
        (b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(50), "a JPEG 2000 image"),
        (b"<?xml version='1.0'?><svg></svg>", "an SVG drawing"),
        (bytes(1000), "only zero bytes"),
        (_heif(b"isom", b"mp42"), "a video"),
        (bytes(128) + b"DICM" + bytes(50), "a DICOM file"),
        (b"404: not found", "text"),
    ],
)
def test_what_a_file_is_instead_of_an_image_is_said(data, words):
    with pytest.raises(DataError, match=rf"^a.jpg: is not an image of a known format .*; it is {words}"):
        decode_rgb(data, "a.jpg")

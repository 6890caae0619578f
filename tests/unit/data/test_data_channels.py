"""Images of other channels and of 16 bits: their own values from the file to the model, clear errors for mixtures."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps

from tlsearch.core.errors import DataError
from tlsearch.core.types import RGB8, CacheSpec, DataSpec, PixelFormat, TransformSpec
from tlsearch.data import (
    as_tensor,
    augment,
    data_card,
    data_transform,
    decode_image,
    decode_rgb,
    eval_image,
    find_pixels,
    load_index,
    measure_channels,
    normalise,
    open_pixels,
    picture_of,
)
from tlsearch.data.images import arrays
from tlsearch.data.images.own_channels import own_pixels, stored_pixels
from tlsearch.data.images.trivial_augment import distort
from tlsearch.node_cache.store import close

DEEP5 = PixelFormat(channels=5, bits=16)
RESIZE = TransformSpec(resize_size=20, crop_size=16)


def noise(*shape: int, dtype: Any = np.uint16, seed: int = 0) -> NDArray[Any]:
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, shape, dtype=dtype)


def npy(array: NDArray[Any]) -> bytes:
    file = BytesIO()
    np.save(file, array)
    return file.getvalue()


def tiff(array: NDArray[Any], **options: Any) -> bytes:
    tifffile = pytest.importorskip("tifffile")
    file = BytesIO()
    tifffile.imwrite(file, array, **options)
    return file.getvalue()


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    file = BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def deep_png(values: NDArray[np.uint16]) -> bytes:
    """A PNG of 16-bit RGB, which Pillow cannot write."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return len(body).to_bytes(4, "big") + name + body + zlib.crc32(name + body).to_bytes(4, "big")

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    head = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


# --- decoding ----------------------------------------------------------------------------------


@pytest.mark.parametrize("array", [noise(9, 7), noise(9, 7, 1), noise(9, 7, 5), noise(9, 7, 2, dtype=np.uint8)])
def test_an_array_is_read_as_it_is(array: NDArray[Any]) -> None:
    want = array if array.ndim == 3 else array[..., None]
    for stored in (array, np.asfortranarray(array), array.astype(array.dtype.newbyteorder(">"))):
        got = own_pixels(npy(stored), "x")
        assert got.dtype == array.dtype and np.array_equal(got, want)


@pytest.mark.parametrize(
    ("shape", "last"), [((5, 9, 7), False), ((6, 6, 20), True), ((20, 6, 6), False), ((9, 7, 5), True)]
)
def test_channels_are_found_first_or_last(shape: tuple[int, int, int], last: bool) -> None:
    array = noise(*shape)
    assert np.array_equal(own_pixels(npy(array), "x"), array if last else np.moveaxis(array, 0, 2))


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.full((4, 4), np.nan, dtype=np.float32), r"float32 \(16 of them NaN\) have no fixed range: scale them"),
        (np.zeros((4, 4), dtype=np.int16), "the type int16 have no fixed range"),
        (np.zeros((4, 4, 3, 2), dtype=np.uint8), r"has the dimensions .* this array has the shape \(4, 4, 3, 2\)"),
        (np.array([[None]]), "holds Python objects, which are not read"),
    ],
)
def test_arrays_that_are_no_images_are_refused(array: NDArray[Any], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        own_pixels(npy(array), "scans/a.npy")
    assert str(caught.value).startswith("scans/a.npy: ")


def test_a_head_that_promises_more_than_the_file_has_takes_no_memory() -> None:
    data = npy(noise(9, 7))
    with pytest.raises(DataError, match="truncated"):
        own_pixels(data[:-1], "x")
    bomb = npy(np.zeros((1, 1), dtype=np.uint8)).replace(b"(1, 1)", b"(999, 999)")
    with pytest.raises(DataError, match="truncated|broken"):
        own_pixels(bomb, "x")
    with pytest.raises(DataError, match="too many pixels: 9 x 7"):
        own_pixels(npy(noise(7, 9)), "x", max_pixels=62)
    with pytest.raises(DataError, match="1 to 512 channels, not 600"):
        own_pixels(npy(np.zeros((8, 8, 600), dtype=np.uint8)), "x")


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_of_16_bits_keeps_its_values(kind: str) -> None:
    values = noise(9, 7)
    data = encoded(Image.fromarray(values), kind)
    assert stored_pixels(data, "x").pixels == PixelFormat(channels=1, bits=16)
    assert np.array_equal(own_pixels(data, "x")[..., 0], values)
    # As RGB of 8 bits it is what it always was.
    assert np.array_equal(np.asarray(decode_image(data, "x")), np.asarray(decode_rgb(data, "x")))


def test_colours_of_16_bits_keep_their_values() -> None:
    values = noise(9, 7, 3)
    assert np.array_equal(own_pixels(deep_png(values), "x"), values)
    assert np.array_equal(own_pixels(tiff(values, photometric="rgb"), "x"), values)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("planar", ["contig", "separate", "pages"])
def test_multispectral_tiff(dtype: Any, planar: str) -> None:
    values = noise(12, 10, 5, dtype=dtype)
    if planar == "contig":
        data = tiff(values, photometric="minisblack", planarconfig="contig")
    elif planar == "separate":
        data = tiff(np.moveaxis(values, 2, 0), photometric="minisblack", planarconfig="separate")
    else:
        data = tiff(np.moveaxis(values, 2, 0), photometric="minisblack")
    assert np.array_equal(own_pixels(data, "x"), values)


def test_a_tiff_is_turned_upright() -> None:
    values = noise(12, 10, 5)
    data = tiff(values, photometric="minisblack", planarconfig="contig", extratags=[(274, "H", 1, 6, True)])
    assert np.array_equal(own_pixels(data, "x"), np.rot90(values, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation: int) -> None:
    exif, image = Image.Exif(), Image.fromarray(noise(9, 7, 4, dtype=np.uint8))
    exif[0x0112] = orientation
    want = ImageOps.exif_transpose(Image.open(BytesIO(encoded(image, exif=exif))))
    data = encoded(image, exif=exif)
    assert np.array_equal(own_pixels(data, "x"), np.asarray(want))


@pytest.mark.parametrize(
    ("mode", "channels"), [("1", 1), ("L", 1), ("LA", 2), ("P", 3), ("RGB", 3), ("RGBA", 4), ("CMYK", 4)]
)
def test_channels_of_pictures(mode: str, channels: int) -> None:
    image = Image.fromarray(noise(9, 7, 3, dtype=np.uint8)).convert(mode)
    data = encoded(image, "TIFF" if mode == "CMYK" else "PNG")
    stored = stored_pixels(data, "x")
    assert stored.is_picture and stored.pixels == PixelFormat(channels=channels)
    assert own_pixels(data, "x").shape == (9, 7, channels)


def test_an_image_of_other_channels_is_refused() -> None:
    words = "has 3 channels of 8 bits; this data set and its models take 5 channels of 16 bits"
    with pytest.raises(DataError, match=words):
        decode_image(encoded(Image.new("RGB", (4, 4))), "a.png", pixels=DEEP5)
    with pytest.raises(DataError, match="has 1 channel of 16 bits"):  # nothing is cut to 8 bits
        decode_image(npy(noise(4, 4)), "a.npy", pixels=PixelFormat(channels=1))
    scaled = decode_image(npy(np.full((4, 4), 255, dtype=np.uint8)), "a.npy", pixels=PixelFormat(channels=1, bits=16))
    assert np.asarray(scaled).dtype == np.uint16 and (np.asarray(scaled) == 65535).all()


def test_an_array_of_rgb_is_a_picture() -> None:
    values = noise(9, 7, 3, dtype=np.uint8)
    image = decode_image(npy(values), "x")
    assert isinstance(image, Image.Image) and np.array_equal(np.asarray(image), values)


def test_what_people_see_of_an_image() -> None:
    image = np.zeros((4, 4, 5), dtype=np.uint16)
    image[0, 0], image[1, 1] = 30_000, 30_100
    image[2:] = 30_050
    seen = np.asarray(picture_of(image))
    assert seen.shape == (4, 4, 3) and seen[1, 1].tolist() == [255] * 3
    grey = np.asarray(picture_of(noise(4, 4, 1)))
    assert grey.min() == 0 and grey.max() == 255 and (grey[..., 0] == grey[..., 2]).all()


# --- preprocessing and augmentation --------------------------------------------------------------


@pytest.mark.parametrize("size", [(40, 30), (12, 10), (16, 400)])
def test_channels_are_resized_as_those_of_rgb(size: tuple[int, int]) -> None:
    values = noise(size[1], size[0], 3, dtype=np.uint8)
    want = eval_image(Image.fromarray(values), RESIZE)
    assert np.array_equal(eval_image(values, RESIZE), want)
    deep = eval_image(values.astype(np.uint16) * 257, RESIZE)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - want).max() <= 1.01  # Pillow rounds to 8 bits twice


def test_a_narrow_band_of_16_bits_survives() -> None:
    values = 30_000 + noise(40, 40, 2, dtype=np.uint8).astype(np.uint16)
    spec = RESIZE.for_pixels(PixelFormat(channels=2, bits=16), (30_100 / 65535,) * 2, (70 / 65535,) * 2)
    seen = normalise(as_tensor(eval_image(values, spec)[None]).permute(0, 3, 1, 2), spec)
    crushed = (values.astype(np.uint32) * 255 + 32767) // 65535
    assert len(np.unique(crushed)) == 2  # nothing is left of it in 8 bits
    assert seen.shape == (1, 2, 16, 16) and 0.3 < float(seen.std()) < 2


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_values_above_half_of_16_bits_are_normalised(layout: torch.memory_format) -> None:
    values = np.array([0, 1, 32767, 32768, 65535], dtype=np.uint16).reshape(1, 1, 1, 5).repeat(4, axis=1)
    spec = TransformSpec(resize_size=4, crop_size=4, mean=(0.5,) * 5, std=(0.25,) * 5, bits=16)
    images = as_tensor(values).permute(0, 3, 1, 2).contiguous(memory_format=layout)
    want = (torch.tensor([0, 1, 32767, 32768, 65535]) / 65535 - 0.5) / 0.25
    assert torch.allclose(normalise(images, spec)[0, :, 0, 0], want, atol=1e-6)


@pytest.mark.parametrize("kind", ["light", "strong"])
@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (2, np.uint16), (5, np.uint8), (5, np.uint16)])
def test_augmentation_of_any_channels(kind: str, channels: int, dtype: Any) -> None:
    images = as_tensor(noise(6, 40, 40, channels, dtype=dtype)).permute(0, 3, 1, 2)
    mean = (0.5,) * channels
    first = augment(images, kind, 32, torch.Generator().manual_seed(0), mean=mean)
    assert first.shape == (6, channels, 32, 32) and first.dtype == images.dtype
    assert torch.equal(augment(images, kind, 32, torch.Generator().manual_seed(0), mean=mean), first)
    assert not torch.equal(augment(images, kind, 32, torch.Generator().manual_seed(1), mean=mean), first)


def test_strong_augmentation_keeps_a_narrow_band() -> None:
    """What is moved in or erased has the mean, contrast moves towards the image's own: nothing leaves the band."""
    values = 40_000 + noise(64, 32, 32, 2, dtype=np.uint8).astype(np.uint16)
    images = as_tensor(values).permute(0, 3, 1, 2)
    seen = distort(images, torch.arange(64), (40_128 / 65535,) * 2).numpy().view(np.uint16)
    assert not np.array_equal(seen, values.transpose(0, 3, 1, 2))
    assert 39_700 < seen.min() and seen.max() < 40_600


# --- data sets -----------------------------------------------------------------------------------

Write = Callable[..., Path]


@pytest.fixture
def write_set(tmp_path: Path) -> Write:
    """Folders a and b, 8 images each, of arrays that ``make`` gives by number."""

    def write(make: Callable[[int], NDArray[Any]], name: str = "set") -> Path:
        for label in ("a", "b"):
            (tmp_path / name / label).mkdir(parents=True)
            for number in range(8):
                np.save(tmp_path / name / label / f"{number}.npy", make(number))
        return tmp_path / name

    return write


def spec_of(path: Path, **options: Any) -> DataSpec:
    return DataSpec(source="folder", path=str(path), **options)


def test_the_images_say_their_channels(write_set: Write) -> None:
    spec = spec_of(write_set(lambda number: noise(12, 10, 5, seed=number)))
    index = load_index(spec)
    assert find_pixels(index, spec) == DEEP5
    assert find_pixels(index, spec_of(Path(index.root), channels=5)) == DEEP5
    with pytest.raises(DataError, match="here channels 4; these have:\n  5 channels of 16 bits: 14 "):
        find_pixels(index, spec_of(Path(index.root), channels=4))


def test_pictures_are_rgb_unless_their_channels_are_asked_for(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number, mode in enumerate(("L", "LA", "P", "RGB", "RGBA", "L", "L", "RGB")):
            image = Image.fromarray(noise(9, 7, 3, dtype=np.uint8, seed=number)).convert(mode)
            image.save(tmp_path / label / f"{number}.png")
    spec = spec_of(tmp_path)
    index = load_index(spec)
    assert find_pixels(index, spec) == RGB8 == find_pixels(index, spec_of(tmp_path, channels=3))
    with pytest.raises(DataError, match="3 and 8 read every picture as RGB of 8 bits") as caught:
        find_pixels(index, spec_of(tmp_path, channels=1))
    assert "  1 channel of 8 bits: " in str(caught.value) and ".png" in str(caught.value)


def test_a_mixed_folder_is_refused_with_numbers_and_examples(write_set: Write) -> None:
    def make(number: int) -> NDArray[Any]:
        return noise(12, 10, 5 if number % 4 else 3, dtype=np.uint8)

    spec = spec_of(write_set(make))
    with pytest.raises(DataError) as caught:
        find_pixels(load_index(spec), spec)
    first, *kinds, last = str(caught.value).splitlines()
    assert first.startswith("all images of a data set have the same channels and bits")
    assert [kind.split(": ")[0].strip() for kind in kinds] == ["5 channels of 8 bits", "3 channels of 8 bits"]
    assert ".npy" in kinds[0] and last.startswith("convert or remove some")


def test_bits_of_8_and_16_together_need_a_word(write_set: Write) -> None:
    spec = spec_of(write_set(lambda number: noise(12, 10, 2, dtype=np.uint16 if number % 2 else np.uint8)))
    index = load_index(spec)
    with pytest.raises(DataError, match="2 channels of 8 bits"):
        find_pixels(index, spec)
    assert find_pixels(index, spec_of(Path(index.root), bits=16)) == PixelFormat(channels=2, bits=16)


def test_16_bit_files_are_crushed_only_where_that_is_asked_for(tmp_path: Path) -> None:
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        for number in range(8):
            Image.fromarray(noise(9, 7, seed=number)).save(tmp_path / label / f"{number}.png")
    index = load_index(spec_of(tmp_path))
    assert find_pixels(index, spec_of(tmp_path)) == PixelFormat(channels=1, bits=16)
    assert find_pixels(index, spec_of(tmp_path, bits=8)) == RGB8
    assert find_pixels(index, spec_of(tmp_path, channels=3, bits=8)) == RGB8


def test_mean_and_deviation_of_each_channel(write_set: Write) -> None:
    def make(number: int) -> NDArray[Any]:
        image = np.zeros((12, 10, 3), dtype=np.uint16)
        image[..., 0], image[:6, :, 1], image[..., 2] = 1000, 2000, 7
        return image

    index = load_index(spec_of(write_set(make), channels=3, bits=16))
    mean, std = measure_channels(index)
    assert mean == pytest.approx([1000 / 65535, 1000 / 65535, 7 / 65535], abs=1e-8)
    assert std == pytest.approx([1, 1000 / 65535, 1], abs=1e-8)  # a constant channel is not divided by nothing


def test_all_images_that_cannot_be_measured_are_named(write_set: Write) -> None:
    root = write_set(lambda number: noise(12, 10, 5, seed=number))
    index = load_index(spec_of(root, channels=5, bits=16))
    broken = [Path(index.root) / key for key in index.splits["train"].keys[:2]]
    for file in broken:
        file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataError) as caught:
        measure_channels(index)
    assert all(str(file) in str(caught.value) for file in broken)


def test_packed_images_and_their_card(write_set: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = spec_of(write_set(lambda number: noise(24, 20, 5, seed=number)), channels=5, bits=16)
    index = load_index(spec)
    pixels = open_pixels(index, "train", RESIZE, CacheSpec())
    assert pixels.images.shape == (len(pixels.labels), 5, 16, 16)
    stored = pixels.images[:1].permute(0, 2, 3, 1).numpy().view(np.uint16)[0]
    key = index.splits["train"].keys[0]
    assert np.array_equal(stored, eval_image(np.load(Path(index.root, key)), RESIZE))
    streamed = open_pixels(index, "train", RESIZE, CacheSpec(images_gb=0))
    assert torch.equal(streamed.images[:4], pixels.images[:4])
    close()
    card = data_card(index, scan=True, include_test=True)
    assert (card.channels, card.bits, dict(card.modes)) == (5, 16, {"5 x uint16": 16})
    assert not card.corrupt and any("5 channels of 16 bits, values up to 65,5" in note for note in card.notes)


def test_doubles_are_found_among_arrays(write_set: Write) -> None:
    path = write_set(lambda number: noise(24, 20, 5, seed=number))
    spec = spec_of(path, channels=5, bits=16)
    card = data_card(load_index(spec), scan=True, include_test=True)
    assert len(card.leaks) + len(card.duplicates) == 8  # both folders hold the same


def test_the_entries_of_rgb_are_those_of_earlier_versions(ready_folder: Path) -> None:
    from tlsearch.data.packed.packed import _key

    index = load_index(spec_of(ready_folder))
    assert set(_key(index, "train", RESIZE)) == {
        *("format", "digest", "split", "resize_size", "side", "interpolation", "crop_mode", "pillow", "torchvision")
    }
    assert "bits" not in RESIZE.as_json()


def test_the_transform_of_a_data_set() -> None:
    weights = TransformSpec(resize_size=256, crop_size=224)
    assert data_transform(weights, DataSpec(source="folder"), None) == weights
    deep = DataSpec(source="folder", channels=2, bits=16, mean=(0.1, 0.2), std=(0.3, 0.4))
    spec = data_transform(weights, deep, 112)
    assert (spec.mean, spec.std, spec.bits, spec.crop_size) == ((0.1, 0.2), (0.3, 0.4), 16, 112)
    unmeasured = data_transform(weights, DataSpec(source="folder", channels=1), None)
    assert unmeasured.mean == pytest.approx([0.449], abs=1e-3) and unmeasured.channels == 1


def test_heads_of_arrays_are_parsed_one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The parser of Python's literals raises a SystemError where threads share it."""
    parse, locked = np.lib.format.read_array_header_1_0, []

    def watched(file: BytesIO) -> Any:
        locked.append(arrays._LITERALS.locked())
        return parse(file)

    monkeypatch.setattr(np.lib.format, "read_array_header_1_0", watched)
    file = BytesIO()
    np.save(file, np.zeros((4, 5, 3), dtype=np.uint8))
    assert arrays.npy_head(file.getvalue(), "a.npy").shape == (4, 5, 3)
    assert locked == [True] and not arrays._LITERALS.locked()

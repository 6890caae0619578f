"""Threads that decode share one budget of pixels; conversions need no whole copies, and change no pixel."""

from __future__ import annotations

import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from io import BytesIO
from threading import Event, Lock

import numpy as np
import pytest
from PIL import Image

from tlsearch.core.errors import DataError
from tlsearch.data import decode_rgb
from tlsearch.data.images import channels, decode, pixel_budget
from tlsearch.data.images.decode import inspect_image
from tlsearch.data.images.own_channels import num_pixels
from tlsearch.data.images.pixel_budget import PixelBudget, num_decoders


def _png(image: Image.Image, **options: object) -> bytes:
    file = BytesIO()
    image.save(file, "PNG", **options)
    return file.getvalue()


def test_no_more_pixels_than_the_budget_are_held() -> None:
    budget, lock, held, most = PixelBudget(100), Lock(), 0, 0

    def work(pixels: int) -> None:
        nonlocal held, most
        with budget.take(pixels):
            with lock:
                held += min(pixels, 100)
                most = max(most, held)
            with lock:
                held -= min(pixels, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [1, 60, 30, 250, 10, 99] * 50))
    assert most <= 100 and held == 0
    with budget.take(100):
        pass


def test_small_ones_that_come_later_do_not_keep_a_large_one_waiting() -> None:
    budget, order, moment = PixelBudget(100), [], Event()

    def take(name: str, pixels: int) -> None:
        with budget.take(pixels):
            order.append(name)

    with ThreadPoolExecutor(2) as pool:
        with budget.take(60):
            large = pool.submit(take, "large", 100)
            while not budget._waiting:
                moment.wait(0.001)
            small = pool.submit(take, "small", 1)
            while len(budget._waiting) < 2:
                moment.wait(0.001)
            assert order == []
        large.result()
        small.result()
    assert order == ["large", "small"]


def test_a_budget_can_be_made_smaller() -> None:
    budget = PixelBudget(100)
    budget.limit(40)
    budget.limit(1000)
    with budget.take(90):
        assert budget._free == 0
    assert budget._free == 40


def test_an_image_holds_its_part_until_it_is_small(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = PixelBudget(1000)
    monkeypatch.setattr(decode, "BUDGET", budget)
    data = _png(Image.new("RGB", (20, 10)))
    for read in (
        lambda hold: decode_rgb(data, "x", hold=hold),
        lambda hold: inspect_image(data, "x", draft=(8, 8), hold=hold),
    ):
        with ExitStack() as hold:
            read(hold)
            assert budget._free == 800
        assert budget._free == 1000
    decode_rgb(data, "x")
    assert budget._free == 1000


def test_what_cannot_be_read_gives_its_part_back(monkeypatch: pytest.MonkeyPatch) -> None:
    budget = PixelBudget(100)  # less than the image: a second part would wait for the first for ever
    monkeypatch.setattr(decode, "BUDGET", budget)
    whole = _png(Image.new("RGB", (20, 10)))
    broken = whole.replace(b"IDAT", b"IDAX")
    text = b"tEXt" + b"a" * 9
    odd = whole[:33] + (9).to_bytes(4, "big") + text + (zlib.crc32(text) ^ 1).to_bytes(4, "big") + whole[33:]
    for data in (broken, whole[:50], b"", b"GIF89a"):
        with ExitStack() as hold, pytest.raises(DataError):
            decode_rgb(data, "x", hold=hold)
        assert budget._free == 100
    assert decode_rgb(odd, "x").size == (20, 10)
    assert budget._free == 100


def test_the_budget_lets_a_photo_a_processor_and_one_of_the_largest_images() -> None:
    assert pixel_budget.usual_pixels() >= max(16_000_000 * num_decoders(), 89_478_485)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB", "L", "I;16", "CMYK"])
def test_bands_change_no_pixel(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (37, 23, 4), dtype=np.uint8)
    image, options = Image.fromarray(noise, "RGBA"), {}
    if mode == "P":
        image, options = image.convert("RGB").quantize(64), {"transparency": bytes(range(0, 128, 2))}
    elif mode == "I;16":
        image = Image.fromarray(noise[..., :2].copy().view(np.uint16)[..., 0])
    elif mode in ("RGB", "L"):
        image, options = image.convert(mode), {"transparency": (1, 2, 3) if mode == "RGB" else 7}
    elif mode != "RGBA":
        image = image.convert(mode)
    file = BytesIO()
    image.save(file, "TIFF" if mode == "CMYK" else "PNG", **options)
    whole = np.asarray(decode_rgb(file.getvalue(), "x"))
    monkeypatch.setattr(channels, "_BAND_PIXELS", 50)
    assert np.array_equal(np.asarray(decode_rgb(file.getvalue(), "x")), whole)
    if mode in ("RGBA", "LA", "P"):
        full = Image.open(BytesIO(file.getvalue())).convert("RGBA")
        white = Image.alpha_composite(Image.new("RGBA", full.size, "white"), full).convert("RGB")
        assert np.array_equal(np.asarray(white), whole)


def test_pixels_are_counted_by_the_head_alone() -> None:
    data = _png(Image.new("L", (300, 20)))
    assert num_pixels(data[:60], "x") == 6000
    for nothing in (b"", b"no image"):
        with pytest.raises(DataError, match="^x: "):
            num_pixels(nothing, "x")

"""Small image folders for the tests of the data room."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tlsearch.node_cache.store import close

WriteImages = Callable[..., list[Path]]


@pytest.fixture(autouse=True)
def _no_open_handles() -> Iterator[None]:
    yield
    close()


@pytest.fixture
def write_images() -> WriteImages:
    """Writes ``count`` different noise PNGs ``00.png, 01.png ...`` into a folder."""

    def write(folder: Path, count: int, *, size: tuple[int, int] = (12, 10), suffix: str = ".png") -> list[Path]:
        folder.mkdir(parents=True, exist_ok=True)
        random = np.random.default_rng(list(str(folder).encode()))
        paths = []
        for i in range(count):
            pixels = random.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            paths.append(folder / f"{i:02d}{suffix}")
            Image.fromarray(pixels).save(paths[-1])
        return paths

    return write


@pytest.fixture
def ready_folder(tmp_path: Path, write_images: WriteImages) -> Path:
    """train/ (6 each), val/ (3 each) and test/ (2 each) with the classes a and b."""
    root = tmp_path / "images"
    for split, count in (("train", 6), ("val", 3), ("test", 2)):
        for name in ("a", "b"):
            write_images(root / split / name, count)
    return root

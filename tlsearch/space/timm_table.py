"""timm's backbones that can be cut into stages, from a data file that is read on first use.

The file's first line is the version of timm that it was made from. Then, below each of timm's modules in brackets, a
line for each model: name, ``bn`` or ``-``, the crop of its default weights, the smallest image, what image sizes are
multiples of (0: its own size alone), and the tags of its weights, the default ones first, ``tag:crop`` where a tag has
another crop. Left out are models that no staging rule fits, and weights whose preprocessing is of another kind.
A test compares the file with timm as installed, and says how to write it anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.metadata import PackageNotFoundError, version

TIMM_MODELS_FILE = "timm_models.txt"


@dataclass(frozen=True, kw_only=True)
class TimmRow:
    """One line of the file.

    Attributes:
        name: timm's name.
        module: timm's module of the family, e.g. ``vision_transformer``.
        versions: Crop of each tag's weights in pixels, the default ones first.
    """

    name: str
    module: str
    has_batch_norm: bool
    image_size: int
    min_size: int
    size_multiple: int
    versions: Mapping[str, int]


def timm_rows() -> Iterator[TimmRow]:
    """The rows of the file, in its order."""
    module = ""
    for line in _lines()[1:]:
        if line.startswith("["):
            module = line.strip("[]")
            continue
        name, norm, *numbers = line.split(" ")
        size, smallest, multiple = map(int, numbers[:3])
        tags = (one.partition(":") for one in numbers[3:])
        yield TimmRow(
            name=name,
            module=module,
            has_batch_norm=norm == "bn",
            image_size=size,
            min_size=smallest,
            size_multiple=multiple,
            versions={tag: int(own or size) for tag, _, own in tags},
        )


def timm_is_newer() -> bool:
    """Whether the installed timm is newer than the file: it may then know tags that the file does not."""
    try:
        return _numbers(version("timm")) > _numbers(_lines()[0].split(" ")[1])
    except PackageNotFoundError:
        return False


def _lines() -> list[str]:
    return resources.files(__package__).joinpath(TIMM_MODELS_FILE).read_text(encoding="utf-8").splitlines()


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".") if part.isdigit())

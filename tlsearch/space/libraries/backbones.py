"""What is known of every backbone without building it: a static table, so that no torch is needed.

Tests compare the table with torchvision and timm as installed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from tlsearch.space.libraries.backbone_tables import TORCHVISION, timm_rows

TIMM = "timm/"

_MIN_SIZE: Mapping[str, int] = {"alexnet": 63, "inception": 75, "efficientnet_v2": 33}


@dataclass(frozen=True, kw_only=True)
class BackboneFacts:
    """One backbone's facts.

    Attributes:
        name: As written in a space file, without a version.
        family: The architecture, e.g. ``resnet``.
        has_batch_norm: Whether ``bn_policy`` has an effect.
        has_class_token: Whether its classifier reads a class token, so that ``features`` has an effect.
        image_size: Crop of its weights' own transform, in pixels.
        min_size: Smallest image it can take, in pixels.
        size_multiple: Image sizes must be multiples of this, or ``image_size``; 1 is any, 0 is ``image_size`` exactly.
        versions: Crop of each of the library's named weights, the default ones first; empty where it
            publishes none.
    """

    name: str
    family: str
    has_batch_norm: bool
    has_class_token: bool
    image_size: int
    min_size: int = 32
    size_multiple: int = 1
    versions: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_timm(self) -> bool:
        """Whether the optional package timm builds it."""
        return self.name.startswith(TIMM)

    def valid_size(self, size: int) -> bool:
        """Whether it takes square images of ``size`` pixels."""
        fits = self.size_multiple > 0 and size >= self.min_size and size % self.size_multiple == 0
        return fits or size == self.image_size

    def size_rule(self) -> str:
        """The rule of ``valid_size`` in words."""
        if self.size_multiple == 0:
            return f"exactly {self.image_size} px"
        if self.size_multiple == 1:
            return f"at least {self.min_size} px"
        least = f" from {self.min_size} px" if self.min_size > self.size_multiple else ""
        own = f", and {self.image_size} px" if self.image_size % self.size_multiple else ""
        return f"multiples of {self.size_multiple} px{least}{own}"


def split_version(backbone: str) -> tuple[str, str | None]:
    """``resnet50@IMAGENET1K_V1`` as its name and its version, None without one.

    timm's own way to write a version, ``timm/resnet50.a1_in1k``, means the same as ``timm/resnet50@a1_in1k``.
    """
    name, _, version = backbone.partition("@" if "@" in backbone or not backbone.startswith(TIMM) else ".")
    return name, version or None


def backbone_facts(name: str) -> BackboneFacts | None:
    """The facts of a backbone, None for an unknown one; a known ``@VERSION`` sets ``image_size``."""
    plain, version = split_version(name)
    facts = _table().get(plain)
    if facts is None or version is None or version not in facts.versions:
        return facts
    return replace(facts, image_size=facts.versions[version])


def backbone_names() -> tuple[str, ...]:
    """All names, torchvision's first, each library's in alphabetical order."""
    return tuple(_table())


def timm_families() -> tuple[str, ...]:
    """timm's modules whose models are known, in alphabetical order."""
    return tuple(sorted({facts.family for facts in _table().values() if facts.is_timm}))


@lru_cache(maxsize=1)
def _table() -> Mapping[str, BackboneFacts]:
    table = {}
    for name, (family, has_batch_norm, versions) in sorted(TORCHVISION.items()):
        sizes = dict(versions)
        multiple = _size_multiple(name, family)
        table[name] = BackboneFacts(
            name=name,
            family=family,
            has_batch_norm=has_batch_norm,
            has_class_token=family == "vit",
            image_size=next(iter(sizes.values())),
            min_size=multiple if multiple > 1 else _MIN_SIZE.get(family, 32),
            size_multiple=multiple,
            versions=sizes,
        )
    for row in timm_rows():
        table[TIMM + row.name] = BackboneFacts(
            name=TIMM + row.name,
            family=row.module,
            has_batch_norm=row.has_batch_norm,
            has_class_token=row.has_class_token,
            image_size=row.image_size,
            min_size=row.min_size,
            size_multiple=row.size_multiple,
            versions=row.versions,
        )
    return table


def _size_multiple(name: str, family: str) -> int:
    if family == "vit":  # position embeddings are interpolated, the patch size remains: vit_b_16
        return int(name.rsplit("_", 1)[1])
    return 224 if family == "maxvit" else 1  # MaxViT: windows of 7 at every stride up to 32

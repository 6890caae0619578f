"""Pictures that stand twice in a data set: the same file, or the same picture encoded or resized again.

Candidates are found by perceptual hashes that differ in few bits, and verified on thumbnails, so that
drawings of one style (clock faces that differ in their hands) are not taken for one another. A crop, a
turned or a mirrored copy is not found.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tlsearch.data.inspect.scan import Looks, Place

# Measured on 64 px drawings: JPEG of quality 30, 32 px JPEG of quality 60 and enlarging differ in at most 11
# bits, 23 grey levels and 45 colour levels (99 %: 40); different drawings of one style in 28 and more.
_MAX_BITS = 12
_MAX_GREY = 24
_MAX_COLOUR = 40
# In pale or dark pictures those levels are all there is: what the picture shows must agree too.
_MIN_CORRELATION = 0.95
# Standard deviation, in grey levels, below which thumbnails tell nothing (a piece of sky): only bytes count.
_PLAIN = 10.0
_MAX_COMPARED = 100  # in a group of thousands, with this many of each split


@dataclass(frozen=True, kw_only=True)
class Duplicate:
    """Two images that are one.

    Attributes:
        kind: ``exact``: the same bytes; ``near``: the same picture.
        first: The earlier one; train comes before val, val before test.
        second: The later one.
    """

    kind: Literal["exact", "near"]
    first: Place
    second: Place

    @property
    def leaks(self) -> bool:
        """Whether the two stand in different splits."""
        return self.first.split != self.second.split


def find_duplicates(looks: Looks) -> list[Duplicate]:
    """Pairs each image that stands twice with its nearest double, exact ones first.

    Of n equal images in one split n - 1 pairs are given, each image but the first with an earlier one; and
    an image with doubles in earlier splits is paired with one of these in addition.
    """
    same_bytes: dict[bytes, list[int]] = defaultdict(list)
    for number, digest in enumerate(looks.digests):
        same_bytes[digest].append(number)
    firsts = np.array([members[0] for members in same_bytes.values()], dtype=np.int64)
    found: list[Duplicate] = []
    for group in _near_groups(looks, firsts):
        members = sorted(number for one in group for number in same_bytes[looks.digests[one]])
        found += _pairs(looks, members)
    return sorted(found, key=lambda pair: pair.kind)


def _near_groups(looks: Looks, numbers: NDArray[np.int64]) -> list[list[int]]:
    """Groups of images that are connected by likeness, those of one image included."""
    plain = looks.greys[numbers].std(axis=(1, 2)) < _PLAIN
    groups = [[number] for number in numbers[plain].tolist()]
    numbers = numbers[~plain]
    hashes = looks.hashes[numbers]
    root = np.arange(len(numbers))
    for i in range(len(numbers)):
        bits = np.bitwise_count(hashes[i + 1 :] ^ hashes[i])
        near = i + 1 + np.flatnonzero(bits <= _MAX_BITS)
        near = near[root[near] != root[i]]
        if len(near) == 0:
            continue
        alike = near[_distances(looks, int(numbers[i]), numbers[near]) <= _MAX_GREY]
        for other in np.unique(root[alike]):
            root[root == other] = root[i]
    members: dict[int, list[int]] = defaultdict(list)
    for number, group in zip(numbers.tolist(), root.tolist(), strict=True):
        members[group].append(number)
    return groups + list(members.values())


def _pairs(looks: Looks, members: Sequence[int]) -> Iterator[Duplicate]:
    """The pairs of one group; its members are in the order of the splits."""
    same_bytes: dict[tuple[str, bytes], int] = {}  # the first image by split and content
    before: dict[str, list[int]] = defaultdict(list)  # by split
    for number in members:
        split, digest = looks.places[number].split, looks.digests[number]
        inside = [split] if split in before else []
        for homes in ([one for one in before if one != split], inside):
            exact = next((same_bytes[one, digest] for one in homes if (one, digest) in same_bytes), None)
            near = _nearest(looks, number, [other for one in homes for other in before[one]]) if exact is None else None
            if exact is not None:
                yield Duplicate(kind="exact", first=looks.places[exact], second=looks.places[number])
            elif near is not None:
                yield Duplicate(kind="near", first=looks.places[near], second=looks.places[number])
        same_bytes.setdefault((split, digest), number)
        if len(before[split]) < _MAX_COMPARED:
            before[split].append(number)


def _nearest(looks: Looks, number: int, others: Sequence[int]) -> int | None:
    """The same picture among the others, the one that differs least; None where there is none."""
    if not others or looks.greys[number].std() < _PLAIN:
        return None
    distances = _distances(looks, number, np.array(others, dtype=np.int64))
    return others[int(distances.argmin())] if distances.min() <= _MAX_GREY else None


def _distances(looks: Looks, number: int, others: NDArray[np.int64]) -> NDArray[np.float64]:
    """Largest difference in grey levels to each of the others; infinite where it is another picture."""
    grey = np.abs(looks.greys[others].astype(np.int16) - looks.greys[number]).max(axis=(1, 2))
    colour = np.abs(looks.colours[others].astype(np.int16) - looks.colours[number]).max(axis=(1, 2, 3))
    alike = (colour <= _MAX_COLOUR) & _show_the_same(looks.greys[number], looks.greys[others])
    return np.where(alike, grey.astype(np.float64), np.inf)


def _show_the_same(one: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether grey thumbnails, none of them plain, agree in their pattern."""
    a = one.ravel() - one.mean()
    b = others.reshape(len(others), -1) - others.mean(axis=(1, 2))[:, None]
    result: NDArray[np.bool_] = b @ a >= _MIN_CORRELATION * a.size * a.std() * b.std(axis=1)
    return result

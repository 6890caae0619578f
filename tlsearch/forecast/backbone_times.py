"""What one backbone's passes and training steps take at an image size, and between two sizes that were timed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tlsearch.features import Boundary
from tlsearch.model import MAX_DEPTH


@dataclass(frozen=True, kw_only=True)
class BackboneTimes:
    """What one backbone takes on this device at one image size.

    Attributes:
        build_s: Building the model.
        forward_s: One image through stem, stage1 .. stage4 and head, in eval mode.
        train_s: By unfreeze depth: one image through what trains, forward, backward and its share of the step.
        moving_factor: What training takes where batch norm's statistics move, over ``train_s``.
        iteration_s: One evaluation of the linear probe's loss and gradient on the training images.
        digest_s: Hashing all tensors once.
        boundaries: By depth 0 .. 4 the activations there.
        trained_bytes: By depth the tensors that training changes.
        state_bytes: All tensors.
        activation_bytes: By depth what one image leaves in memory for the backward pass.
    """

    build_s: float
    forward_s: tuple[float, ...]
    train_s: Mapping[int, float]
    moving_factor: float = 1.0
    iteration_s: float = 0.0
    digest_s: float = 0.0
    boundaries: Mapping[int, Boundary]
    trained_bytes: Mapping[int, int]
    state_bytes: int
    activation_bytes: Mapping[int, int]

    def passed_s(self, behind: int, depth: int) -> float:
        """One image from the boundary of depth ``behind`` (5: pixels) to that of ``depth``; -1 is the logits."""
        return sum(self.forward_s[MAX_DEPTH - behind : MAX_DEPTH - depth])

    def at_pixels(self, fraction: float) -> BackboneTimes:
        """As far as they can be said for images of this fraction of the pixels: convolutions take that fraction."""
        head = self.train_s.get(0, 0.0)
        return replace(
            self,
            forward_s=tuple(one * fraction for one in self.forward_s),
            train_s={depth: head if depth == 0 else one * fraction for depth, one in self.train_s.items()},
        )


def times_between(small: BackboneTimes, large: BackboneTimes, fraction: float) -> BackboneTimes:
    """The times at an image size between two that were timed, linear in the pixels.

    A pass has a part that grows with the pixels and one that does not.

    Args:
        small: At the smaller size.
        large: At the larger size, of the same depths.
        fraction: Of the way from the pixels of the smaller size to those of the larger one, 0 to 1.
    """

    def mixed(one: float, other: float) -> float:
        return (1 - fraction) * one + fraction * other

    def counted(ours: Mapping[int, int], theirs: Mapping[int, int]) -> dict[int, int]:
        return {depth: round(mixed(one, theirs[depth])) for depth, one in ours.items()}

    return BackboneTimes(
        build_s=mixed(small.build_s, large.build_s),
        forward_s=tuple(mixed(*pair) for pair in zip(small.forward_s, large.forward_s, strict=True)),
        train_s={depth: mixed(one, large.train_s[depth]) for depth, one in small.train_s.items()},
        moving_factor=mixed(small.moving_factor, large.moving_factor),
        iteration_s=mixed(small.iteration_s, large.iteration_s),
        digest_s=mixed(small.digest_s, large.digest_s),
        boundaries={
            depth: replace(
                large.boundaries[depth],
                num_bytes=round(mixed(one.num_bytes, large.boundaries[depth].num_bytes)),
                macs=round(mixed(one.macs, large.boundaries[depth].macs)),
            )
            for depth, one in small.boundaries.items()
        },
        trained_bytes=counted(small.trained_bytes, large.trained_bytes),
        state_bytes=round(mixed(small.state_bytes, large.state_bytes)),
        activation_bytes=counted(small.activation_bytes, large.activation_bytes),
    )

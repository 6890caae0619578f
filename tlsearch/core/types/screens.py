"""What is known of the backbones of a search before any of them is trained: one pass over the images for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol


@dataclass(frozen=True, kw_only=True)
class ProbedBackbone:
    """What a linear classifier on a backbone's frozen features reaches on the validation images.

    Attributes:
        backbone: Its name.
        key: Digest of all that the pass depends on: images, weights, image size, features, versions.
        parameters: Of the whole model.
        num_train: Images that the classifier was fitted to.
        num_val: N, images that it was scored on.
        hits: Which of them it gets right: N bits as hex digits, the first image's the highest of the first byte, as
            ``numpy.packbits`` has them.
        penalty: Of the ridge regression.
        measured: What the search's constraints look at: params_millions, checkpoint_mb, and latency_ms where that has a
            limit.
        seconds: Of the pass with its fit.
        error: Why it could not be screened; empty where it was.
    """

    backbone: str
    key: str = ""
    parameters: int = 0
    num_train: int = 0
    num_val: int = 0
    hits: str = ""
    penalty: float = 0.0
    measured: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    error: str = ""

    @property
    def accuracy(self) -> float | None:
        """Fraction of the validation images; None where it could not be screened."""
        return None if self.error or not self.num_val else int(self.hits or "0", 16).bit_count() / self.num_val


@dataclass(frozen=True, kw_only=True)
class Screen:
    """The screening of a search's backbones, from its first pass on.

    Attributes:
        backbones: Those of the space, in its order.
        passes: What has been measured, in the order in which the passes ended.
        kept: Those that trials may have, in the order of the space; empty until all passes have been made.
        reasons: By backbone why it was kept or pruned, where its score did not decide.
        chance: Of having pruned the backbone whose best trial would be the best of all.
        num_draws: Draws that the chance is a fraction of.
        spread: How far fine-tuning is taken to move backbones with equal scores apart: the scale of Student's t, in
            log-odds.
        seconds: Wall time of all starts.
    """

    format: Literal[1] = 1
    backbones: tuple[str, ...]
    passes: tuple[ProbedBackbone, ...] = ()
    kept: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)
    chance: float = 0.0
    num_draws: int = 0
    spread: float = 0.0
    seconds: float = 0.0

    @property
    def decided(self) -> bool:
        """Whether the space has been narrowed by it."""
        return bool(self.kept)

    @property
    def pruned(self) -> tuple[str, ...]:
        """Those that no trial has, in the order of the space; none until it is decided."""
        return tuple(name for name in self.backbones if name not in self.kept) if self.kept else ()

    @property
    def num_done(self) -> int:
        """Backbones of the space whose pass has been made."""
        return len(set(self.backbones) & {one.backbone for one in self.passes})

    @property
    def ranked(self) -> list[ProbedBackbone]:
        """The passes of the space's backbones by accuracy, the best first; those that could not be screened last."""
        own = [one for one in self.passes if one.backbone in self.backbones]
        return sorted(own, key=lambda one: -1.0 if one.accuracy is None else one.accuracy, reverse=True)


class ScreenObserver(Protocol):
    """Hears how the screening of a search's backbones goes, on the driver's thread; must return at once."""

    def backbone_probed(self, one: ProbedBackbone, done: int, total: int) -> None:
        """The pass of a backbone has been recorded; ``done`` of ``total`` are."""

    def screened(self, screen: Screen) -> None:
        """Which backbones the search goes on with has been recorded."""

"""What a trial's work depends on: the context, which never changes, and the phase, which does.

Work before the first epoch may take minutes; its progress is in a small file of the trial's folder. A phase holds the
promise that its frozen tensors stand still, which is checked bit for bit.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tlsearch.config.checkpoint_meta import ModelMeta
from tlsearch.core.errors import FrozenMoved
from tlsearch.core.files import write_atomically
from tlsearch.core.types import SYSTEM, TransformSpec, TrialConfig, TrialSetup
from tlsearch.data import ImageIndex
from tlsearch.features import combined_digest, tensor_digests, view_of
from tlsearch.model import StagedModel, Weights
from tlsearch.train import MAX_LOGITS, Runtime

_log = logging.getLogger(__name__)
DOING_FILE = "doing.json"
_INTERVAL_S = 1.0


class Doing:
    """Keeps a small file in the trial's folder up to date, at most once in a second; it is there while work is done.

    Args:
        directory: The trial's folder; with None no file is written.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._last = time.monotonic()  # short work is not worth a file
        self._written = False

    def __call__(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` images of some work, such as ``packing train images``."""
        now = time.monotonic()
        if self._directory is None or now - self._last < _INTERVAL_S:
            return
        self._last, self._written = now, True
        self._directory.mkdir(parents=True, exist_ok=True)
        write_atomically(self._directory / DOING_FILE, json.dumps({"what": what, "done": done, "total": total}))

    def over(self) -> None:
        """Takes the file away."""
        if self._directory is not None and self._written:
            (self._directory / DOING_FILE).unlink(missing_ok=True)
            self._written = False


@dataclass(frozen=True, kw_only=True)
class TrialContext:
    """A trial from its opening to its end.

    Attributes:
        index: The data set.
        weights: The pretrained weights.
        transform: The evaluation transform.
        runtime: Where the trial computes.
        doing: Hears of work that takes long.
    """

    config: TrialConfig
    setup: TrialSetup
    index: ImageIndex
    weights: Weights
    transform: TransformSpec
    runtime: Runtime
    doing: Doing = field(default_factory=Doing)

    def view(self, phase: Phase, split: str) -> int | None:
        """The fixed view that the phase's epoch reads of a split, from 1; None where the split has none."""
        if split != "train":
            return None
        return view_of(self.config, self.setup, epoch=phase.epoch, depth=phase.depth)

    def view_text(self, phase: Phase, split: str) -> str:
        """The view in words; empty where the split has none."""
        view, num_views = self.view(phase, split), self.setup.cache.views
        return "" if view is None else f"view {view} of {num_views} of augmentation {self.config.augmentation}"

    def model_meta(self, epoch: int, metrics: Mapping[str, float], thresholds: tuple[float, ...]) -> ModelMeta:
        """What a checkpoint says of the model that an epoch has left.

        Args:
            metrics: Of that epoch; what the process used of its machine is left out.
            thresholds: Of each class, where images have several; see ``Evaluation``.
        """
        metric = self.setup.metric
        return ModelMeta(
            backbone=self.config.backbone,
            classes=self.index.classes,
            weights_id=self.weights.id,
            weights_digest=self.weights.digest,
            transform=self.transform,
            image_size=self.transform.crop_size,
            config=self.config,
            epoch=epoch,
            metric=metric,
            value=metrics[metric],
            metrics={name: value for name, value in metrics.items() if not name.startswith(SYSTEM)},
            max_pixels=self.index.max_pixels,
            task=self.index.task,
            thresholds=thresholds,
        )


def keeps_logits(context: TrialContext) -> bool:
    """Whether a trial keeps its validation logits; a warning where they are too many.

    Of a trial with folds those of all images and all epochs count, which its process holds.
    """
    setup, num_classes = context.setup, len(context.index.classes)
    num_images, epochs = len(context.index.splits["val"]), 1
    if setup.fold:
        num_images, epochs = len(context.index.kept("val").index.splits["train"]), setup.max_epochs + 1
    if num_images * num_classes * epochs <= MAX_LOGITS:
        return True
    if setup.fold <= 1:
        _log.warning(
            "the validation logits are not kept, so no ensemble can be chosen by them: %s images of %s classes%s are "
            "more than %s values",
            f"{num_images:,}",
            f"{num_classes:,}",
            f" at {epochs:,} epochs" if setup.fold else "",
            f"{MAX_LOGITS:,}",
        )
    return False


@dataclass(frozen=True, kw_only=True)
class Phase:
    """What has changed between two epochs.

    Attributes:
        depth: The unfreeze depth by now: where cached features begin.
        guard: The tensors that are frozen by now, as they were before the first step.
        epoch: The next one, from 1: it decides which fixed view of the training images it reads, where there are such.
    """

    depth: int
    guard: FrozenGuard
    epoch: int = 1


@dataclass(frozen=True, kw_only=True)
class FrozenGuard:
    """The digests of the frozen tensors, as they were before the first training step."""

    digests: dict[str, str]

    @cached_property
    def digest(self) -> str:
        """One digest over all of them."""
        return combined_digest(self.digests)

    @cached_property
    def _part_names(self) -> frozenset[str]:
        return frozenset(name.split(".")[0] for name in self.digests)

    def of_parts(self, names: tuple[str, ...]) -> str:
        """One digest over the tensors of some parts of the model, by the parts' names."""
        if self._part_names.issubset(names):
            return self.digest
        return combined_digest({name: d for name, d in self.digests.items() if name.split(".")[0] in names})

    def only(self, model: StagedModel) -> FrozenGuard:
        """The guard of what is still frozen, after ``model`` was unfrozen further."""
        frozen = model.frozen_state().keys()
        return FrozenGuard(digests={name: digest for name, digest in self.digests.items() if name in frozen})

    def check(self, model: StagedModel) -> None:
        """Compares every frozen tensor with what it was.

        Raises:
            FrozenMoved: A tensor has changed, by a bit or more, or is trainable now; names the first.
        """
        now = tensor_digests(model.frozen_state())
        if missing := sorted(self.digests.keys() - now.keys()):
            raise FrozenMoved(f"{missing[0]} must stay frozen through the whole trial, and is trainable now")
        moved = [name for name, digest in self.digests.items() if now[name] != digest]
        if moved:
            raise FrozenMoved(
                f"frozen tensors must stay bit-identical; {moved[0]} has changed ({len(moved)} of {len(self.digests)})"
            )


def guard_frozen(model: StagedModel, known: Mapping[str, str]) -> FrozenGuard:
    """Notes the model's frozen tensors as they are now; the model must be frozen to its depth.

    Args:
        known: Digests of some of the tensors as they are now, by name.
    """
    frozen = model.frozen_state()
    computed = tensor_digests({name: tensor for name, tensor in frozen.items() if name not in known})
    return FrozenGuard(digests={name: known[name] if name in known else computed[name] for name in frozen})

"""What a trial costs: its opening, each epoch and what its node computes once, and the screen before.

All from the timings of this device.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, replace

from tlsearch.core.types import ModelSpec, TrialConfig, TrialSetup
from tlsearch.data import ImageIndex
from tlsearch.features import why_not, why_not_worth
from tlsearch.forecast.backbone_times import BackboneTimes
from tlsearch.model import MAX_DEPTH
from tlsearch.search.plan import SearchPlan
from tlsearch.space import is_screened
from tlsearch.space.bn_policies import bn_policy
from tlsearch.train import depth_at
from tlsearch.trial import probed_images

_RAY_S = 15.0  # a Ray of its own, and the imports of its workers, on two cores
_REPORT_S = 0.03  # metrics, the report's way to the driver and its answer
_PROBE_ITERATIONS = 500  # evaluations of loss and gradient along the path of penalties
_WRITE_BYTES_S = 3e8  # of a checkpoint or a cache entry, its checksum included
_SYNC_S = 0.01
_IMPROVING = 0.6  # fraction of the epochs that are better than those before


@dataclass(frozen=True, kw_only=True)
class Images:
    """The images of a search.

    Attributes:
        num_train: Training images.
        num_val: Validation images.
        decode_s: Seconds to read, decode and resize one image, as the packing of a node does it.
        prepare_s: By augmentation, ``none`` too, seconds to make one packed image ready for the model.
    """

    num_train: int
    num_val: int
    decode_s: float
    prepare_s: Mapping[str, float]

    def count(self, split: str) -> int:
        """Images of ``train`` or ``val``."""
        return self.num_train if split == "train" else self.num_val


@dataclass(kw_only=True)
class Node:
    """What a node has stored, by key the second from which on it is there; changed as trials run."""

    stored: dict[Hashable, float] = field(default_factory=dict)

    def ready(self, key: Hashable, now: float, build: Callable[[float], float]) -> float:
        """When the entry is there: at once, when its builder is done, or after ``build``, which gives the end."""
        if key not in self.stored:
            self.stored[key] = float("inf")  # a builder may need deeper ones, never itself
            self.stored[key] = build(now)
        return max(now, self.stored[key])


class _AllStored(Node):
    """A node that waits for nothing."""

    def ready(self, key: Hashable, now: float, build: Callable[[float], float]) -> float:
        """At once."""
        return now


@dataclass(frozen=True, kw_only=True)
class TrialCosts:
    """The seconds of trials of one search on one kind of node.

    Attributes:
        images: The data.
        models: Timings of each model of the search: of each backbone at each image size.
        sides: By model the sides in pixels of packed images, without and with room for random crops.
        setup: Shared by all trials.
        num_classes: Of the data.
        room_bytes: The largest entry that the feature cache takes.
        slowdown: By how much work takes longer while all slots are busy.
        device_type: ``cpu`` or ``cuda``.
    """

    images: Images
    models: Mapping[ModelSpec, BackboneTimes]
    sides: Mapping[ModelSpec, tuple[int, int]]
    setup: TrialSetup
    num_classes: int
    room_bytes: float
    slowdown: float = 1.0
    device_type: str = "cpu"

    def spec(self, config: TrialConfig) -> ModelSpec:
        """The model of a trial; all heads take equally long, however wide."""
        return ModelSpec.of(replace(config, features=None), self.setup.data, self.num_classes)

    def times(self, config: TrialConfig) -> BackboneTimes:
        """The timings of a trial's model."""
        return self.models[self.spec(config)]

    def without_features(self) -> TrialCosts:
        """The same search with the feature cache off."""
        return replace(self, setup=replace(self.setup, cache=replace(self.setup.cache, features_gb=0.0)))

    def opened(self, config: TrialConfig, node: Node, now: float, *, fold: int = 1) -> float:
        """When a trial that opens at ``now``, or its training of a fold, begins its first epoch."""
        times = self.times(config)
        now += times.build_s + self.slowdown * 3 * times.digest_s  # of all, of what is frozen, of that again at the end
        plain = self._plain(config)
        if bn_policy(config.bn_policy).recalibrates:
            statistics = ("statistics", self.spec(config))
            now = node.ready(statistics, now, lambda at: self._passed(config, node, at, "train", MAX_DEPTH, 0))
        if config.solved or config.head_init == "probe":
            probe = (config.head, self.spec(config), _state(config), fold)
            now = node.ready(probe, now, lambda at: self._probed(plain, node, at))
            now = self._evaluated(plain, node, now, 0)
        return self._sources_ready(config, node, now, epoch=1)

    def epoch_end(self, config: TrialConfig, node: Node, now: float, *, epoch: int) -> float:
        """When an epoch that begins at ``now`` is reported."""
        if config.solved:  # and evaluated when it was opened
            return now + _REPORT_S + _SYNC_S + self.times(config).trained_bytes[0] / _WRITE_BYTES_S
        if epoch > 1 and self._new_sources(config, epoch):
            now = self._sources_ready(config, node, now, epoch=epoch)
        times, depth = self.times(config), depth_at(config, self.setup.max_epochs, epoch)
        row_s = times.train_s[depth]
        policy = config.bn_policy
        if policy is not None and depth > 0 and bn_policy(policy).moves:
            row_s *= times.moving_factor
        if not self.cached(config, "train", depth):
            row_s += self.images.prepare_s[config.augmentation] + times.passed_s(MAX_DEPTH, depth)
        now += self.slowdown * self.images.num_train * row_s
        now = self._evaluated(config, node, now, depth)
        return now + _REPORT_S + _IMPROVING * (_SYNC_S + times.trained_bytes[depth] / _WRITE_BYTES_S)

    def report_end(self, config: TrialConfig, node: Node, now: float, *, number: int) -> float:
        """When an epoch that begins at ``now`` is reported, or, of a trial with folds, a fold."""
        if not self.setup.folds:
            return self.epoch_end(config, node, now, epoch=number)
        if number > 1:
            now = self.opened(config, node, now, fold=number)
        for epoch in range(1, 2 if config.solved else self.setup.max_epochs + 1):
            now = self.epoch_end(config, node, now, epoch=epoch)
        return now

    def report_s(self, config: TrialConfig) -> float:
        """Seconds of the last epoch, or fold, of a whole trial, by when all that it reads is cached."""
        return self.report_end(config, _AllStored(), 0.0, number=self.setup.num_reports)

    def cached(self, config: TrialConfig, split: str, depth: int) -> bool:
        """Whether a trial reads cached features of a split."""
        if why_not(config, self.setup, split, depth=depth) is not None:
            return False
        boundary = self.times(config).boundaries[depth]
        if depth > 0 and why_not_worth(boundary, self.device_type) is not None:
            return False
        alike = min(self._views(config, split), self.setup.max_epochs)
        return self.entry_bytes(config, depth, split) * alike <= self.room_bytes

    def entry_bytes(self, config: TrialConfig, depth: int, split: str) -> int:
        """The size of one entry of the feature cache."""
        num_bytes = self.times(config).boundaries[depth].num_bytes
        half = self.setup.cache.feature_precision == "half"
        return self.images.count(split) * (num_bytes // 2 if half else num_bytes)

    def _views(self, config: TrialConfig, split: str) -> int:
        return self.setup.cache.views if split == "train" and config.augmentation != "none" else 1

    def _plain(self, config: TrialConfig) -> TrialConfig:
        """The trial whose features the linear probe reads."""
        policy = config.bn_policy if bn_policy(config.bn_policy).recalibrates else "frozen"
        head_only = replace(config, unfreeze_depth=0, unfreeze_schedule=None, bn_policy=policy)
        return replace(head_only, augmentation="none", mixup=0.0, cutmix=0.0)

    def _new_sources(self, config: TrialConfig, epoch: int) -> bool:
        """Whether the epoch reads what the one before did not: another depth, or another fixed view."""
        before, depth = (depth_at(config, self.setup.max_epochs, one) for one in (epoch - 1, epoch))
        return before != depth or 1 < self._views(config, "train") >= epoch

    def _sources_ready(self, config: TrialConfig, node: Node, now: float, *, epoch: int) -> float:
        depth = depth_at(config, self.setup.max_epochs, epoch)
        for split in ("train", "val"):
            if self.cached(config, split, depth):
                now = self._features(config, node, now, split, depth, epoch)
            else:
                now = self._packed(config, node, now, split)
        return now

    def _features(self, config: TrialConfig, node: Node, now: float, split: str, depth: int, epoch: int) -> float:
        """When an entry of the feature cache is there; a pass begins at the nearest boundary that the search needs."""
        views = self._views(config, split)
        view = (config.augmentation, (epoch - 1) % views + 1) if views > 1 else None

        def build(at: float) -> float:
            behind, deeper = MAX_DEPTH, [d for d in sorted(self.setup.depths) if depth < d < MAX_DEPTH]
            if self.setup.cache.feature_precision == "full":
                behind = next((d for d in deeper if self.cached(config, split, d)), MAX_DEPTH)
            if behind < MAX_DEPTH:
                at = self._features(config, node, at, split, behind, epoch)
            at = self._passed(config, node, at, split, behind, depth)
            return at + self.entry_bytes(config, depth, split) / _WRITE_BYTES_S

        return node.ready(("features", self.spec(config), _state(config), depth, split, view), now, build)

    def _passed(self, config: TrialConfig, node: Node, now: float, split: str, behind: int, depth: int) -> float:
        """The end of a pass over a split, from the boundary of ``behind`` to that of ``depth``."""
        row_s = self.times(config).passed_s(behind, depth)
        if behind == MAX_DEPTH:
            now = self._packed(config, node, now, split)
            augmentation = config.augmentation if self._views(config, split) > 1 else "none"
            row_s += self.images.prepare_s[augmentation]
        return now + self.slowdown * self.images.count(split) * row_s

    def _packed(self, config: TrialConfig, node: Node, now: float, split: str) -> float:
        margin = split == "train" and config.augmentation != "none"
        key = ("images", split, self.sides[self.spec(config)][margin])
        return node.ready(key, now, lambda at: at + self.images.count(split) * self.images.decode_s)

    def _probed(self, plain: TrialConfig, node: Node, now: float) -> float:
        for split in ("train", "val"):
            if self.cached(plain, split, 0):
                now = self._features(plain, node, now, split, 0, 1)
            else:
                now = self._passed(plain, node, now, split, MAX_DEPTH, 0)
        iteration_s = self.times(plain).iteration_s
        return now + self.slowdown * _PROBE_ITERATIONS * iteration_s

    def _evaluated(self, config: TrialConfig, node: Node, now: float, depth: int) -> float:
        times = self.times(config)
        if self.cached(config, "val", depth):
            row_s = times.passed_s(depth, -1)
        else:
            row_s = self.images.prepare_s["none"] + times.passed_s(MAX_DEPTH, -1)
        return now + self.slowdown * self.images.num_val * row_s


def _state(config: TrialConfig) -> bool:
    """What distinguishes a backbone's frozen prefix from the pretrained one: recalibrated statistics."""
    return bn_policy(config.bn_policy).recalibrates


@dataclass(frozen=True, kw_only=True)
class ScreenCost:
    """A screening before a search.

    Attributes:
        backbones: How many take a pass.
        images: Of each pass, train and val together.
        seconds: Until it is decided, on this machine.
    """

    backbones: int
    images: int
    seconds: float


def screen_cost(
    plan: SearchPlan, costs: TrialCosts, stored: Node, index: ImageIndex, *, slots: int
) -> tuple[ScreenCost | None, Node]:
    """The passes of a search that is screened, None where nothing is, and what the node has stored after them.

    A pass over all images of train and val leaves the features that trials of the backbone read.
    """
    if not is_screened(plan.space) or plan.search.listed:
        return None, stored
    probed = probed_images(index)
    num_images = sum(len(probed.splits[name]) for name in ("train", "val"))
    after, total_s, sides = Node(stored=dict(stored.stored)), 0.0, set[int]()
    whole = probed is index and not plan.setup.folds
    for name in plan.space.backbones():
        default = plan.space.to_config(plan.space.complete({"backbone": name}))
        config = TrialConfig(backbone=name, image_size=default.image_size)
        spec, times = costs.spec(config), costs.times(config)
        row_s = costs.images.prepare_s["none"] + times.passed_s(MAX_DEPTH, 0)
        total_s += times.build_s + 2 * times.digest_s + costs.slowdown * num_images * row_s
        sides.add(costs.sides[spec][0])
        for split in ("train", "val") if whole else ():
            after.stored.setdefault(("features", spec, False, 0, split, None), 0.0)
    total_s += len(sides) * num_images * costs.images.decode_s
    count = len(plan.space.backbones())
    cost = ScreenCost(backbones=count, images=num_images, seconds=_RAY_S + total_s / min(slots, count))
    return cost, after

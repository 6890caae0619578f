"""What each trial is given of a GPU: as many trials share a device as its memory and its time suffice for.

Ray counts a device as 1, in steps of 1/10,000, and chooses the device itself, the fullest one that has room. So a
fraction must fit the smallest device on which trials have run. Pure: knows neither Ray nor CUDA.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tlsearch.core.types import CONTEXT_BYTES, SYSTEM, EpochReport, TrialConfig

PEAK, USED, USED_PERCENT, BUSY = (
    f"{SYSTEM}gpu_0_{name}"
    for name in (
        "process_peak_megabytes",
        "memory_usage_megabytes",
        "memory_usage_percentage",
        "utilization_percentage",
    )
)
COUNTS = (1, 2, 3, 4, 6, 8)  # trials on one device; few steps, since each new fraction needs new workers
_UNIT = 10_000
_MOST_USES = 200  # the last trials: what the search is at now
_MARGIN = 1.25  # an allocator's fragments come on top of the peak that it counts
_UNKNOWN_BUSY = 0.5  # where NVIDIA's library tells nothing: two trials share a device at most
_SHARING = 1.1  # what trials that share a device lose to each other
_BESIDE_SHARED = 2.0  # a device is emptied for a trial that needs all of it: as long again as it runs


@dataclass(frozen=True, kw_only=True)
class Use:
    """What one trial used of its device.

    Attributes:
        peak_bytes: The most that its process had allocated; infinite where it ran out of memory in a fraction.
        device_bytes: All memory of the device.
        busy: Fraction of the time in which it kept the device busy; None where that is not known.
        device_s: Seconds of a whole device that its epochs took.
    """

    config: TrialConfig
    peak_bytes: float
    device_bytes: float
    busy: float | None
    device_s: float

    @classmethod
    def of(cls, config: TrialConfig, gpus: float, reports: Sequence[EpochReport]) -> Use | None:
        """From a trial's reports; None without a GPU, or before the stages that it is to train all do.

        Args:
            gpus: The fraction that it had. The utilization is the device's, of which it counts for its fraction.
        """
        last = reports[-1].metrics if reports else {}
        if PEAK not in last or not last.get(USED_PERCENT) or last["trainable_stages"] < config.unfreeze_depth:
            return None
        busy = [report.metrics[BUSY] / 100 for report in reports if BUSY in report.metrics]
        return cls(
            config=config,
            peak_bytes=last[PEAK] * 1e6,
            device_bytes=last[USED] * 1e6 / (last[USED_PERCENT] / 100),
            busy=gpus * sum(busy) / len(busy) if busy else None,
            device_s=gpus * sum(report.metrics["epoch_seconds"] for report in reports),
        )


def trials_per_device(uses: Collection[Use], *, most: int) -> int:
    """The number n of trials on a device, each with 1/n of it, that takes the fewest device-seconds; of equal ones the
    smallest.

    A trial that does not fit 1/n runs on a whole device, which must be emptied first. Sharing pays only where trials
    leave the device idle: at 1/n a trial takes its busy fraction of a device, or 1/n where that is more.

    Args:
        uses: Of trials of the search; without any the answer is 1.
        most: Trials that a device may hold.
    """
    counts = [count for count in COUNTS if count <= max(1, most)]
    rooms = {count: room(count, _smallest(uses)) for count in counts}

    def device_seconds(count: int) -> float:
        return round(sum(_device_seconds(use, count, rooms[count]) for use in uses), 6)

    return min(counts, key=lambda count: (device_seconds(count), count))


def _device_seconds(use: Use, count: int, room_bytes: float) -> float:
    if count == 1:
        return use.device_s
    if use.peak_bytes > room_bytes:
        return _BESIDE_SHARED * use.device_s
    return _SHARING * use.device_s * max(1 / count, _UNKNOWN_BUSY if use.busy is None else use.busy)


def room(count: int, device_bytes: float) -> float:
    """Peak bytes of a trial that fit 1/count of a device, with what CUDA and an allocator's fragments take."""
    return (device_bytes / count - CONTEXT_BYTES) / _MARGIN


def _smallest(uses: Collection[Use]) -> float:
    return min((use.device_bytes for use in uses), default=0.0)


def fits(config: TrialConfig, count: int, uses: Collection[Use]) -> bool:
    """Whether a trial that needs as much memory as this one is known to fit 1/count of a device, and none that needs
    no more has run out of memory.
    """
    if any(math.isinf(use.peak_bytes) and _needs_as_much(config, use.config) for use in uses):
        return False
    peaks = [use.peak_bytes for use in uses if _needs_as_much(use.config, config)]
    return bool(peaks) and min(peaks) <= room(count, _smallest(uses))


def _needs_as_much(one: TrialConfig, other: TrialConfig) -> bool:
    return (
        one.backbone == other.backbone
        and (one.image_size or 0) >= (other.image_size or 0)
        and (one.image_size is None) == (other.image_size is None)
        and one.unfreeze_depth >= other.unfreeze_depth
        and one.batch_size >= other.batch_size
        and (one.augmentation != "none" or other.augmentation == "none")  # pixels or cached features
        and (one.ema > 0 or other.ema == 0)
        and (one.optimizer != "sgd" or other.optimizer == "sgd")
    )


class Shares:
    """The fraction of a GPU of each trial of a search, from what its earlier trials used.

    Attributes:
        fixed: The fraction of all trials, 0 on a cluster without GPUs; None: it follows from what trials use.
        most: Trials that a device may hold at a time.
    """

    def __init__(self) -> None:
        """Nothing is known: a trial's fraction is None until ``fixed`` or ``most`` are set."""
        self.fixed: float | None = None
        self.most = 0
        self._uses: dict[int, Use] = {}
        self._reports: dict[int, list[EpochReport]] = {}
        self._count: int | None = None  # of the uses as they are; None when it is to be computed

    @property
    def packs(self) -> bool:
        """Whether fractions follow from what trials use."""
        return self.fixed is None and self.most > 0

    @property
    def usual(self) -> float | None:
        """The fraction of a trial that is known to fit it."""
        return fraction(self._per_device()) if self.packs else self.fixed

    def of(self, config: TrialConfig, *, alone: bool) -> float | None:
        """The fraction of a trial.

        Args:
            alone: Whether it has run out of memory in a fraction, which its neighbours may have caused.
        """
        if alone and self.fixed != 0:
            return 1.0
        if not self.packs:
            return self.fixed
        count = self._per_device()
        return fraction(count) if count > 1 and fits(config, count, self._uses.values()) else 1.0

    def _per_device(self) -> int:
        if self._count is None:
            self._count = trials_per_device(self._uses.values(), most=self.most)
        return self._count

    def _keep(self, number: int, use: Use) -> None:
        self._uses.pop(number, None)
        self._uses[number] = use
        while len(self._uses) > _MOST_USES:
            del self._uses[next(iter(self._uses))]
        self._count = None

    def note(self, number: int, config: TrialConfig, gpus: float, report: EpochReport) -> None:
        """Takes the next report of a trial."""
        if PEAK in report.metrics:
            reports = self._reports.setdefault(number, [])
            reports.append(report)
            if (use := Use.of(config, gpus, reports)) is not None:
                self._keep(number, use)

    def note_too_large(self, number: int, config: TrialConfig) -> None:
        """A trial has run out of memory in a fraction; what it needs is known once it has run alone."""
        self._reports.pop(number, None)
        if self._uses:
            smallest = _smallest(self._uses.values())
            self._keep(
                number,
                Use(config=config, peak_bytes=math.inf, device_bytes=smallest, busy=None, device_s=0.0),
            )


def fraction(count: int) -> float:
    """1/count as Ray holds it, so that ``count`` of them are at most one device."""
    return _UNIT // count / _UNIT


def per_device(share: float) -> int:
    """How many trials of this fraction one device holds, as Ray counts: none spans two devices."""
    return _UNIT // max(1, round(share * _UNIT))


def num_slots(cpus: float, share: float, nodes: Sequence[Mapping[str, Any]]) -> int:
    """How many trials the nodes hold at a time; a trial never spans two nodes.

    Args:
        cpus: Of one trial.
        share: Its fraction of a GPU.
        nodes: As Ray describes them: ``{"Resources": {"CPU": 8.0, "GPU": 2.0}}``.
    """
    slots = 0
    for node in nodes:
        have = node["Resources"]
        fitting = math.floor(have.get("CPU", 0) / cpus + 1e-9) if cpus else math.inf
        if share > 0:
            whole, rest = divmod(have.get("GPU", 0), 1)
            fitting = min(fitting, int(whole) * per_device(share) + math.floor(rest / share + 1e-9))
        slots += int(fitting)
    return slots


def has_room(live: Sequence[float], share: float, slots: int) -> bool:
    """Whether one more trial of this fraction may begin beside those that were handed out.

    A trial that waits for a whole device takes the room of one: what ends is not replaced there until it has it.
    Meanwhile Ray fills the fullest devices first, so that one gets empty.

    Args:
        live: The fractions of the trials that were handed out.
        share: The usual fraction.
        slots: How many trials of it the cluster holds.
    """
    if share == 0:
        return len(live) < slots
    return sum(_slots_taken(gpus, share) for gpus in live) + 1 <= slots + 1e-6


def _slots_taken(gpus: float, share: float) -> float:
    """By a trial of any fraction: those that it reaches into; of a small one a part, as many as fit share a slot.

    What it leaves of a slot is of no use to a trial of the usual fraction. Fractions are cut to four digits, so 0.5 is
    three of 0.1666.
    """
    if gpus > share:
        return min(math.ceil(gpus / share - 0.02), per_device(share))
    return 1 / math.floor(share / gpus + 0.02) if gpus else 0.0

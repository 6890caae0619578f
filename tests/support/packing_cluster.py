"""A search on a cluster of unlike devices, on a virtual clock: the project's own controller, its shares and its room.

Ray's part is a fake: a trial is placed on the fullest device that has room for its fraction, in the order in which
trials were handed out, as Ray's raylets do. Trials that share a device slow each other down where together they keep
it busy, and run out of memory where their fraction is too small. Run it for the table:

    PYTHONPATH=tests/support python -m packing_cluster
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from search_doubles import curve, make_plan

from tlsearch.core.types import EndReason, EpochReport, TrialConfig, TrialOutcome
from tlsearch.search.controller.controller import Controller
from tlsearch.search.ray_tune.resources import Room, settle_shares
from tlsearch.search.scheduling.packing import BUSY, PEAK, USED, USED_PERCENT
from tlsearch.search.study.storage import open_in_memory

GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Device:
    """One GPU, or one slice of one; ``slowness`` is 1 for the fastest."""

    gigabytes: float
    slowness: float = 1.0


A100 = Device(gigabytes=80)
T4 = Device(gigabytes=16, slowness=4)
MIG = Device(gigabytes=10, slowness=5)
CLUSTERS: dict[str, list[list[Device]]] = {
    "one A100": [[A100]],
    "a node of 8 A100": [[A100] * 8],
    "2 A100, 4 nodes of a T4": [[A100] * 2, *[[T4]] * 4],
    "7 MIG slices, 2 T4": [[MIG] * 7, [T4] * 2],
}


def peak_gb(config: TrialConfig) -> float:
    """What a trial needs of its device."""
    return 1 + (0.7 if config.backbone == "resnet18" else 2.2) * config.unfreeze_depth


def busy(config: TrialConfig) -> float:
    """The fraction of the time in which it alone keeps its device busy."""
    return 0.15 + 0.08 * config.unfreeze_depth


@dataclass(kw_only=True)
class Placed:
    """A trial that was handed out; ``device`` is None while it waits for one."""

    number: int
    config: TrialConfig
    seed: int
    gpus: float
    epoch: int = 0
    device: int | None = None


@dataclass(kw_only=True)
class Outcome:
    """What a simulated search showed.

    Attributes:
        hours: Until the last report.
        overcounted: Trials of the usual fraction that had to wait for a device, though none waited for a whole one.
        idle: Fraction of all device time in which a device held nothing while trials were to be had.
        longest_wait: For a whole device, in hours.
        fractions: By how many trials they were held.
        reasons: How trials ended, by their count.
        moved: Trials that ran out of memory in a fraction.
    """

    hours: float = 0.0
    overcounted: int = 0
    idle: float = 0.0
    longest_wait: float = 0.0
    fractions: dict[float, int] = field(default_factory=dict)
    reasons: dict[str, int] = field(default_factory=dict)
    moved: int = 0


class Simulation:
    """One search; ``gpus_per_trial`` None packs."""

    def __init__(
        self, root: Path, nodes: Sequence[Sequence[Device]], *, gpus_per_trial: float | None, trials: int
    ) -> None:
        plan = make_plan(root, trials=trials, max_epochs=6, sampler="random")
        spec = plan.resources.__class__(gpus_per_trial=gpus_per_trial)
        self.devices = [device for node in nodes for device in node]
        self.free = [1.0] * len(self.devices)
        described = [{"Resources": {"CPU": 8.0 * len(node), "GPU": float(len(node))}} for node in nodes]
        study = open_in_memory(plan.setup.objective)
        self.now = 0.0
        self.controller = Controller(plan, study, clock=lambda: self.now, timer=lambda: self.now, observers=[self])
        settle_shares(self.controller.shares, spec, described)
        usual = self.controller.shares.usual or 0.0
        self.room = Room(spec, usual, nodes=lambda: described, timer=lambda: 0.0)
        self.live: dict[int, Placed] = {}
        self.since: dict[int, float] = {}
        self.events: list[tuple[float, int]] = []
        self.out = Outcome()

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """As any observer."""

    def trial_reported(self, *report: object) -> None:
        """As any observer."""

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """Counts."""
        self.out.reasons[outcome.reason] = self.out.reasons.get(outcome.reason, 0) + 1

    def run(self) -> Outcome:
        """Until no trial is left."""
        idle_s = 0.0
        while True:
            self.hand_out()
            self.place()
            if not self.events:
                break
            when, number = heapq.heappop(self.events)
            empty = sum(free > 1 - 1e-9 for free in self.free)
            more = any(one.device is None for one in self.live.values())
            more = more or not (self.controller.exhausted or self.controller.waiting)
            idle_s += (when - self.now) * empty * more
            self.now = when
            self.end_of_epoch(self.live[number])
        assert not self.live
        self.out.hours = self.now / 3600
        self.out.idle = idle_s / (self.now * len(self.devices))
        return self.out

    def hand_out(self) -> None:
        shares = self.controller.shares
        while self.room([one.gpus for one in self.live.values()], shares.usual or 0.0):
            job = self.controller.next_trial()
            if job is None:
                return
            one, gpus = job.assignment, job.assignment.gpus
            assert gpus is not None
            self.live[one.number] = Placed(number=one.number, config=one.config, seed=one.seed, gpus=gpus)
            self.since[one.number] = self.now
            self.out.fractions[gpus] = self.out.fractions.get(gpus, 0) + 1

    def place(self) -> None:
        for one in list(self.live.values()):
            if one.device is not None:
                continue
            fitting = [d for d, free in enumerate(self.free) if free >= one.gpus - 1e-6]
            if fitting:
                one.device = min(fitting, key=lambda d: self.free[d])
                self.free[one.device] -= one.gpus
                assert self.free[one.device] > -1e-6
                if one.gpus == 1:
                    self.out.longest_wait = max(self.out.longest_wait, (self.now - self.since[one.number]) / 3600)
                self.begin_epoch(one)
            elif not any(other.device is None and other.gpus == 1 for other in self.live.values()):
                self.out.overcounted += 1

    def begin_epoch(self, one: Placed) -> None:
        assert one.device is not None
        together = sum(busy(other.config) for other in self.live.values() if other.device == one.device)
        seconds = (10 + 10 * one.config.unfreeze_depth) * self.devices[one.device].slowness * max(1.0, together)
        heapq.heappush(self.events, (self.now + seconds, one.number))

    def end_of_epoch(self, one: Placed) -> None:
        assert one.device is not None
        memory_gb = self.devices[one.device].gigabytes
        goes_on = again = False
        if peak_gb(one.config) + 0.5 > one.gpus * memory_gb:
            again = self.controller.fail(one.number, TrialOutcome(reason=EndReason.MEMORY, error="out of memory"))
            self.out.moved += again
        else:
            one.epoch += 1
            goes_on = self.controller.report(one.number, self.report(one, memory_gb))
        if goes_on:
            self.begin_epoch(one)
            return
        self.free[one.device] += one.gpus
        del self.live[one.number]
        if again:
            job = self.controller.job(one.number).assignment
            assert job.gpus == 1.0
            one.gpus, one.device, self.since[one.number] = 1.0, None, self.now
            self.live[one.number] = one

    def report(self, one: Placed, memory_gb: float) -> EpochReport:
        sharing = [other for other in self.live.values() if other.device == one.device]
        metrics = {
            "val_accuracy": curve(one.config, one.seed, one.epoch),
            "trainable_stages": float(one.config.unfreeze_depth),
            "epoch_seconds": 10.0 + 10 * one.config.unfreeze_depth,
            PEAK: peak_gb(one.config) * 1e3,
            USED: memory_gb * 500,
            USED_PERCENT: 50.0,
            BUSY: 100 * min(1.0, sum(busy(other.config) for other in sharing)),
        }
        return EpochReport(epoch=one.epoch, metrics=metrics, timestamp=self.now)


def simulate(nodes: Sequence[Sequence[Device]], *, gpus_per_trial: float | None = None, trials: int = 150) -> Outcome:
    """One search on a cluster."""
    with TemporaryDirectory() as root:
        return Simulation(Path(root), nodes, gpus_per_trial=gpus_per_trial, trials=trials).run()


def main() -> None:
    """Prints the table."""
    print(
        "| cluster | whole devices, h | auto, h | trials by fraction | overcounted | idle | longest wait, min | moved |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, nodes in CLUSTERS.items():
        whole, auto = simulate(nodes, gpus_per_trial=1.0), simulate(nodes)
        by = ", ".join(f"{count} at {share:g}" for share, count in sorted(auto.fractions.items()))
        print(
            f"| {name} | {whole.hours:.2f} | {auto.hours:.2f} | {by} | {auto.overcounted} | {auto.idle:.1%} | "
            f"{60 * auto.longest_wait:.1f} | {auto.moved} |"
        )


if __name__ == "__main__":
    main()

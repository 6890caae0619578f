"""What each trial is given of a GPU: slots as Ray counts them, fractions that fit, and verdicts of memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from packing_cluster import CLUSTERS, simulate
from search_checks import study_trials
from search_doubles import make_plan

from tlsearch.config import ResourcesSpec
from tlsearch.core.types import EndReason, EpochReport, TrialConfig, TrialOutcome
from tlsearch.search.controller.controller import Controller
from tlsearch.search.ray_tune.resources import job_resources, settle_shares
from tlsearch.search.scheduling.packing import (
    BUSY,
    PEAK,
    USED,
    USED_PERCENT,
    Shares,
    Use,
    fits,
    has_room,
    num_slots,
    per_device,
    trials_per_device,
)
from tlsearch.search.study.storage import open_for_writing, study_attrs
from tlsearch.search.worker.messages import pack

GB = 1e9
HEAD, DEEP = TrialConfig(backbone="resnet18"), TrialConfig(backbone="resnet18", unfreeze_depth=5)


def use(peak_gb: float, busy: float | None = 0.25, *, config: TrialConfig = DEEP, device_s: float = 1.0) -> Use:
    return Use(config=config, peak_bytes=peak_gb * GB, device_bytes=80 * GB, busy=busy, device_s=device_s)


def report(epoch: int, *, peak_gb: float, stages: int = 5, busy: float = 50.0) -> EpochReport:
    gpu = {PEAK: peak_gb * 1e3, USED: 8e3, USED_PERCENT: 10.0, BUSY: busy}
    metrics = {"val_accuracy": 0.5, "trainable_stages": float(stages), "epoch_seconds": 10.0, **gpu}
    return EpochReport(epoch=epoch, metrics=metrics, timestamp=float(epoch))


@pytest.mark.parametrize(
    ("share", "gpus", "slots"),
    [(0.15, 8, 48), (0.4, 4, 8), (1 / 3, 1, 3), (0.6, 2, 2), (1.0, 3, 3), (0.1, 1, 10), (0.25, 0.5, 2), (0.25, 0, 0)],
)
def test_no_trial_spans_two_devices(share: float, gpus: float, slots: int) -> None:
    assert num_slots(1.0, share, [{"Resources": {"CPU": 64.0, "GPU": gpus}}]) == slots
    assert per_device(share) * share <= 1.0001


@pytest.mark.parametrize(
    ("uses", "most", "expected"),
    [
        ([], 8, 1),  # nothing is known yet
        ([use(10)], 8, 4),  # a quarter of the time each: four fill the device
        ([use(10)], 3, 3),  # its node has CPUs for three
        ([use(10, 0.95)], 8, 1),  # one keeps it busy
        ([use(10, None)], 8, 2),  # no library tells how busy it is
        ([use(30)], 8, 2),  # two fit by memory
        ([use(60)], 8, 1),
        ([use(5, 0.1), use(60, device_s=0.2)], 8, 8),  # now and then a device is emptied for a large one
        ([use(5, 0.1), use(60, device_s=2.0)], 8, 1),  # too often
    ],
)
def test_as_many_share_a_device_as_its_memory_and_its_time_suffice_for(
    uses: list[Use], most: int, expected: int
) -> None:
    assert trials_per_device(uses, most=most) == expected


def test_a_trial_fits_where_one_that_needs_as_much_did() -> None:
    uses = [use(8)]
    assert fits(DEEP, 4, uses) and fits(HEAD, 4, uses)
    assert not fits(TrialConfig(backbone="resnet18", unfreeze_depth=5, batch_size=64), 4, uses)
    assert not fits(TrialConfig(backbone="vit_b_16"), 4, uses)
    assert not fits(DEEP, 8, uses)  # with what an allocator and CUDA take beside it
    assert not fits(DEEP, 4, [use(8), use(float("inf"), config=HEAD)])  # one that needs less has run out of memory


def test_a_trial_is_measured_once_all_its_stages_train() -> None:
    first, second = report(1, peak_gb=2, stages=3, busy=80), report(2, peak_gb=6, busy=40)
    assert Use.of(DEEP, 0.5, [first]) is None
    found = Use.of(DEEP, 0.5, [first, second])
    assert found is not None and found.busy == pytest.approx(0.3)  # of a device that it had half of
    assert (found.peak_bytes, found.device_bytes, found.device_s) == (6 * GB, pytest.approx(80 * GB), 10.0)


@pytest.mark.parametrize(
    ("spec", "gpus", "expected"),
    [
        (ResourcesSpec(), 0, 0.0),  # such a trial computes on the CPU, whatever CUDA shows it
        (ResourcesSpec(gpus_per_trial=0), 4, 0.0),
        (ResourcesSpec(gpus_per_trial=0.5), 4, 0.5),
        (ResourcesSpec(), 4, 1.0),  # nothing is measured yet
    ],
)
def test_a_job_has_its_fraction_and_ray_holds_it(
    tmp_path: Path, spec: ResourcesSpec, gpus: float, expected: float
) -> None:
    with_plan = Started(tmp_path / "s", spec, gpus)
    job = with_plan.controller.next_trial()
    assert job is not None and job.assignment.gpus == expected
    assert job_resources(1.0, pack(job)) == {"cpu": 1.0, "gpu": expected}
    with_plan.study.close()


class Started:
    """A start of a search whose cluster has these GPUs on one node of 16 CPUs."""

    def __init__(self, root: Path, spec: ResourcesSpec, gpus: float) -> None:
        self.plan = make_plan(root, trials=6, scheduler=None)
        self.study = open_for_writing(self.plan.folder, attrs=study_attrs(self.plan))
        self.controller = Controller(self.plan, self.study)
        resources: dict[str, Any] = {"CPU": 16.0, **({"GPU": gpus} if gpus else {})}
        settle_shares(self.controller.shares, spec, [{"Resources": resources}])

    def next(self) -> tuple[int, float | None]:
        job = self.controller.next_trial()
        assert job is not None
        return job.assignment.number, job.assignment.gpus


def test_running_out_of_memory_in_a_fraction_is_no_verdict(tmp_path: Path) -> None:
    memory = TrialOutcome(reason=EndReason.MEMORY, error="CUDA out of memory")
    start = Started(tmp_path / "s", ResourcesSpec(gpus_per_trial=0.25), 2)
    (first, share), (second, _) = start.next(), start.next()
    assert share == 0.25
    assert start.controller.fail(first, memory)  # the neighbour's, or its own: it runs again
    assert start.controller.job(first).assignment.gpus == 1.0
    assert start.controller.report(first, report(1, peak_gb=9))  # it was the neighbour's: nothing is lost
    assert start.controller.fail(second, memory)
    start.study.close()

    again = Started(tmp_path / "s", ResourcesSpec(gpus_per_trial=0.25), 2)
    assert [again.next(), again.next()] == [(first, 1.0), (second, 1.0)]
    assert not again.controller.fail(second, memory)  # alone it is its own
    again.study.close()
    found = study_trials(tmp_path / "s")
    assert [trial.state.name for trial in found] == ["RUNNING", "PRUNED"]
    assert (found[1].constraints, found[1].user_attrs["reason"]) == ({"memory": 1.0}, "memory")


def test_trials_are_packed_once_one_was_measured_and_a_resume_knows_it(tmp_path: Path) -> None:
    start = Started(tmp_path / "s", ResourcesSpec(), 2)
    number, share = start.next()
    assert (share, start.controller.shares.usual) == (1.0, 1.0)
    start.controller.report(number, report(1, peak_gb=3, busy=20))
    assert start.controller.shares.usual == 0.1666
    start.study.close()
    again = Started(tmp_path / "s", ResourcesSpec(), 2)
    assert again.controller.shares.usual == 0.1666
    again.study.close()


@pytest.mark.parametrize(
    ("live", "share", "slots", "expected"),
    [
        ([], 0.25, 8, True),
        ([0.25] * 7, 0.25, 8, True),
        ([0.25] * 8, 0.25, 8, False),
        ([0.25] * 3 + [1.0], 0.25, 8, True),
        ([0.25] * 4 + [1.0], 0.25, 8, False),  # the whole device that it has, or waits for, is not given away
        ([0.5] * 3, 0.25, 8, True),  # of an earlier fraction
        ([0.5, 0.1666, 0.1666], 0.1666, 6, True),
        ([0.25] * 6, 0.1666, 12, False),  # 9 of 12 by their sum: Ray may have put four on one device, and has two slots
        ([0.1666] * 8, 0.25, 8, False),  # two of them do not fit into a slot
        ([0.25] * 2, 0.5, 2, True),  # two fit, and are on one device: Ray fills the fullest first
        ([0.0] * 2, 0.0, 2, False),
    ],
)
def test_room_is_kept_for_a_trial_that_waits_for_a_whole_device(
    live: list[float], share: float, slots: int, expected: bool
) -> None:
    assert has_room(live, share, slots) is expected


@pytest.mark.parametrize(("name", "gain"), [*zip(CLUSTERS, (1.8, 1.3, 1.1, 0.8), strict=True)])
def test_on_unlike_devices_no_slot_is_overcounted_and_none_is_idle_while_trials_wait(name: str, gain: float) -> None:
    whole, auto = (simulate(CLUSTERS[name], gpus_per_trial=given, trials=60) for given in (1.0, None))
    assert auto.overcounted == 0
    assert auto.idle < 0.01
    assert auto.hours * gain < whole.hours
    assert sum(auto.reasons.values()) == 60 and "error" not in auto.reasons
    assert len(auto.fractions) > 1


def test_shares_know_nothing_before_the_cluster_does() -> None:
    assert Shares().usual is None and Shares().of(HEAD, alone=False) is None


@pytest.mark.parametrize(
    ("known", "asked", "fitting"),
    [(96, 64, True), (64, 96, False), (None, None, True), (None, 64, False), (96, None, False)],
)
def test_a_trial_of_smaller_images_needs_no_more(known: int | None, asked: int | None, fitting: bool) -> None:
    trial, other = (TrialConfig(backbone="resnet18", image_size=size, unfreeze_depth=5) for size in (known, asked))
    assert fits(other, 2, [use(5, config=trial)]) == fitting

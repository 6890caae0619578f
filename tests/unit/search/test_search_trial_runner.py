"""A trial in its worker: what is retried, what is not, and reports that a crash held back."""

from __future__ import annotations

import errno
import gc
import json
import threading
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from search_doubles import StubTrial, TinySpace, make_plan, read_log

from tlsearch.core.errors import DamagedImages, DataError, Diverged, FrozenMoved, Infeasible, StorageError
from tlsearch.core.types import EndReason, EpochReport, TrialAssignment, TrialOutcome, WeightsSource
from tlsearch.search.worker.messages import Job, Message, pack, unpack_job, unpack_message
from tlsearch.search.worker.trial_errors import ErrorStreak, classify
from tlsearch.search.worker.trial_runner import Runner


def assignment(root: Path) -> TrialAssignment:
    root.mkdir(exist_ok=True)
    plan = make_plan(root)
    point = TinySpace().default_point()
    directory = str(plan.folder.trial(0))
    return TrialAssignment(number=0, seed=5, config=TinySpace().to_config(point), setup=plan.setup, directory=directory)


def runner(root: Path, *, reported: int = 0, max_failures: int = 2, factory: Any = StubTrial) -> Runner:
    return Runner(Job(assignment=assignment(root), reported=reported, max_failures=max_failures), factory)


def behave(root: Path, rules: dict[str, Any]) -> None:
    root.mkdir(parents=True, exist_ok=True)
    (root / "behaviour.json").write_text(json.dumps({"all": rules}))


def epochs(root: Path) -> list[int]:
    return [line["epoch"] for line in read_log(root) if line["what"] == "epoch"]


def errors(root: Path) -> int:
    return sum(line["what"] in ("error", "error_once") for line in read_log(root))


def test_a_passing_error_is_retried_from_the_checkpoint(tmp_path: Path) -> None:
    root = tmp_path / "s"
    behave(root, {"kind": "error_once", "epoch": 3})
    trial = runner(root)
    messages = [trial.step() for _ in range(4)]
    assert [m.report.epoch for m in messages if m.report] == [1, 2, 3, 4]
    assert errors(root) == 1
    assert epochs(root) == [1, 2, 3, 4]


def test_without_a_checkpoint_the_epochs_are_repeated(tmp_path: Path) -> None:
    root = tmp_path / "s"
    behave(root, {"kind": "error_once", "epoch": 3, "checkpoint": False})
    trial = runner(root)
    messages = [trial.step() for _ in range(5)]
    assert [m.report.epoch for m in messages if m.report] == [1, 2, 1, 2, 3]  # the driver ignores the second 1, 2
    assert messages[0].report == messages[2].report


@pytest.mark.parametrize("max_failures", [0, 1, 2])
def test_after_max_failures_the_trial_has_failed(tmp_path: Path, max_failures: int) -> None:
    root = tmp_path / "s"
    behave(root, {"kind": "error", "epoch": 2})
    trial = runner(root, max_failures=max_failures)
    assert trial.step().report is not None
    message = trial.step()
    ended = message.outcome
    assert message.report is None and ended is not None
    assert (ended.reason, ended.error) == ("error", "RuntimeError: no such thing")
    assert errors(root) == max_failures + 1
    assert "raise RuntimeError" in ended.traceback


@pytest.mark.parametrize(("kind", "reason"), [("diverge", "diverged"), ("memory", "memory")])
def test_what_is_no_bug_is_not_retried(tmp_path: Path, kind: str, reason: str) -> None:
    root = tmp_path / "s"
    behave(root, {"kind": kind})
    message = runner(root).step()
    assert message.outcome is not None and message.outcome.reason == reason
    assert sum(line["what"] == "open" for line in read_log(root)) == 1, read_log(root)


class Reporting(StubTrial):
    """Reports what the test wants."""

    metrics: dict[str, float] = {}

    def step(self) -> EpochReport:
        super().step()
        return EpochReport(epoch=1, metrics=self.metrics, timestamp=0.0)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_is_a_divergence(tmp_path: Path, value: float) -> None:
    Reporting.metrics = {"val_accuracy": 0.5, "train_loss": value}
    message = runner(tmp_path / "s", factory=Reporting).step()
    ended = message.outcome
    assert ended is not None and ended.reason == "diverged" and "train_loss is" in ended.error


def test_a_report_without_the_metric_is_an_error(tmp_path: Path) -> None:
    behave(tmp_path / "s", {"checkpoint": False})
    Reporting.metrics = {"val_loss": 0.5}
    message = runner(tmp_path / "s", factory=Reporting).step()
    ended = message.outcome
    assert ended is not None and ended.reason == "error"
    assert "must hold val_accuracy; it holds val_loss" in ended.error


def test_a_report_that_never_reached_the_study_is_sent_again(tmp_path: Path) -> None:
    root = tmp_path / "s"
    first = runner(root)
    sent = [first.step().report for _ in range(3)]
    again = runner(root, reported=1)
    assert [again.step().report for _ in range(2)] == sent[1:]
    assert epochs(root) == [1, 2, 3]  # nothing was trained twice
    following = again.step().report
    assert following is not None and following.epoch == 4


class Forgetful(StubTrial):
    """Its checkpoint keeps no reports."""

    def __init__(self, assignment: TrialAssignment) -> None:
        self._done = 0
        super().__init__(assignment)
        self._done, self.reports = len(self.reports), []

    @property
    def epochs_done(self) -> int:
        return self._done + len(self.reports)


def test_a_checkpoint_ahead_without_its_report_is_given_up(tmp_path: Path) -> None:
    root = tmp_path / "s"
    first = runner(root)
    sent = [first.step().report for _ in range(2)]
    again = runner(root, reported=1, factory=Forgetful)
    assert again.step().report == sent[0]
    assert again.step().report == sent[1]


def test_a_drain_warning_ends_each_epoch_with_a_checkpoint(tmp_path: Path) -> None:
    root = tmp_path / "s"
    behave(root, {"checkpoint": False})
    warned = threading.Event()
    job = Job(assignment=assignment(root), reported=0, max_failures=0)
    first = Runner(job, StubTrial, leaving=warned.is_set)
    sent = [first.step().report]
    warned.set()
    sent += [first.step().report for _ in range(2)]
    assert [line["epoch"] for line in read_log(root) if line["what"] == "save"] == [2, 3]
    elsewhere = Runner(replace(job, reported=2), StubTrial)  # the last report did not arrive
    assert elsewhere.step().report == sent[2]
    following = elsewhere.step().report
    assert following is not None and following.epoch == 4
    assert epochs(root) == [1, 2, 3, 4]


def test_a_spoilt_process_ends_with_its_error(tmp_path: Path) -> None:
    class Spoilt(StubTrial):
        def step(self) -> EpochReport:
            raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="CUDA error"):
        runner(tmp_path / "s", factory=Spoilt).step()


def test_opening_may_fail_too(tmp_path: Path) -> None:
    def broken(assignment: TrialAssignment) -> StubTrial:
        raise DataError("the images are gone")

    ended = runner(tmp_path / "s", factory=broken).step().outcome
    assert ended is not None and (ended.reason, ended.error) == ("error", "DataError: the images are gone")


class OutOfMemoryError(RuntimeError):
    """As torch names its own."""


def _caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "reason", "retry"),
    [
        (Diverged("x"), "diverged", False),
        (Infeasible("x"), "memory", False),
        (MemoryError(), "memory", False),
        (OutOfMemoryError("x"), "memory", False),
        (RuntimeError("CUDA error: out of memory"), "memory", False),
        (FrozenMoved("x"), "error", False),
        (DataError("x"), "error", False),
        (RuntimeError("x"), "error", True),
        (OSError("x"), "error", True),
        (OSError(errno.ENOSPC, "No space left on device"), "storage", False),
        (OSError(errno.EROFS, "Read-only file system"), "storage", False),
        (RuntimeError("I/O error: No space left on device (os error 28)"), "storage", False),
        (_caused(StorageError("the image cache cannot be written"), OSError(errno.EDQUOT, "quota")), "storage", False),
    ],
)
def test_errors_are_classified(error: Exception, reason: str, retry: bool) -> None:
    found = classify(error)
    assert (found.outcome.reason, found.retry, found.sticky) == (reason, retry, False)


def test_running_out_of_memory_that_others_hold_is_retried_and_no_verdict(tmp_path: Path) -> None:
    root = tmp_path / "s"
    behave(root, {"kind": "memory", "epoch": 1})
    others = ["other processes hold 9.0 of the 16.0 GB of this GPU"] * 2
    job = Job(assignment=assignment(root), reported=0, max_failures=1)
    ended = Runner(job, StubTrial, taken=lambda: others.pop()).step().outcome
    assert ended is not None and (ended.reason, others) == ("error", [])
    assert ended.error.startswith("other processes hold 9.0 of the 16.0 GB of this GPU: Infeasible: ")
    ended = Runner(job, StubTrial).step().outcome
    assert ended is not None and ended.reason == "memory"


def test_a_failed_step_holds_nothing_any_more_when_its_trial_is_closed(tmp_path: Path) -> None:
    held: list[weakref.ref[Any]] = []
    at_close: list[object] = []

    class Activations:
        """What a step has on the device."""

    class Running(StubTrial):
        def step(self) -> EpochReport:
            activations = Activations()
            held.append(weakref.ref(activations))
            raise RuntimeError(f"at {activations}")

        def close(self) -> None:
            gc.collect()
            at_close.extend(one() for one in held)

    assert runner(tmp_path / "s", max_failures=0, factory=Running).step().outcome is not None
    assert at_close == [None]


def test_a_streak_is_of_one_error_and_without_other_ends() -> None:
    streak = ErrorStreak(3)
    assert streak.failed(1, "OSError: at 0x7f01 of 12 bytes") is None
    assert streak.failed(2, "OSError: at 0x8a02 of 13 bytes") is None
    streak.broken()
    assert streak.failed(3, "OSError: at 0x8a02 of 13 bytes") is None
    assert streak.failed(4, "ValueError: other") is None
    assert streak.failed(5, "ValueError: other") is None
    stopped = streak.failed(6, "ValueError: other\nmore")
    assert "trial 6: ValueError: other" in str(stopped)


def test_damaged_images_are_enough_once() -> None:
    damaged = classify(DamagedImages("1 of 18 images cannot be used: a.png")).outcome.error
    stopped = ErrorStreak(3).failed(4, damaged)
    assert "trial 4 has met damaged images, which every trial reads: 1 of 18" in str(stopped)


@pytest.mark.parametrize("error", [DataError("1 of 18 images cannot be used"), RuntimeError("DamagedImages: x")])
def test_another_error_does_not_end_the_search_at_once(error: Exception) -> None:
    assert ErrorStreak(3).failed(4, classify(error).outcome.error) is None


def test_jobs_and_messages_travel_unchanged(tmp_path: Path) -> None:
    start = assignment(tmp_path / "s")
    setup = replace(start.setup, weights={"resnet18": WeightsSource(kind="file", path="/w.pth")})
    job = Job(assignment=replace(start, setup=setup), reported=3, max_failures=2)
    assert unpack_job(pack(job)) == job
    report = EpochReport(
        epoch=2, metrics={"val_accuracy": 0.1 + 0.2}, timestamp=1.5, source="features", source_reason="y"
    )
    message = Message(number=4, node="n", report=report)
    assert unpack_message(pack(message)) == message
    failed = Message(number=4, node="n", outcome=TrialOutcome(reason=EndReason.ERROR, error="e"))
    assert unpack_message(pack(failed)) == failed

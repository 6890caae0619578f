"""A disk that is full in the middle of a search: it pauses with a message, and goes on when there is room."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from crashing import SPACE, check_mlflow, prepare_root
from feature_keys import KEY
from preparing import starting
from search_doubles import QuickTrial, Recorder, drive, with_factory
from twice import told

from tlsearch.app.searches import execute, prepare
from tlsearch.core.errors import StorageError
from tlsearch.core.types import CacheSpec, Decision, EpochReport, TrialState
from tlsearch.features import Features, NotStored, open_features
from tlsearch.search import read_search
from tlsearch.tracking.mlflow_database import make_sqlite
from tlsearch.trial import FineTuning, finetuning

pytestmark = pytest.mark.timeout(600)

NAME, TRIALS = "killed", 4
CURVE = 5  # where a row of `told` has its epochs and metrics


class Disk:
    """A small file system in memory that can be filled up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self, leave: int) -> None:
        """Until so many bytes are left."""
        left = os.statvfs(self.path).f_bavail * os.statvfs(self.path).f_frsize
        with open(self._filler, "ab", buffering=0) as file, suppress(OSError):  # others write, too
            file.write(b"\0" * max(0, left - leave))

    def make_room(self) -> None:
        self._filler.unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with mounted(tmp_path / "disk") as found:
        yield found


@contextmanager
def mounted(path: Path) -> Iterator[Disk]:
    if os.geteuid() != 0:
        pytest.skip("only root mounts a file system")
    path.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(path)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"a file system cannot be mounted here: {done.stderr.decode().strip()}")
    try:
        yield Disk(path)
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


class AtReport(Recorder):
    """Does something once, at the first report of a trial."""

    def __init__(self, number: int, act: Any) -> None:
        super().__init__()
        self._number, self._act = number, act

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        super().trial_reported(number, report, decision)
        if number == self._number and report.epoch == 1:
            self._act()


def search(root: Path, monkeypatch: pytest.MonkeyPatch, *, factory: Any = FineTuning, observers: Any = ()) -> str:
    """Begins the search of ``crashing`` in a folder, or goes on with it."""
    monkeypatch.setattr(execute, "run_search", with_factory(drive, factory))
    with starting(prepare.RunOptions(file=root / "space.yaml", name=NAME)) as prepared:
        return execute.execute(prepared, observers=observers, stop=threading.Event()).reason


def check_paused(root: Path, before: list[tuple[Any, ...]]) -> None:
    """What had ended stands, what ran can go on, and nothing is half written."""
    record = read_search(root / "tlsearch_runs" / NAME)
    ended = [
        row for row, trial in zip(told(record), record.trials, strict=True) if trial.state is not TrialState.RUNNING
    ]
    assert ended[: len(before)] == before and len(before) >= 1
    assert all(trial.state in (TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED) for trial in record.trials)
    assert [*root.rglob("*.tmp"), *root.rglob("*.torn-*")] == []
    assert (root / "tlsearch_runs" / NAME / "study.journal").read_bytes().endswith(b"\n")


def whole(root: Path, monkeypatch: pytest.MonkeyPatch, factory: Any, space: str = SPACE) -> list[tuple[Any, ...]]:
    """The same search on a disk with room."""
    root.mkdir()
    prepare_root(root, TRIALS, space)
    assert search(root, monkeypatch, factory=factory) == "finished"
    return told(read_search(root / "tlsearch_runs" / NAME))


@pytest.mark.parametrize("what", ["study", pytest.param("checkpoint", marks=pytest.mark.slow)])
def test_the_search_pauses_and_goes_on(tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)
    factory = FineTuning if what == "checkpoint" else Quick
    root, before = disk.path, []
    prepare_root(root, TRIALS)
    make_sqlite(f"sqlite:///{root / 'mlflow.db'}")  # one that is being made would give back what it has taken

    def spoil() -> None:
        before.extend(told(read_search(root / "tlsearch_runs" / NAME))[:1])
        disk.fill(leave=400_000 if what == "checkpoint" else 0)

    with pytest.raises(StorageError, match=r"No space left on device.*tlsearch resume") as error:
        search(root, monkeypatch, factory=factory, observers=[AtReport(1, spoil)])
    assert ("trial 1 cannot write" in str(error.value)) == (what == "checkpoint")
    check_paused(root, before)
    disk.make_room()
    assert search(root, monkeypatch, factory=factory) == "finished"
    folder = root / "tlsearch_runs" / NAME
    assert told(read_search(folder)) == whole(tmp_path / "whole", monkeypatch, factory)
    if what == "checkpoint":
        check_mlflow(root)


class Quick(QuickTrial):
    """With the metric of the search."""

    def step(self) -> EpochReport:
        report = super().step()
        metrics = {"val_loss": 1 - report.metrics["val_accuracy"], "train_loss": 1.0 / report.epoch}
        self.reports[-1] = EpochReport(epoch=report.epoch, metrics=metrics, timestamp=report.timestamp)
        return self.reports[-1]


def similar(metrics: Mapping[str, float]) -> dict[str, float]:
    """Metrics with the similarity of features in place of the drift, which is 1 less it: the similarity is rounded."""
    return {name: 1 - value if name == "feature_drift" else value for name, value in metrics.items()}


def check_same_but_for_rounding(found: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> None:
    """The same trials with the same curves; whether an epoch reads pixels or features may change the last digits."""
    assert [trial[:CURVE] for trial in found] == [trial[:CURVE] for trial in other]
    for one, another in zip(found, other, strict=True):
        assert [epoch for epoch, _ in one[CURVE]] == [epoch for epoch, _ in another[CURVE]]
        for (_, metrics), (_, expected) in zip(one[CURVE], another[CURVE], strict=True):
            assert similar(metrics) == pytest.approx(similar(expected), rel=1e-5)


@pytest.mark.slow
def test_no_room_for_the_packed_images(
    tmp_path: Path, disk: Disk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The cache is on a disk of its own: images are decoded in every epoch then, and it is said."""
    monkeypatch.setenv("TLSEARCH_CACHE_DIR", str(disk.path / "cache"))
    (disk.path / "cache").mkdir()
    disk.fill(leave=8192)
    slow = SPACE.replace("[1.0e-4, 1.0e-1]", "[1.0e-4, 1.0e-3]").replace("[1.0e-5, 1.0e-2]", "[1.0e-5, 1.0e-4]")
    found = whole(tmp_path / "full", monkeypatch, FineTuning, slow)  # at high rates rounding grows into other curves
    assert "images at 32 px are decoded in every epoch" in caplog.text
    assert not list(disk.path.rglob("*.bin")) and not list(disk.path.rglob("*.tmp"))
    disk.make_room()
    check_same_but_for_rounding(found, whole(tmp_path / "roomy", monkeypatch, FineTuning, slow))
    assert list(disk.path.rglob("*.bin"))


def test_a_disk_that_fills_up_in_the_middle_of_a_features_pass(disk: Disk) -> None:
    """The trial is told why it reads pixels; of the pass nothing stays, and with room it is made."""
    cache = CacheSpec(directory=str(disk.path / "cache"), features_gb=1.0)
    rows = torch.randn(64, 16384)  # 4 MiB

    def filling() -> Iterator[torch.Tensor]:
        yield rows[:32]
        disk.fill(leave=100_000)
        yield rows[32:]

    found = open_features(KEY, num_rows=64, compute=filling, cache=cache)
    assert isinstance(found, NotStored) and "No space left on device" in found.reason
    assert {path.suffix for path in (disk.path / "cache" / "features").iterdir()} == {".lock"}
    disk.make_room()
    found_again = open_features(KEY, num_rows=64, compute=lambda: iter(rows.split(32)), cache=cache)
    assert isinstance(found_again, Features) and found_again.built and torch.equal(found_again.rows, rows)

"""The trials of a search whose storage is a bucket: in their workers, and in the driver when they end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from tlsearch.core.errors import StorageError
from tlsearch.core.layout import VAL_LOGITS, SearchFolder
from tlsearch.core.types import (
    EpochReport,
    RunningTrial,
    SearchObserver,
    TrialAssignment,
    TrialConfig,
    TrialFactory,
    TrialOutcome,
)
from tlsearch.search.bucket import Mirror, machine_folder


class BucketTrial:
    """A RunningTrial whose checkpoints are in the bucket before its reports are sent."""

    def __init__(self, inner: RunningTrial, push: Callable[[], None]) -> None:
        self._inner, self._push = inner, push

    @property
    def epochs_done(self) -> int:
        """Of the trial."""
        return self._inner.epochs_done

    @property
    def reports(self) -> Sequence[EpochReport]:
        """Of the trial."""
        return self._inner.reports

    def step(self) -> EpochReport:
        """One epoch."""
        report = self._inner.step()
        self._push()
        return report

    def save(self) -> None:
        """The running checkpoint, into the bucket too."""
        self._inner.save()
        self._push()

    def close(self) -> None:
        """Closes the trial."""
        self._inner.close()


@dataclass(frozen=True, kw_only=True)
class ThroughBucket:
    """A TrialFactory for workers that share no folder; travels to them.

    Attributes:
        uri: Of the search.
        inner: Opens the trial in this machine's folder; None is the real fine-tuning.
    """

    uri: str
    inner: TrialFactory | None = None

    def __call__(self, assignment: TrialAssignment) -> BucketTrial:
        """Takes the trial's checkpoints, then opens it."""
        # A folder of the workers', apart from the driver's on the same machine.
        mirror = Mirror(uri=self.uri, directory=machine_folder(f"{self.uri}#workers"))
        part = f"trials/{assignment.number}"
        mirror.pull(part)
        here: Any = replace(assignment, directory=str(mirror.directory / part))
        if self.inner is not None:
            return BucketTrial(self.inner(here), lambda: mirror.push(part))
        from tlsearch.search.ray_tune.trainable import fine_tuning  # imports Ray, which those who only look do without

        return BucketTrial(fine_tuning(here), lambda: mirror.push(part))


class Fetcher(SearchObserver):
    """Brings what an ended trial leaves to the driver; comes before the observers that read it.

    Args:
        models: Fetch each trial's model when it ends; else those alone that ``fetch`` is called for.
    """

    def __init__(self, mirror: Mirror, *, models: bool) -> None:
        self._mirror, self._models = mirror, models

    def trial_started(self, number: int, config: TrialConfig) -> None:
        """From now on a start on another machine finds the study."""
        self._mirror.push_own()

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """Takes the logits of the best model; the checkpoint to go on from has served."""
        self._mirror.drop(f"trials/{number}/running")
        if self._models:
            self.fetch(number)
        self._mirror.pull(f"trials/{number}/{VAL_LOGITS}")

    def fetch(self, number: int) -> None:
        """Takes a trial's best model.

        Raises:
            StorageError: The bucket cannot be read.
        """
        self._mirror.pull(f"trials/{number}/best")


class Dropper(SearchObserver):
    """Removes from the bucket what the driver no longer keeps; comes after the tidier."""

    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror
        self._ended: set[int] = set()

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        """Drops the models that are gone here, where the logits stay."""
        self._ended.add(number)
        folder = SearchFolder(root=self._mirror.directory)
        for one in [one for one in self._ended if not folder.best(one).is_dir()]:
            with suppress(StorageError):
                self._mirror.push(f"trials/{one}")
            self._ended.discard(one)

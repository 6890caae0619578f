"""A fine-tuning that replays recorded curves: for testing and measuring the search without training.

Curves are recorded from real trials (``benchmarks/record_curves.py``). A replayed trial gives the recorded
reports of the configuration that is nearest to its own, picks up checkpoints and fails as a real one does; it
trains nothing, reads no image and leaves no model.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from tlsearch.core.codec import from_plain, read_json
from tlsearch.core.crash import crash_point
from tlsearch.core.errors import Diverged, UserError
from tlsearch.core.files import write_atomically
from tlsearch.core.types import EpochReport, Scalar, TrialAssignment, TrialConfig

FORMAT = 1
_CHECKPOINT = "replay.json"
_RATES = ("head_lr", "backbone_lr")


@dataclass(frozen=True, kw_only=True)
class Curve:
    """What one real trial reported.

    Attributes:
        max_epochs: Epochs that the trial was to run; schedules depend on it.
        columns: By metric its values of epochs 1, 2, ...
        opening_s: Seconds before the first epoch, the build of stored features included.
        diverged_s: Seconds of the epoch after the last one, in which the trial diverged; None where it did not.
        sources: What each epoch read: features or pixels.
    """

    config: TrialConfig
    seed: int
    max_epochs: int
    columns: Mapping[str, tuple[float, ...]]
    opening_s: float = 0.0
    diverged_s: float | None = None
    sources: tuple[str, ...] = ()

    @property
    def num_epochs(self) -> int:
        """Epochs that were reported."""
        return min((len(values) for values in self.columns.values()), default=0)

    def report(self, epoch: int, timestamp: float) -> EpochReport:
        """The recorded report of an epoch, from 1."""
        return EpochReport(
            epoch=epoch,
            metrics={name: values[epoch - 1] for name, values in self.columns.items()},
            timestamp=timestamp,
            source=self.sources[epoch - 1] if self.sources else "pixels",
            source_reason="replayed",
        )


@dataclass(frozen=True, kw_only=True)
class Curves:
    """Recorded curves; ``about`` says of what: data, versions, machine."""

    curves: tuple[Curve, ...]
    about: Mapping[str, Any] = field(default_factory=dict)

    def nearest(self, config: TrialConfig, seed: int = 0) -> Curve:
        """The curve of the nearest configuration; of its several seeds the same one, else one that the seed picks.

        Raises:
            UserError: No curve of this backbone was recorded.
        """
        near = [(distance(config, curve.config), curve) for curve in self.curves]
        shortest = min((apart for apart, _ in near), default=math.inf)
        if math.isinf(shortest):
            raise UserError(f"no curve of {config.backbone} was recorded")
        candidates = sorted((curve for apart, curve in near if apart == shortest), key=lambda curve: curve.seed)
        equal = [curve for curve in candidates if curve.seed == seed]
        return equal[0] if equal else candidates[seed % len(candidates)]


def write_curves(path: Path, curves: Curves) -> None:
    """Writes curves as JSON, one to a line; a reader sees the old file or the new one."""
    lines = ",\n".join(json.dumps(_plain(curve)) for curve in curves.curves)
    head = json.dumps({"format": FORMAT, "about": dict(curves.about)})
    write_atomically(path, f'{head[:-1]}, "curves": [\n{lines}\n]}}\n')


def read_curves(path: Path) -> Curves:
    """Reads what ``write_curves`` wrote.

    Raises:
        UserError: The file is not of this format.
    """
    try:
        plain = read_json(path)
        if plain["format"] != FORMAT:
            raise ValueError(f"its format is {plain['format']}")
        return Curves(curves=tuple(_curve(one) for one in plain["curves"]), about=plain["about"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} must hold recorded curves: {error}") from error


class ReplayedTrial:
    """A RunningTrial over a recorded curve; its checkpoint is a JSON file, written before each report."""

    def __init__(self, assignment: TrialAssignment, curve: Curve, *, speed: float | None = None) -> None:
        """Goes on from the trial's checkpoint, if it is this trial's.

        Args:
            curve: What to replay.
            speed: An epoch takes its recorded seconds divided by this; None: no time.

        Raises:
            UserError: The search's trials are longer than the recorded ones.
        """
        wanted = assignment.setup.max_epochs
        if wanted > curve.max_epochs:
            raise UserError(f"trials of {wanted} epochs cannot be replayed from curves of {curve.max_epochs}")
        self._assignment, self._curve, self._speed = assignment, curve, speed
        self._path = Path(assignment.directory) / "running" / _CHECKPOINT
        self._closed = False
        self._reports = self._restore()
        if speed and not self._reports:
            time.sleep(curve.opening_s / speed)

    @property
    def epochs_done(self) -> int:
        """The last epoch done; 0 before the first."""
        return len(self._reports)

    @property
    def reports(self) -> Sequence[EpochReport]:
        """The reports of all epochs done, those before a resume included."""
        return tuple(self._reports)

    def step(self) -> EpochReport:
        """The next epoch's recorded report.

        Raises:
            Diverged: The real trial diverged here.
        """
        assert not self._closed, "the trial is closed"
        epoch, wanted = self.epochs_done + 1, self._assignment.setup.max_epochs
        assert epoch <= wanted, f"a trial of {wanted} epochs has no epoch {epoch}"
        if epoch > self._curve.num_epochs:
            if self._speed:
                time.sleep((self._curve.diverged_s or 0.0) / self._speed)
            raise Diverged(f"the recorded trial diverged in epoch {epoch}")
        report = self._curve.report(epoch, time.time())
        if self._speed:
            time.sleep(report.metrics.get("epoch_seconds", 0.0) / self._speed)
        self._reports.append(report)
        self.save()
        return report

    def save(self) -> None:
        """Writes the running checkpoint, as each step does."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._path.with_suffix(f".{os.getpid()}.tmp")
        content = {**self._identity(), "reports": [asdict(report) for report in self._reports]}
        temporary.write_text(json.dumps(content), encoding="utf-8")
        os.replace(temporary, self._path)
        crash_point("after_checkpoint")

    def close(self) -> None:
        """Again is harmless."""
        self._closed = True

    def _identity(self) -> dict[str, Any]:
        assignment = self._assignment
        identity = {"number": assignment.number, "seed": assignment.seed, "config": asdict(assignment.config)}
        return {**identity, "max_epochs": assignment.setup.max_epochs}

    def _restore(self) -> list[EpochReport]:
        """The checkpoint's reports; none where it is missing, damaged, or another trial's."""
        try:
            content = read_json(self._path)
            reports = [from_plain(EpochReport, plain) for plain in content.pop("reports")]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return []
        return reports if content == self._identity() else []


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A TrialFactory that replays a file of curves; travels to workers, which must see the file.

    Attributes:
        path: Absolute.
        speed: See ReplayedTrial.
    """

    path: str
    speed: float | None = None

    def __call__(self, assignment: TrialAssignment) -> ReplayedTrial:
        """Opens a trial."""
        curve = _held(self.path).nearest(assignment.config, assignment.seed)
        return ReplayedTrial(assignment, curve, speed=self.speed)


@lru_cache(maxsize=4)
def _held(path: str) -> Curves:
    return read_curves(Path(path))


def distance(one: TrialConfig, other: TrialConfig) -> float:
    """0 for equal ones; infinite for different backbones. A decade of a rate weighs as a level of depth."""
    if one.backbone != other.backbone:
        return math.inf
    apart = 0.0
    for name, value in asdict(one).items():
        theirs = getattr(other, name)
        if value != theirs:
            apart += _apart(name, value, theirs)
    return apart


def _apart(name: str, value: Scalar, theirs: Scalar) -> float:
    if name in _RATES and isinstance(value, float) and isinstance(theirs, float):
        return abs(math.log10(value / theirs))
    if name == "unfreeze_depth" and isinstance(value, int) and isinstance(theirs, int):
        return float(abs(value - theirs))
    return 0.5


def _plain(curve: Curve) -> dict[str, Any]:
    plain = asdict(curve)
    defaults = asdict(TrialConfig(backbone=curve.config.backbone))
    plain["config"] = {
        name: value for name, value in plain["config"].items() if name == "backbone" or value != defaults[name]
    }
    return plain


def _curve(plain: Mapping[str, Any]) -> Curve:
    columns = {name: tuple(values) for name, values in plain["columns"].items()}
    return Curve(
        **{
            **plain,
            "config": TrialConfig(**plain["config"]),
            "columns": columns,
            "sources": tuple(plain.get("sources", ())),
        }
    )

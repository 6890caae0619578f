"""A combination of a search's trials, as it is kept in the search's folder: combined/<kind>.json and combined/<kind>/.

An ensemble averages the probabilities of its members; a soup is one model with the average of their weights (Wortsman
et al., "Model soups", 2022); a distilled model has learned what the ensemble predicts (Hinton et al., 2015).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from tlsearch.core.codec import read_shaped, to_plain
from tlsearch.core.crash import crash_point
from tlsearch.core.errors import StorageError
from tlsearch.core.files import write_atomically
from tlsearch.core.metrics import Objective
from tlsearch.core.text import command
from tlsearch.core.types import SearchRecord, TrialRecord

Kind = Literal["ensemble", "soup", "distilled"]
NAMES: Mapping[Kind, str] = {"ensemble": "ensemble", "soup": "soup", "distilled": "distilled model"}
FOLDER = "combined"  # of the search's folder


def flag_of(kind: str) -> str:
    """The option of ``promote`` that takes a combination of this kind, without its hyphens."""
    return "distill" if kind == "distilled" else kind


def not_made(kind: Kind, search_id: str) -> str:
    """Says that a search has no combination of this kind yet, and what makes it."""
    return f"{search_id} has no {NAMES[kind]} yet: {command_of(kind, search_id)} makes it"


def command_of(kind: str, search_id: str) -> str:
    """The command that makes a combination of this kind."""
    return command(*(("promote", search_id, "--distill") if kind == "distilled" else (kind, search_id)))


@dataclass(frozen=True, kw_only=True)
class Member:
    """A trial in a combination, and how often it is counted: its weight is ``count`` over the sum of all counts.

    In a soup a trial counts once for each of its trainings, which differ in their seeds.
    """

    trial: int
    count: int


@dataclass(frozen=True, kw_only=True)
class Worth:
    """What a combination is worth against the best single trial.

    Attributes:
        value: On all validation images, on which the members were selected too.
        cross_fitted: Mean over halves of the validation images: selected on one half, scored on the other. Of a
            distilled model its ``value``, which is compared with that of the trial whose configuration it has.
        best_trial: The best single trial on all validation images; ``best_value`` is its value there.
        best_cross_fitted: The best single trial, chosen and scored on the same halves.
        helps: Whether the combination is better than the best single trial by the cross-fitted value.
    """

    value: float
    cross_fitted: float
    best_trial: int
    best_value: float
    best_cross_fitted: float
    helps: bool


@dataclass(frozen=True, kw_only=True)
class Combination(Worth):
    """What was combined, what it is worth, and what it costs.

    Attributes:
        members: By falling count; the best single trial alone where no combination ``helps``.
        parameters: Of the whole model; what members share counts once.
        latency_ms: Of one image on this machine's CPU, one thread; None where it was not measured.
        num_val: Validation images.
        best_parameters: Of the best trial's model; None in the file of an earlier version.
        best_latency_ms: As ``latency_ms``, measured in the same call; None in the file of an earlier version.
        search_best: The search's best trial when this was made; None in the file of an earlier version.
        search_best_value: The value that it had.
    """

    kind: Kind
    members: tuple[Member, ...]
    metric: str
    parameters: int
    latency_ms: float | None
    num_val: int
    best_parameters: int | None = None
    best_latency_ms: float | None = None
    search_best: int | None = None
    search_best_value: float | None = None

    @property
    def gain(self) -> float:
        """How much better than the best single trial, cross-fitted; above 0 is better, whatever the metric's mode."""
        objective = Objective.of(self.metric)
        return objective.gain(self.cross_fitted) - objective.gain(self.best_cross_fitted)

    def outdated_by(self, record: SearchRecord) -> TrialRecord | None:
        """The search's best trial, where the search has found it since; None while the comparison holds."""
        best = record.best
        if best is None or self.search_best is None:
            return None
        return None if (best.number, best.best_value) == (self.search_best, self.search_best_value) else best


def combined_model(root: Path, kind: Kind) -> Path:
    """The folder of the combined model in a search's folder ``root``."""
    return root / FOLDER / kind


@contextmanager
def replacing(root: Path, kind: Kind) -> Iterator[Path]:
    """The folder of a new combined model, which the body writes; the search says nothing of it until it is whole."""
    model = combined_model(root, kind)
    model.with_suffix(".json").unlink(missing_ok=True)
    crash_point(f"{kind}_chosen")
    shutil.rmtree(model, ignore_errors=True)
    yield model
    crash_point(f"{kind}_model")


def read_combination(root: Path, kind: Kind) -> Combination | None:
    """What a search's folder ``root`` says of a combination; None where none was made.

    Raises:
        StorageError: The file is damaged.
    """
    path = combined_model(root, kind).with_suffix(".json")
    try:
        return read_shaped(path, Combination)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StorageError(f"a combination's file must be readable: {path}: {error.strerror or error}") from error


def write_combination(root: Path, combination: Combination, record: SearchRecord) -> Combination:
    """Writes the file, whole or not at all; after the model, so that who reads it finds the model complete.

    Args:
        root: The search's folder.
        combination: What was made.
        record: The search that it was made of, as it is now.

    Returns:
        What the file says: with the search's best trial of now.
    """
    if (best := record.best) is not None:
        combination = replace(combination, search_best=best.number, search_best_value=best.best_value)
    path = combined_model(root, combination.kind).with_suffix(".json")
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, json.dumps(to_plain(combination), indent=2))
    return combination

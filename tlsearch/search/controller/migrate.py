"""A changed space: a new study with all trials of the old one, in the order of their numbers.

Optuna refuses a parameter whose choices have changed, so the old study cannot go on. In the new one every
trial keeps its number, state, reports and decisions; its parameters are those of its configuration in the
new space (a dimension that was fixed and is searched now has the trial's value of it). A trial that lies
outside the new space is kept without parameters: the sampler does not learn from it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, create_trial
from optuna.trial import TrialState as OptunaState

from tlsearch.core.codec import from_plain
from tlsearch.core.errors import StorageError
from tlsearch.core.types import TrialConfig
from tlsearch.search.plan import SearchPlan
from tlsearch.search.sampling.points import FirstPoint, first_points
from tlsearch.search.sampling.untried import Configurations, Drafted
from tlsearch.search.study.lock import SearchLock
from tlsearch.search.study.rdb import Pointer, database_errors, write_pointer
from tlsearch.search.study.storage import JOURNAL, open_for_writing, study_attrs
from tlsearch.space import Space


@dataclass(frozen=True, kw_only=True)
class Carried:
    """What became of the trials when a study was superseded.

    Attributes:
        inside: Numbers of those that lie in the new space.
        outside: Of those that do not.
        num_new_points: Starting points of the new space that no trial has tried.
    """

    inside: tuple[int, ...] = ()
    outside: tuple[int, ...] = ()
    num_new_points: int = 0


def supersede(plan: SearchPlan, *, lock: SearchLock | None = None) -> Carried:
    """Carries a search's trials over into a study under the space of ``plan``; does not run it.

    Args:
        lock: The search's, where the caller holds it already.

    Raises:
        StorageError: The search runs, or its study cannot be written.
    """
    folder, url = plan.folder, plan.search.study
    if not folder.journal.exists() and not folder.pointer.exists():
        return Carried()  # it has not begun
    study = open_for_writing(folder, attrs=study_attrs(plan), url=url, lock=lock)
    try:
        with database_errors(url):
            carried, trials = _carry(study.trials(), plan)
            name = study.succeed(trials)
        if url != JOURNAL:
            write_pointer(folder.pointer, Pointer(url=url, name=name))
        return carried
    finally:
        study.close()


def _carry(old: Sequence[FrozenTrial], plan: SearchPlan) -> tuple[Carried, list[FrozenTrial]]:
    """The trials of the new study; what was waiting is chosen again."""
    begun = [trial for trial in old if trial.state is not OptunaState.WAITING]
    if [trial.number for trial in begun] != list(range(len(begun))):
        raise StorageError("the study's trials are not numbered without gaps, so they cannot be carried over")
    found = {trial.number: _locate(trial, plan.space) for trial in begun}
    points = _new_points(begun, plan)
    waiting = [
        create_trial(
            state=OptunaState.WAITING, system_attrs={"fixed_params": dict(point.values)}, user_attrs=point.attrs
        )
        for point in points
    ]
    carried = Carried(
        inside=tuple(number for number, place in found.items() if place),
        outside=tuple(number for number, place in found.items() if not place),
        num_new_points=len(points),
    )
    return carried, [_copy(trial, found[trial.number]) for trial in begun] + waiting


def _locate(trial: FrozenTrial, space: Space) -> Drafted | None:
    """The trial's parameters in the space with their distributions; None where it is outside.

    A trial whose proposal a crash cut short has no configuration: it is proposed again.
    """
    if "config" not in trial.user_attrs:
        return None
    try:
        values = space.values_of(from_plain(TrialConfig, trial.user_attrs["config"]))
    except ValueError:
        return None
    place = Drafted(lambda name, _: values[name])
    space.suggest(place)
    return place


def _copy(trial: FrozenTrial, place: Drafted | None) -> FrozenTrial:
    copied = copy.copy(trial)
    copied.params = dict(place.values) if place else {}
    copied.distributions = place.distributions if place else {}
    copied.system_attrs = {key: value for key, value in trial.system_attrs.items() if key != "fixed_params"}
    return copied


def _new_points(begun: Sequence[FrozenTrial], plan: SearchPlan) -> list[FirstPoint]:
    tried = Configurations().of(begun)
    return [point for point in first_points(plan) if plan.space.to_config(point.values) not in tried]

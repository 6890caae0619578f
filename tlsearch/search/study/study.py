"""The durable Optuna study: the only truth of a search. All reading and writing of it is here.

User attributes of a trial: ``config`` and ``params`` (what it trains, what the user sees), ``seed``,
``bracket``, ``started``; ``origin`` (why it was tried), ``first_look`` where ASHA is not to stop it;
``report:<epoch>`` for each report with ``seq`` (the order over the whole search), ``decision``,
``reason`` and the report; at the end ``reason``, ``best_value``, ``best_epoch``, ``ended``, and ``error``
with ``traceback`` where it failed; ``measured`` for the constraints.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.core.codec import from_plain, to_plain
from tlsearch.core.types import Plateau, Scalar, TrialOutcome, TrialState
from tlsearch.search.scheduling.stopping_rules import Best
from tlsearch.search.study._private import study_id as study_number
from tlsearch.search.study.journal import Journal
from tlsearch.search.study.lock import Holder, SearchLock
from tlsearch.search.study.stored_reports import REPORT, StoredReport, stored_reports

if TYPE_CHECKING:
    from tlsearch.space import Space

PLATEAU = "plateau"  # of the study: a ``Plateau`` in plain values
SPACE_TRIED = "space_tried"  # of the study: the number of trials that were all its space has
_SUCCEEDS = "succeeds"
_SUCCESSION = "~"  # before the count of a study that succeeds another one of its search


_STATES = {TrialState.COMPLETE: OptunaState.COMPLETE, TrialState.FAILED: OptunaState.FAIL}  # all others are PRUNED


class Study:
    """An open study; the writer's calls are durable when they return."""

    def __init__(
        self,
        storage: BaseStorage,
        study_id: int,
        *,
        journal: Journal | None,
        lock: SearchLock | None,
        batch: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Of a study that the storage holds.

        Args:
            batch: What is written inside is durable together, at its end; a journal has its own.
        """
        self._storage = storage
        self._id = study_id
        self._journal = journal
        self._lock = lock
        self._batch = journal.batch if journal else batch
        name = storage.get_study_name_from_id(study_id)
        self._study = optuna.load_study(study_name=name, storage=storage, sampler=optuna.samplers.RandomSampler())
        self._trial_ids: dict[int, int] = {}

    @property
    def attrs(self) -> Mapping[str, Any]:
        """What the study says of the search: ``search_id``, ``experiment``, ``metric``, ``mode``, ``cost``."""
        return self._storage.get_study_user_attrs(self._id)

    @property
    def holder(self) -> Holder:
        """This process, as the search's lock names it; only of a study open for writing."""
        assert self._lock is not None
        return self._lock.holder

    def as_optuna(self) -> optuna.Study:
        """The study as Optuna's own class, for its plots and statistics."""
        return self._study

    def trials(self) -> list[FrozenTrial]:
        """All trials by number, WAITING ones too; not copies: do not change them."""
        return self._storage.get_all_trials(self._id, deepcopy=False)

    def trial(self, number: int) -> FrozenTrial:
        """One trial; not a copy."""
        return self._storage.get_trial(self._trial_id(number))

    def enqueue(self, points: Sequence[Mapping[str, Scalar]], attrs: Sequence[Mapping[str, Scalar]] = ()) -> None:
        """Adds WAITING trials with these parameters, in order; ``attrs`` are the user attributes of each."""
        with self._batch():
            for point, own in zip_longest(points, attrs):
                self._study.enqueue_trial(dict(point), user_attrs=dict(own or {}))

    def ask(
        self,
        space: Space,
        *,
        sampler_of: Callable[[int], BaseSampler],
        attrs_of: Callable[[int], Mapping[str, Any]],
    ) -> int:
        """Makes the first WAITING trial, else a new one, RUNNING and proposes its parameters.

        On disk together or not at all, so a crash never leaves half a proposal.

        Args:
            space: Proposes by suggesting on Optuna's trial.
            sampler_of: The sampler of a trial, by its number.
            attrs_of: The user attributes of a trial, by its number.

        Returns:
            The trial's number.
        """
        trials = self.trials()
        number = next((trial.number for trial in trials if trial.state is OptunaState.WAITING), len(trials))
        self._study.sampler = sampler_of(number)
        with self._batch():
            trial = self._study.ask()
            assert trial.number == number
            self._propose(trial, space, attrs_of(number))
        return number

    def propose_again(self, number: int, space: Space, *, sampler: BaseSampler, attrs: Mapping[str, Any]) -> None:
        """Completes a RUNNING trial whose proposal a crash cut short, as it could before, in a database."""
        self._study.sampler = sampler
        with self._batch():
            self._propose(optuna.Trial(self._study, self._trial_id(number)), space, attrs)

    def _propose(self, trial: optuna.Trial, space: Space, attrs: Mapping[str, Any]) -> None:
        values = space.suggest(trial)
        config, params = to_plain(space.to_config(values)), dict(space.to_params(values))
        # The configuration last: readers take a trial that has one as proposed in full.
        for key, value in {**attrs, "params": params, "config": config}.items():
            trial.set_user_attr(key, value)

    def note_space_tried(self) -> None:
        """Notes that the trials there are now are all that the space has."""
        with self._batch():
            self._storage.set_study_user_attr(self._id, SPACE_TRIED, self._storage.get_n_trials(self._id))

    def note_plateau(self, plateau: Plateau) -> None:
        """Notes why no further trial was proposed."""
        with self._batch():
            self._storage.set_study_user_attr(self._id, PLATEAU, to_plain(plateau))

    @property
    def plateau(self) -> Plateau | None:
        """The last one that was noted; the search may have gone on since."""
        plain = self.attrs.get(PLATEAU)
        return None if plain is None else from_plain(Plateau, plain)

    def set_attrs(self, number: int, attrs: Mapping[str, Any]) -> None:
        """Sets user attributes of a trial."""
        with self._batch():
            for key, value in attrs.items():
                self._storage.set_trial_user_attr(self._trial_id(number), key, value)

    def write_report(self, number: int, stored: StoredReport) -> None:
        """Stores a report with its order and its decision, and the value that the sampler reads, together."""
        trial_id = self._trial_id(number)
        with self._batch():
            self._storage.set_trial_user_attr(trial_id, f"{REPORT}{stored.report.epoch}", stored.plain)
            self._storage.set_trial_intermediate_value(trial_id, stored.report.epoch, stored.value)

    def tell(
        self,
        number: int,
        outcome: TrialOutcome,
        *,
        trained: Best | None,
        ended: float,
        measured: Mapping[str, float],
        constraints: Mapping[str, float],
    ) -> None:
        """Ends a RUNNING trial.

        Args:
            outcome: Its best value may be that of its start.
            trained: The best of its epochs: Optuna's value of a COMPLETE one. Trials do not differ by their start.
            constraints: For TPE: above 0 is infeasible.
        """
        attrs: dict[str, Any] = {"reason": outcome.reason.value, "ended": ended}
        if outcome.best_value is not None:
            attrs |= {"best_value": outcome.best_value, "best_epoch": outcome.best_epoch}
        if measured:
            attrs["measured"] = dict(measured)
        if outcome.error:
            attrs |= {"error": outcome.error, "traceback": outcome.traceback}
        with self._batch():
            self._set_constraints(number, constraints)
            self.set_attrs(number, attrs)
            state = _STATES.get(outcome.state, OptunaState.PRUNED)
            complete = state is OptunaState.COMPLETE
            assert trained is not None or not complete
            self._study.tell(number, trained.value if trained and complete else None, state=state)

    def _set_constraints(self, number: int, constraints: Mapping[str, float]) -> None:
        known = self.trial(number).constraints  # from a tell that a crash cut short, as it could in a database
        if constraints.keys() - known.keys():
            trial = optuna.Trial(self._study, self._trial_id(number))
            for name in sorted(constraints.keys() - known.keys()):
                trial.set_constraint(name, constraints[name])

    def succeed(self, trials: Sequence[FrozenTrial]) -> str:
        """Makes a study with these trials, in this order, that takes the place of this one.

        It is there whole or not at all; in a database it is not read before a pointer names it.

        Returns:
            Its name.
        """
        own = self._storage.get_study_name_from_id(self._id)
        counted = re.fullmatch(rf"(.*){_SUCCESSION}(\d+)", own)
        name = f"{counted[1] if counted else own}{_SUCCESSION}{int(counted[2]) + 1 if counted else 2}"
        for other in self._storage.get_all_studies():
            if other.study_name == name and other.user_attrs.get(_SUCCEEDS, own) == own:
                self._storage.delete_study(study_number(other))  # a crash has left half of it
        attrs = {key: value for key, value in self.attrs.items() if key != _SUCCEEDS}
        with self._batch():
            study_id = self._storage.create_new_study(self._storage.get_study_directions(self._id), name)
            for key, value in {_SUCCEEDS: own, **attrs}.items():
                self._storage.set_study_user_attr(study_id, key, value)
            for trial in trials:
                self._storage.create_new_trial(study_id, template_trial=trial)
        return name

    def restore_values(self) -> None:
        """Writes the sampler's value of a report that a crash cut off behind its attribute."""
        for trial in self.trials():
            if trial.state is not OptunaState.RUNNING:
                continue
            for stored in stored_reports(trial):
                if stored.report.epoch not in trial.intermediate_values:
                    trial_id = self._trial_id(trial.number)
                    self._storage.set_trial_intermediate_value(trial_id, stored.report.epoch, stored.value)

    def _trial_id(self, number: int) -> int:
        if number not in self._trial_ids:
            found = self._storage.get_trial_id_from_study_id_trial_number(self._id, number)
            self._trial_ids[number] = found
        return self._trial_ids[number]

    def close(self) -> None:
        """Closes the journal or the database and gives the search's lock back."""
        if self._journal:
            if self._lock:
                self._lock.study_lines = self._journal.num_lines
            self._journal.close()
        else:
            self._storage.remove_session()
        if self._lock:
            self._lock.release()

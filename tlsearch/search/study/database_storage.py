"""A study's database for its one writer, or for a reader's snapshot: trials are read once, then kept in memory.

Optuna's own storage commits every value alone, and before each proposal reads all trials that have not ended, since
another process may have changed them. The search's lock keeps other writers out.
"""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tlsearch.search.study._private import trial_id as id_of


class DatabaseStorage(BaseStorage):
    """Optuna's storage in a database: each write goes there first, then into the trials in memory.

    What others read of a trial stays as they read it: a write puts a changed copy in its place.
    """

    def __init__(self, database: RDBStorage) -> None:
        """Reads nothing yet."""
        self._database = database
        self._ids: dict[int, list[int]] = {}  # by study: the database's ids of its trials, by number
        self._trials: dict[int, FrozenTrial] = {}  # by id
        self._depth = 0

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written inside is one transaction: in the database at the end, or not at all where the body raises.

        Raises:
            StorageInternalError, SQLAlchemyError: The database does not take it.
        """
        if self._depth:
            yield
            return
        from sqlalchemy.orm import scoped_session, sessionmaker  # takes long to import: most studies are journals

        usual = self._database.scoped_session
        self._depth += 1
        try:
            with self._database.engine.begin() as connection:
                # Optuna commits after each value; sessions that join this connection leave that to its end.
                joined = sessionmaker(bind=connection, join_transaction_mode="rollback_only")
                self._database.scoped_session = scoped_session(joined)
                yield
        except BaseException:
            self._ids.clear()  # memory is ahead of the database
            self._trials.clear()
            raise
        finally:
            self._depth -= 1
            self._database.scoped_session = usual

    # --- studies ------------------------------------------------------------------------------

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        """As Optuna's."""
        return self._database.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """As Optuna's."""
        self._database.delete_study(study_id)
        for trial_id in self._ids.pop(study_id, ()):
            del self._trials[trial_id]

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        self._database.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        self._database.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """As Optuna's."""
        return self._database.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """As Optuna's."""
        return self._database.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """As Optuna's."""
        return self._database.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """As Optuna's."""
        return self._database.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """As Optuna's."""
        return self._database.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[Any]:
        """As Optuna's."""
        return self._database.get_all_studies()

    # --- trials, written ----------------------------------------------------------------------

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """As Optuna's."""
        ids = self._ids_of(study_id)
        trial_id = self._database.create_new_trial(study_id, template_trial)
        self._trials[trial_id] = self._database.get_trial(trial_id)
        ids.append(trial_id)
        return trial_id

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        """As Optuna's."""
        self._database.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        trial, value = self._copied(trial_id), distribution.to_external_repr(param_value_internal)
        trial.params = {**trial.params, param_name: value}
        trial.distributions = {**trial.distributions, param_name: distribution}

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Sequence[float] | None = None) -> bool:
        """As Optuna's."""
        if not self._database.set_trial_state_values(trial_id, state, values):
            return False
        trial = self._copied(trial_id)
        trial.state = state
        if values is not None:
            trial.values = list(values)
        if state is TrialState.RUNNING:
            trial.datetime_start = datetime.now()
        if state.is_finished():
            trial.datetime_complete = datetime.now()
        return True

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        """As Optuna's."""
        self._database.set_trial_intermediate_value(trial_id, step, intermediate_value)
        trial = self._copied(trial_id)
        trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        self._database.set_trial_user_attr(trial_id, key, value)
        trial = self._copied(trial_id)
        trial.user_attrs = {**trial.user_attrs, key: value}

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """As Optuna's."""
        self._database.set_trial_system_attr(trial_id, key, value)
        trial = self._copied(trial_id)
        trial.system_attrs = {**trial.system_attrs, key: value}

    def _copied(self, trial_id: int) -> FrozenTrial:
        """A copy of the trial, which has taken its place."""
        trial = self._trials[trial_id] = copy.copy(self.get_trial(trial_id))
        return trial

    # --- trials, read -------------------------------------------------------------------------

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """From memory, where the trial's study has been read."""
        known = self._trials.get(trial_id)
        return self._database.get_trial(trial_id) if known is None else known

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        """From memory.

        Raises:
            KeyError: The study has no such trial.
        """
        ids = self._ids_of(study_id)
        if not 0 <= trial_number < len(ids):
            raise KeyError(f"the study has no trial {trial_number}")
        return ids[trial_number]

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        """From memory, by number."""
        every = (self._trials[trial_id] for trial_id in self._ids_of(study_id))
        trials = [trial for trial in every if states is None or trial.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def _ids_of(self, study_id: int) -> list[int]:
        """The ids of a study's trials, which are in memory from then on."""
        if study_id not in self._ids:
            trials = self._database.get_all_trials(study_id, deepcopy=False)
            self._ids[study_id] = [id_of(trial) for trial in trials]
            self._trials.update(zip(self._ids[study_id], trials, strict=True))
        return self._ids[study_id]

    def remove_session(self) -> None:
        """Closes this thread's connection."""
        self._database.remove_session()

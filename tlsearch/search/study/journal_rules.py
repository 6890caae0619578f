"""What Optuna's records imply of each other: a record that cannot follow those before it is damage.

Optuna itself passes over records of trials that do not exist or have ended, since another of its writers may have been
quicker; a search has one writer, so in its journal they tell of a record that was lost or changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from optuna.trial import TrialState

_NUMBER = (int, float)
_FIELDS: tuple[Mapping[str, Any], ...] = (  # types by Optuna's code of the operation; a dict holds one attribute
    {"worker_id": str, "study_name": str, "directions": list},
    {"worker_id": str, "study_id": int},
    {"worker_id": str, "study_id": int, "user_attr": dict},
    {"worker_id": str, "study_id": int, "system_attr": dict},
    {"worker_id": str, "study_id": int},
    {"worker_id": str, "trial_id": int, "param_name": str, "param_value_internal": _NUMBER, "distribution": str},
    {"worker_id": str, "trial_id": int, "state": int, "values": (list, type(None))},
    {"worker_id": str, "trial_id": int, "step": int, "intermediate_value": _NUMBER},
    {"worker_id": str, "trial_id": int, "user_attr": dict},
    {"worker_id": str, "trial_id": int, "system_attr": dict},
)
_CREATE_STUDY, _DELETE_STUDY, _CREATE_TRIAL, _SET_PARAM, _SET_STATE = 0, 1, 4, 5, 6
_FOLLOWS = {
    TrialState.WAITING: (TrialState.RUNNING, TrialState.FAIL),
    TrialState.RUNNING: (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL),
}


class JournalRules:
    """Follows a journal from its first record; knows which studies and trials there are, and their states."""

    def __init__(self) -> None:
        self._names: dict[int, str] = {}  # of studies that were not deleted
        self._num_studies = 0
        self._states: list[TrialState] = []  # by the trial's id
        self._params: list[set[str]] = []

    def check(self, log: Mapping[str, Any]) -> None:
        """Takes the next record.

        Raises:
            ValueError: It cannot follow those before it.
        """
        code = log.get("op_code")
        if type(code) is not int or not 0 <= code < len(_FIELDS):
            raise ValueError(f"Optuna has no operation {code!r}")
        for name, kind in _FIELDS[code].items():
            value = log.get(name)
            if not isinstance(value, kind) or isinstance(value, bool) or (kind is dict and len(value) != 1):
                raise ValueError(f"{name} cannot be {value!r:.80}")
        if "study_id" in log and log["study_id"] not in self._names:
            raise ValueError(f"the study {log['study_id']} was not created before")
        if "trial_id" in _FIELDS[code]:
            self._check_trial(code, log)
        elif code == _CREATE_STUDY:
            if log["study_name"] in self._names.values():
                raise ValueError(f"a study {log['study_name']!r} was created before")
            self._names[self._num_studies] = log["study_name"]
            self._num_studies += 1
        elif code == _DELETE_STUDY:
            del self._names[log["study_id"]]
        elif code == _CREATE_TRIAL:
            self._states.append(TrialState(log.get("state", TrialState.RUNNING)))
            self._params.append(set(log.get("params") or ()))

    def _check_trial(self, code: int, log: Mapping[str, Any]) -> None:
        trial = log["trial_id"]
        if not 0 <= trial < len(self._states):
            raise ValueError(f"the trial with id {trial} was not created before")
        before = self._states[trial]
        if before.is_finished():
            raise ValueError(f"the trial with id {trial} had ended before")
        if code == _SET_STATE:
            state = TrialState(log["state"])
            if state not in _FOLLOWS[before]:
                raise ValueError(f"the trial with id {trial} cannot be {state.name} after {before.name}")
            if state is TrialState.COMPLETE and not log.get("values"):
                raise ValueError(f"the trial with id {trial} cannot be {state.name} without a value")
            self._states[trial] = state
        if code == _SET_PARAM:
            if log["param_name"] in self._params[trial]:
                raise ValueError(f"the trial with id {trial} had {log['param_name']} before")
            self._params[trial].add(log["param_name"])

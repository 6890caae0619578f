"""The private names of Optuna that this package uses, each with its reason; checked with Optuna 5.0.

No other file uses any. ``tests/unit/test_private_names.py`` fails where one is gone.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence

from optuna.study import Study
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

# And the attributes _study_id of a FrozenStudy and _trial_id of a FrozenTrial.
NAMES = ("optuna.study:Study._get_trials", "optuna.study._frozen:FrozenStudy")


def study_id(study: FrozenStudy) -> int:
    """The study's number in its storage, by which a storage's own calls name it."""
    return study._study_id


def trial_id(trial: FrozenTrial) -> int:
    """The trial's number in its storage."""
    return trial._trial_id


class WindowedStudy(Study):
    """A study of which a sampler sees some trials only: samplers read trials through a private method.

    Args:
        choose: From all trials that run or have a value, which is what TPE asks for, to those that are seen.
    """

    def __init__(self, study: Study, choose: Callable[[Sequence[FrozenTrial]], list[FrozenTrial]]) -> None:
        vars(self).update(vars(study))
        states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)
        self._seen = choose(study._get_trials(deepcopy=False, states=states))

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        return [trial for trial in self._seen if states is None or trial.state in states]

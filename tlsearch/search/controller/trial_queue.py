"""Which trial a search begins next: the points that wait, then the sampler's proposals, as many as were asked for."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.core.crash import crash_point
from tlsearch.core.types import EndReason, Objective, Plateau, Scalar
from tlsearch.search.plan import SearchPlan
from tlsearch.search.sampling.points import FIRST_LOOK, ORIGIN, SAMPLED, first_points
from tlsearch.search.sampling.proposals import Proposal, Proposals
from tlsearch.search.scheduling.plateau import MARGIN, EndedTrial, outlook
from tlsearch.search.seeds import derive_seed
from tlsearch.search.study.study import Study

_WITHOUT_RESULT = (EndReason.DIVERGED, EndReason.MEMORY, EndReason.CONSTRAINT)


class Intake:
    """Begins trials in the study and counts them, over all starts of the search."""

    def __init__(self, plan: SearchPlan, study: Study, *, clock: Callable[[], float] = time.time) -> None:
        """Counts what the study holds; enqueues the first points of one that has not begun."""
        self._plan, self._search, self._study, self._clock = plan, plan.search, study, clock
        _enqueue_first(plan, study)
        self._proposals = Proposals(plan)
        self._proposal: Proposal | None = None
        self._exhausted_at: tuple[int, bool] = (-1, False)  # by the number of trials that have begun
        self._plateau: Plateau | None = None
        self._looked = False  # whether that is of the trials that there are now
        noted = study.plateau
        more = noted is not None and self._search.trials > noted.limit  # asked for after the search had said so
        self._may_plateau = self._search.stop == "auto" and self._search.applies("stop") and not more
        trials = study.trials()
        self._num_waiting = sum(trial.state is OptunaState.WAITING for trial in trials)
        self._num_started = len(trials) - self._num_waiting

    @property
    def trials_left(self) -> bool:
        """Whether any of the trials that were asked for has not begun, and there is one to begin."""
        if self._search.listed:
            return self._num_waiting > 0
        return self._num_started < self._search.trials and not self.space_tried

    @property
    def first_points_left(self) -> bool:
        """Whether the next trial has its point already: it waits for no other trial."""
        return self._num_waiting > 0

    @property
    def space_tried(self) -> bool:
        """Whether every configuration of the space has begun, so that fewer trials than were asked for are enough."""
        if self._search.listed or self._num_waiting or self._num_started >= self._search.trials:
            return False
        if self._exhausted_at[0] != self._num_started:
            self._exhausted_at = self._num_started, self._proposals.exhausted(self._study.trials())
        return self._exhausted_at[1]

    @property
    def plateau(self) -> Plateau | None:
        """Why nothing more is proposed, as things stand (``search.stop``); None while a gain is likely enough.

        Nothing is said before all first points and starting points have ended.
        """
        if not self._may_plateau or self._num_waiting:
            return None
        if not self._looked:
            self._plateau, self._looked = self._look(), True
        return self._plateau

    def trial_ended(self) -> None:
        """A trial's end is in the study."""
        self._looked = False

    def note_end(self, reason: str) -> None:
        """The study keeps why the search needs no more trials."""
        if reason == "space":
            self._study.note_space_tried()
        elif reason == "plateaued" and self._plateau is not None:
            self._study.note_plateau(self._plateau)

    def _look(self) -> Plateau | None:
        trials, limit = self._study.trials(), self._search.trials
        first = any(one.state is OptunaState.RUNNING and one.user_attrs.get(ORIGIN) not in SAMPLED for one in trials)
        if first or not self.trials_left:
            return None
        objective, folds = self._plan.setup.objective, self._plan.setup.folds
        ended = [_ended(trial, objective, folds) for trial in trials if trial.state.is_finished()]
        ceiling = objective.gain(1.0 if objective.mode == "max" else 0.0)
        seen = outlook(ended, left=limit - self._num_started, ceiling=ceiling)
        if not seen.plateaued:
            return None
        begun = self._num_started
        return Plateau(chance=seen.chance, margin=MARGIN, trials=begun, limit=limit, excess=seen.excess)

    @property
    def free_point_left(self) -> bool:
        """Whether a trial may begin while first looks run."""
        return self._proposals.free_point_left(self._study.trials())

    def begin(self, *, looking: bool = False) -> FrozenTrial:
        """Begins the next trial: it is RUNNING in the study, with all that it needs.

        Args:
            looking: Whether a first look runs, of which a proposal is to know nothing.
        """
        self._looked = False
        sampler_of = partial(self._sampler, looking=looking)
        number = self._study.ask(self._plan.space, sampler_of=sampler_of, attrs_of=self._attrs)
        crash_point("after_ask")
        self._num_started += 1
        self._num_waiting = max(0, self._num_waiting - 1)
        return self._study.trial(number)

    def completed(self, trial: FrozenTrial) -> FrozenTrial:
        """A trial that was begun earlier, proposed again where a crash had cut that short."""
        if "config" in trial.user_attrs:
            return trial
        number, others = trial.number, self._study.trials()
        looking = any(one.state is OptunaState.RUNNING and one.user_attrs.get(FIRST_LOOK) for one in others)
        sampler = self._sampler(number, looking=looking)
        self._study.propose_again(number, self._plan.space, sampler=sampler, attrs=self._attrs(number))
        return self._study.trial(trial.number)

    def _sampler(self, number: int, *, looking: bool) -> BaseSampler:
        self._proposal = self._proposals.propose(self._study.trials(), number, looking=looking)
        return self._proposal.sampler

    def _attrs(self, number: int) -> dict[str, Scalar]:
        """The attributes of a trial whose sampler was made just now."""
        seed, asha = self._search.seed, self._plan.rules.asha
        assert self._proposal is not None
        origin: dict[str, Scalar] = {ORIGIN: self._proposal.origin} if self._proposal.origin else {}
        return {
            **origin,
            "seed": self._trial_seed(number),
            "bracket": asha.bracket_of(seed=seed, number=number) if asha else 0,
            "started": self._clock(),
        }

    def _trial_seed(self, number: int) -> int:
        """A trial's own; of a fixed search with several seeds that of its round, equal for all entries."""
        if self._search.seeds > 1:
            return derive_seed(self._search.seed, "round", number // len(self._search.start_with))
        return derive_seed(self._search.seed, "trial", number)


def _ended(trial: FrozenTrial, objective: Objective, folds: int) -> EndedTrial:
    """An ended trial as ``search.stop`` sees it; a mean over some of the folds is not a result yet."""
    attrs = trial.user_attrs
    reason, value = attrs.get("reason", ""), attrs.get("best_value")
    counts = trial.state in (OptunaState.COMPLETE, OptunaState.PRUNED) and reason not in _WITHOUT_RESULT
    whole = max(trial.intermediate_values, default=0) >= folds
    gain = objective.gain(value) if counts and whole and value is not None else None
    origin = attrs.get(ORIGIN, "")
    return EndedTrial(gain=gain, origin="sampler" if origin in SAMPLED else origin)


def _enqueue_first(plan: SearchPlan, study: Study) -> None:
    """A crash may have left some of the points, in their order; an earlier version's points stay as they are."""
    trials = study.trials()
    if all(trial.state is OptunaState.WAITING and ORIGIN in trial.user_attrs for trial in trials):
        points = first_points(plan)[len(trials) :]
        study.enqueue([point.values for point in points], [point.attrs for point in points])

"""Conducts a search: hands out trials, answers reports, ends trials; knows the study and no Ray.

Every change is written to the study first, then the observers see it, then the worker has its answer.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.core.crash import crash_point
from tlsearch.core.errors import StorageError
from tlsearch.core.types import Decision, EndReason, EpochReport, SearchObserver, TrialOutcome
from tlsearch.search.controller.dispatcher import Dispatcher
from tlsearch.search.controller.live_trials import Live, ModelCosts, looking, take_stored
from tlsearch.search.controller.trial_queue import Intake
from tlsearch.search.plan import SearchPlan
from tlsearch.search.scheduling.packing import Shares
from tlsearch.search.scheduling.stopping_rules import Judge, TimeBudget, Verdict, complaint, excess
from tlsearch.search.study.stored_reports import StoredReport, stored_reports
from tlsearch.search.study.study import Study
from tlsearch.search.worker.messages import Job
from tlsearch.search.worker.trial_errors import ErrorStreak

logger = logging.getLogger(__name__)

_CONSTRAINTS = {EndReason.DIVERGED: "finite", EndReason.MEMORY: "memory"}  # the constraint that TPE sees
_MANY = 2  # trials that run: only a slot beyond them has a point while first looks run
_MAX_UNCOUNTED_DEATHS = 50  # of one trial on nodes that were lost: beyond, something else is wrong


class Controller:
    """One start of a search, from its study to its end."""

    def __init__(
        self,
        plan: SearchPlan,
        study: Study,
        *,
        observers: Sequence[SearchObserver] = (),
        stop: threading.Event | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        """Reads the study, and tells trials whose last report had ended them."""
        self._plan, self._search, self._study = plan, plan.search, study
        self._limits, self._metric = plan.search.constraints.limits, plan.setup.metric
        self._observers = Dispatcher(observers)
        self._stop = stop or threading.Event()
        self._clock, self._timer = clock, timer
        self._judge = Judge(plan.rules)
        self._live: dict[int, Live] = {}
        self._going_on: deque[int] = deque()
        self._streak = ErrorStreak(plan.search.max_failed_trials)
        self.failure: Exception | None = None
        self.shares = Shares()
        study.restore_values()
        self._intake = Intake(plan, study, clock=clock)
        trials = study.trials()
        self._costs = ModelCosts(plan).read(trials)
        reports = take_stored(trials, self._judge, self.shares, metric=self._metric, costs=self._costs)
        self._seq = reports[-1].seq + 1 if reports else 0
        spent_s = max((stored.spent_s for stored in reports), default=0.0)
        self._time = TimeBudget(self._search.time_budget_s, spent_s=spent_s, timer=timer)
        for trial in trials:
            if trial.state is OptunaState.RUNNING:
                self._take_up(trial)
            elif trial.state.is_finished():
                self._drop_checkpoint(trial.number)  # a crash may have come before

    @property
    def halting(self) -> bool:
        """Interrupted or stopped by an error: what runs stays RUNNING in the study, to be resumed."""
        return self._stop.is_set() or self.failure is not None

    @property
    def exhausted(self) -> bool:
        """No trial will be handed out any more."""
        return self.halting or (not self._going_on and not self._may_start())

    @property
    def reason(self) -> str:
        """How this start ended: finished, plateaued, space (all of it was tried), interrupted or budget (of time)."""
        if self._live or (self._stop.is_set() and self._may_start()):
            return "interrupted"
        if self._time.over and self._intake.trials_left:
            return "budget"
        if self._intake.plateau is not None:
            return "plateaued"
        return "space" if self._intake.space_tried else "finished"

    def finish(self) -> str:
        """The reason, once no trial is to come; the study keeps why none is needed."""
        reason = self.reason
        self._intake.note_end(reason)
        return reason

    @property
    def waiting(self) -> bool:
        """Whether the next trial begins only when others have ended: those that run, or the first looks at backbones.

        A search that has plateaued looks again when the trials that run have ended. While first looks run, the slots
        beyond two have random points; with one or two slots all trials after them know all of them.
        """
        if self._going_on or self._intake.first_points_left:
            return False
        if self._intake.plateau is not None:
            return True
        return self._looking and not (len(self._live) >= _MANY and self._intake.free_point_left)

    def next_trial(self) -> Job | None:
        """The next trial to run: one that was RUNNING, then WAITING ones, then a new one; None at the end.

        None also while ``waiting``.
        """
        while not self.exhausted and not self.waiting:
            live = self._live[self._going_on.popleft()] if self._going_on else self._begin()
            number = live.number
            self._observers.trial_started(number, live.config)
            broken = complaint(live.measured, self._limits)
            if not broken:
                return self.job(number)
            self._end(live, TrialOutcome(reason=EndReason.CONSTRAINT, error=broken))
        return None

    def job(self, number: int) -> Job:
        """A live trial as a worker needs it, now; again where its worker died."""
        live = self._live[number]
        if attrs := live.given(self.shares):
            self._study.set_attrs(number, attrs)
        return live.job(self._plan)

    def gpus(self, number: int) -> float:
        """The fraction of a GPU that a trial was handed out with."""
        live = self._live.get(number)
        return (live.gpus if live else self.shares.usual) or 0.0

    def report(self, number: int, report: EpochReport, *, measured: Mapping[str, float] | None = None) -> bool:
        """Stores a report and its answer; True if the trial goes on now.

        A report of an epoch that the study holds is a repetition after a checkpoint: it gets the
        stored answer and changes nothing.

        Args:
            measured: What the worker has measured for the constraints.
        """
        live = self._live.get(number)
        if live is None:
            return False
        self._note_measured(live, measured or {})
        known = live.verdicts.get(report.epoch)
        if known is not None:
            return known.decision is Decision.CONTINUE and not self.halting
        seen = live.observed(report, self._metric, self._costs)
        verdict = self._judge.observe(seen)
        if verdict.decision is Decision.CONTINUE and self._time.over and self._search.on_budget == "cut":
            verdict = Verdict(decision=Decision.STOP, reason=EndReason.BUDGET)
        stored = StoredReport(
            seq=self._seq, verdict=verdict, report=report, value=seen.value, spent_s=round(self._time.spent_s, 3)
        )
        crash_point("before_report_write")
        self._study.write_report(number, stored)
        crash_point("after_report_write")
        self._seq += 1
        live.epoch, live.heard = report.epoch, self._timer()
        live.verdicts[report.epoch] = verdict
        self.shares.note(number, live.config, live.gpus or 0.0, report)
        self._observers.trial_reported(number, report, verdict.decision)
        if verdict.decision is not Decision.CONTINUE:
            self._end(live, TrialOutcome(reason=EndReason(verdict.reason)))
        return verdict.decision is Decision.CONTINUE and not self.halting

    def fail(self, number: int, outcome: TrialOutcome, *, measured: Mapping[str, float] | None = None) -> bool:
        """Ends a trial that cannot go on: PRUNED with a constraint, or FAIL with its error.

        A trial that cannot write is not ended: the search pauses, and the trial goes on after a resume. One that ran
        out of memory in a fraction of a GPU is not ended either: a neighbour may have taken it, so it runs alone.

        Args:
            measured: What the worker has measured for the constraints.

        Returns:
            Whether it runs again, on a whole GPU.
        """
        live = self._live.get(number)
        if live is None:
            return False
        if outcome.reason is EndReason.MEMORY and (attrs := live.moved(self.shares)):
            self._study.set_attrs(number, attrs)
            live.heard = self._timer()
            return True
        if outcome.reason is EndReason.STORAGE:
            self.failure = self.failure or StorageError(
                f"the search has paused, since trial {number} cannot write ({outcome.error}): "
                "make room, or make the disk writable, then go on with `tlsearch resume`"
            )
            return False
        self._note_measured(live, measured or {})
        self._end(live, outcome)
        if outcome.reason is EndReason.ERROR:
            self.failure = self.failure or self._streak.failed(number, outcome.error)
        return False

    def worker_died(
        self, number: int, *, node: str, message: str, alive: Callable[[], Collection[str]], settled: bool = True
    ) -> bool:
        """Notes the death of a trial's worker; True if the trial is to be tried again.

        Args:
            number: The trial.
            node: The id of the worker's node; empty where unknown, which counts as alive.
            message: What Ray says.
            alive: The ids of the nodes that are alive now and are to stay. A death on a node that is lost by now,
                or is about to go, is not a failure of the trial.
            settled: Whether Ray knows what has happened. A node that was cut off is not known to be lost for
                some time; such a death is judged when the next one comes.
        """
        live = self._live.get(number)
        if live is None:
            return False
        live.deaths.append(node)
        counted = live.counted_deaths(alive(), settled=settled)
        logger.warning(
            "the worker of trial %d died (%d of them counted): %s", number, counted, message, extra={"trial": number}
        )
        if counted <= self._search.max_failures and len(live.deaths) <= _MAX_UNCOUNTED_DEATHS:
            return True
        self.fail(number, TrialOutcome(reason=EndReason.ERROR, error=f"the worker died: {message}"))
        return False

    @property
    def _looking(self) -> bool:
        return looking(self._live.values(), self._search, now=self._timer())

    def _begin(self) -> Live:
        return self._add_live(self._intake.begin(looking=self._looking))

    def _may_start(self) -> bool:
        left = self._intake.trials_left and not self._time.over
        return left and (bool(self._live) or self._intake.plateau is None)

    def _note_measured(self, live: Live, measured: Mapping[str, float]) -> None:
        """Keeps it in the study: a trial that goes on after a resume is not measured again."""
        if measured.keys() - live.measured.keys():
            live.measured |= self._costs.shared(live.config, measured)
            self._study.set_attrs(live.number, {"measured": dict(live.measured)})

    def _add_live(self, trial: FrozenTrial) -> Live:
        live = self._live[trial.number] = Live.of(trial, self._plan, self._costs, heard=self._timer())
        return live

    def _take_up(self, trial: FrozenTrial) -> None:
        """A trial that an earlier start left RUNNING: ends it if its last report did, else it goes on."""
        live = self._add_live(self._intake.completed(trial))
        for stored in stored_reports(trial):
            live.epoch = stored.report.epoch
            live.verdicts[live.epoch] = stored.verdict
        last = live.verdicts.get(live.epoch, Verdict(decision=Decision.CONTINUE))
        if last.decision is Decision.CONTINUE and self._time.over and self._search.on_budget == "cut":
            last = Verdict(decision=Decision.STOP, reason=EndReason.BUDGET)
        if last.decision is Decision.CONTINUE:
            self._going_on.append(trial.number)
        else:
            self._end(live, TrialOutcome(reason=EndReason(last.reason)))

    def _end(self, live: Live, outcome: TrialOutcome) -> None:
        best = self._judge.best(live.number)
        outcome = replace(outcome, epochs_run=live.epoch, cost=live.measured.get(self._search.cost))
        if best is not None:
            partial = live.epoch < self._plan.setup.folds
            outcome = replace(outcome, best_value=best.value, best_epoch=best.epoch, partial=partial)
        own = {_CONSTRAINTS[outcome.reason]: 1.0} if outcome.reason in _CONSTRAINTS else {}
        crash_point("before_tell")
        self._study.tell(
            live.number,
            outcome,
            trained=self._judge.trained(live.number),
            ended=self._clock(),
            measured=live.measured,
            constraints=own | excess(live.measured, self._limits),
        )
        crash_point("after_tell")
        self._intake.trial_ended()
        del self._live[live.number]
        self._drop_checkpoint(live.number)
        if outcome.reason is not EndReason.ERROR:
            self._streak.broken()
        self._observers.trial_ended(live.number, outcome)

    def _drop_checkpoint(self, number: int) -> None:
        """An ended trial has nothing to go on with; its best model stays."""
        shutil.rmtree(self._plan.folder.running(number), ignore_errors=True)

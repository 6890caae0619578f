"""Conducts a search: hands out trials, answers reports, ends trials; knows the study and no Ray.

Every change is written to the study first, then told to the observers, then answered.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from optuna.trial import FrozenTrial
from optuna.trial import TrialState as OptunaState

from tlsearch.crash import crash_point
from tlsearch.search.audience import Audience
from tlsearch.search.budget import TimeBudget
from tlsearch.search.faults import ErrorStreak
from tlsearch.search.judge import Judge, Observation, Verdict
from tlsearch.search.limits import MEASURED_BY_WORKERS, complaint, excess
from tlsearch.search.messages import Job, Message
from tlsearch.search.plan import SearchPlan
from tlsearch.search.record import state_and_reason
from tlsearch.search.seeds import derive_seed
from tlsearch.search.study import Ending, StoredReport, Study, stored_reports
from tlsearch.search.wire import from_plain
from tlsearch.types import Decision, EpochReport, Scalar, SearchObserver, TrialAssignment, TrialConfig, TrialOutcome

logger = logging.getLogger(__name__)

_PRUNED, _COMPLETE, _FAIL = OptunaState.PRUNED, OptunaState.COMPLETE, OptunaState.FAIL
_CONSTRAINTS: Mapping[str, str] = {"diverged": "finite", "memory": "memory"}  # reason -> constraint told to TPE
_MAX_UNCOUNTED_DEATHS = 50  # of one trial on nodes that were lost: beyond, something else is wrong


@dataclass(frozen=True, kw_only=True)
class Handout:
    """A trial for a worker; ``reported`` is the last epoch that the study holds.

    Attributes:
        limits: Constraints that the worker has to measure.
        measured: What is known of them already.
    """

    assignment: TrialAssignment
    reported: int
    limits: Mapping[str, float] = field(default_factory=dict)
    measured: Mapping[str, float] = field(default_factory=dict)

    def job(self, max_failures: int) -> Job:
        """What travels to the worker."""
        return Job(
            assignment=self.assignment,
            reported=self.reported,
            max_failures=max_failures,
            limits=self.limits,
            measured=self.measured,
        )


@dataclass(frozen=True, kw_only=True)
class TrialFailure:
    """Why a trial cannot go on: ``reason`` is diverged, memory, constraint or error."""

    reason: str
    error: str
    traceback: str = ""
    measured: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, message: Message) -> TrialFailure:
        """What a worker says."""
        return cls(reason=message.reason, error=message.error, traceback=message.traceback, measured=message.measured)


@dataclass(kw_only=True)
class _Live:
    """What is known of a trial that runs or is about to."""

    number: int
    config: TrialConfig
    seed: int
    bracket: int
    epoch: int = 0
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)  # node ids; empty where unknown
    measured: dict[str, float] = field(default_factory=dict)


class Conductor:
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
        """Reads the study; tells trials whose last report had ended them, and enqueues the first points."""
        self._plan, self._search, self._study = plan, plan.search, study
        self._limits = plan.search.constraints.limits
        self._audience = Audience(observers)
        self._stop = stop or threading.Event()
        self._clock = clock
        self._judge = Judge(plan.rules)
        self._live: dict[int, _Live] = {}
        self._going_on: deque[int] = deque()
        self._streak = ErrorStreak(plan.search.max_failed_trials)
        self.failure: Exception | None = None
        study.restore_values()
        if not study.trials():
            study.enqueue(self._first_points())
        trials = study.trials()
        reports = sorted(
            ((stored, trial) for trial in trials for stored in stored_reports(trial)), key=lambda pair: pair[0].seq
        )
        for stored, trial in reports:
            bracket = trial.user_attrs.get("bracket", 0)
            self._judge.observe(
                Observation(trial=trial.number, bracket=bracket, epoch=stored.report.epoch, value=stored.value)
            )
        self._seq = reports[-1][0].seq + 1 if reports else 0
        spent_s = max((stored.spent_s for stored, _ in reports), default=0.0)
        self._time = TimeBudget(self._search.time_budget_s, spent_s=spent_s, timer=timer)
        self._num_waiting = sum(trial.state is OptunaState.WAITING for trial in trials)
        self._num_started = len(trials) - self._num_waiting
        for trial in trials:
            if trial.state is OptunaState.RUNNING:
                self._take_up(trial)
            elif trial.state.is_finished():
                self._drop_checkpoint(trial.number)  # a crash may have come before

    # --- what the search wants ---------------------------------------------------------------

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
        """How this start ended: finished, interrupted or budget (of time)."""
        if self._live or (self._stop.is_set() and self._may_start()):
            return "interrupted"
        return "budget" if self._time.over and self._trials_left() else "finished"

    def next_trial(self) -> Handout | None:
        """The next trial to run: one that was RUNNING, then WAITING ones, then a new one; None at the end."""
        while not self.exhausted:
            number = self._going_on.popleft() if self._going_on else self._start_trial()
            live = self._live[number]
            self._audience.trial_started(number, live.config)
            broken = complaint(live.measured, self._limits)
            if not broken:
                return self.handout(number)
            self._end(live, Ending(state=_PRUNED, reason="constraint", error=broken))
        return None

    def handout(self, number: int) -> Handout:
        """A live trial as a worker needs it, now; again where its worker died."""
        live = self._live[number]
        assignment = TrialAssignment(
            number=number,
            seed=live.seed,
            config=live.config,
            setup=self._plan.setup,
            directory=str(self._plan.folder.trial(number)),
        )
        limits = {name: limit for name, limit in self._limits.items() if name in MEASURED_BY_WORKERS}
        return Handout(assignment=assignment, reported=live.epoch, limits=limits, measured=live.measured)

    # --- what workers say --------------------------------------------------------------------

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
        value = report.metrics[self._plan.setup.metric]
        verdict = self._judge.observe(Observation(trial=number, bracket=live.bracket, epoch=report.epoch, value=value))
        if verdict.decision is Decision.CONTINUE and self._time.over and self._search.on_budget == "cut":
            verdict = Verdict(decision=Decision.STOP, reason="budget")
        stored = StoredReport(
            seq=self._seq, verdict=verdict, report=report, value=value, spent_s=round(self._time.spent_s, 3)
        )
        crash_point("before_report_write")
        self._study.write_report(number, stored)
        crash_point("after_report_write")
        self._seq += 1
        live.epoch = report.epoch
        live.verdicts[report.epoch] = verdict
        self._audience.trial_reported(number, report, verdict.decision)
        if verdict.decision is not Decision.CONTINUE:
            self._end(live, _ending(verdict))
        return verdict.decision is Decision.CONTINUE and not self.halting

    def fail(self, number: int, failure: TrialFailure) -> None:
        """Ends a trial that cannot go on: PRUNED with a constraint, or FAIL with its error."""
        live = self._live.get(number)
        if live is None:
            return
        self._note_measured(live, failure.measured)
        if failure.reason in ("diverged", "memory", "constraint"):
            self._end(live, Ending(state=_PRUNED, reason=failure.reason, error=failure.error))
            return
        self._end(live, Ending(state=_FAIL, reason="error", error=failure.error, traceback=failure.traceback))
        self.failure = self.failure or self._streak.failed(number, failure.error)

    def worker_died(self, number: int, *, node: str, message: str, alive: Callable[[], Collection[str]]) -> bool:
        """Notes the death of a trial's worker; True if the trial is to be tried again.

        Args:
            number: The trial.
            node: The id of the worker's node; empty where unknown, which counts as alive.
            message: What Ray says.
            alive: The ids of the nodes that are alive now. A death on a node that is lost by now
                is no failure of the trial.
        """
        live = self._live.get(number)
        if live is None:
            return False
        live.deaths.append(node)
        nodes = alive()
        counted = sum(not node or node in nodes for node in live.deaths)
        logger.warning("the worker of trial %d died (%d of them counted): %s", number, counted, message)
        if counted <= self._search.max_failures and len(live.deaths) <= _MAX_UNCOUNTED_DEATHS:
            return True
        self.fail(number, TrialFailure(reason="error", error=f"the worker died: {message}"))
        return False

    # --- inside ------------------------------------------------------------------------------

    def _first_points(self) -> list[dict[str, Scalar]]:
        space, entries = self._plan.space, self._search.start_with
        if self._search.sampler == "fixed":
            return [space.complete(entry) for entry in entries] * self._search.seeds
        return space.starting_points(entries)

    def _trials_left(self) -> bool:
        if self._search.sampler == "fixed":
            return self._num_waiting > 0
        return self._num_started < self._search.trials

    def _may_start(self) -> bool:
        return self._trials_left() and not self._time.over

    def _trial_attrs(self, number: int) -> dict[str, Scalar]:
        seed, asha = self._search.seed, self._plan.rules.asha
        return {
            "seed": self._trial_seed(number),
            "bracket": asha.bracket_of(seed=seed, number=number) if asha else 0,
            "started": self._clock(),
        }

    def _trial_seed(self, number: int) -> int:
        """A trial's own; of a fixed search with several seeds that of its round, equal for all entries."""
        if self._search.seeds > 1:
            return derive_seed(self._search.seed, "round", number // len(self._search.start_with))
        return derive_seed(self._search.seed, "trial", number)

    def _start_trial(self) -> int:
        sampler, seed = self._search.sampler, self._search.seed
        number = self._study.ask(self._plan.space, sampler=sampler, seed=seed, attrs_of=self._trial_attrs)
        crash_point("after_ask")
        self._num_started += 1
        self._num_waiting = max(0, self._num_waiting - 1)
        self._add_live(self._study.trial(number))
        return number

    def _note_measured(self, live: _Live, measured: Mapping[str, float]) -> None:
        """Keeps it in the study: a trial that goes on after a resume is not measured again."""
        if measured.keys() - live.measured.keys():
            live.measured |= measured
            self._study.set_attrs(live.number, {"measured": dict(live.measured)})

    def _add_live(self, trial: FrozenTrial) -> _Live:
        attrs = trial.user_attrs
        config = from_plain(TrialConfig, attrs["config"])
        sizes = self._plan.sizes.get(config.backbone, {})
        live = _Live(
            number=trial.number,
            config=config,
            seed=attrs["seed"],
            bracket=attrs["bracket"],
            measured={name: sizes[name] for name in self._limits if name in sizes} | attrs.get("measured", {}),
        )
        self._live[trial.number] = live
        return live

    def _take_up(self, trial: FrozenTrial) -> None:
        """A trial that an earlier start left RUNNING: ends it if its last report did, else it goes on."""
        if "config" not in trial.user_attrs:
            sampler, seed, attrs = self._search.sampler, self._search.seed, self._trial_attrs(trial.number)
            self._study.propose_again(trial.number, self._plan.space, sampler=sampler, seed=seed, attrs=attrs)
            trial = self._study.trial(trial.number)
        live = self._add_live(trial)
        for stored in stored_reports(trial):
            live.epoch = stored.report.epoch
            live.verdicts[live.epoch] = stored.verdict
        last = live.verdicts.get(live.epoch, Verdict(decision=Decision.CONTINUE))
        if last.decision is Decision.CONTINUE and self._time.over and self._search.on_budget == "cut":
            last = Verdict(decision=Decision.STOP, reason="budget")
        if last.decision is Decision.CONTINUE:
            self._going_on.append(trial.number)
        else:
            self._end(live, _ending(last))

    def _end(self, live: _Live, ending: Ending) -> None:
        best = self._judge.best(live.number)
        told = {_CONSTRAINTS[ending.reason]: 1.0} if ending.reason in _CONSTRAINTS else {}
        ending = replace(ending, constraints=told | excess(live.measured, self._limits))
        crash_point("before_tell")
        self._study.tell(live.number, ending, best=best, ended=self._clock(), measured=live.measured)
        crash_point("after_tell")
        del self._live[live.number]
        self._drop_checkpoint(live.number)
        if ending.state is not _FAIL:
            self._streak.broken()
        state, reason = state_and_reason(ending.state, ending.reason)
        outcome = TrialOutcome(
            state=state,
            reason=reason,
            epochs_run=live.epoch,
            best_value=best.value if best else None,
            best_epoch=best.epoch if best else None,
            error=ending.error,
        )
        self._audience.trial_ended(live.number, outcome)

    def _drop_checkpoint(self, number: int) -> None:
        """An ended trial has nothing to go on with; its best model stays."""
        shutil.rmtree(self._plan.folder.running(number), ignore_errors=True)


def _ending(verdict: Verdict) -> Ending:
    complete = verdict.decision is Decision.COMPLETE
    return Ending(state=_COMPLETE if complete else _PRUNED, reason=verdict.reason)

"""What a search knows of a trial that runs or is about to, and how a worker gets it."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from tlsearch.config import SearchSpec
from tlsearch.core.codec import from_plain
from tlsearch.core.types import EpochReport, ModelSpec, TrialAssignment, TrialConfig
from tlsearch.search.plan import SearchPlan
from tlsearch.search.sampling.points import FIRST_LOOK
from tlsearch.search.scheduling.packing import Shares
from tlsearch.search.scheduling.stopping_rules import MEASURED_BY_WORKERS, Judge, Observation, Verdict
from tlsearch.search.study.stored_reports import StoredReport, stored_reports
from tlsearch.search.worker.messages import Job

logger = logging.getLogger(__name__)

_OVERDUE_S = 600.0  # a first look that has said nothing for so long, and for each retry again, is waited for no more
GPUS, ALONE = "gpus", "alone"  # attributes of a trial: the fraction of a GPU that it had, and that it needs a whole one


class ModelCosts:
    """What models cost by the second objective, counted before the search or measured by its trials.

    Measured again, one model is never equally fast twice, and a front would be made of such differences. So the first
    measurement of a model counts for all of its trials, and the study holds it with each of them.
    """

    def __init__(self, plan: SearchPlan) -> None:
        self._plan, self._name = plan, plan.search.cost
        self._known: dict[ModelSpec, float] = {}

    def read(self, trials: Iterable[FrozenTrial]) -> ModelCosts:
        """Takes what the trials of earlier starts have measured."""
        for trial in trials if self._name else ():
            if "measured" in trial.user_attrs:
                self.shared(from_plain(TrialConfig, trial.user_attrs["config"]), trial.user_attrs["measured"])
        return self

    def shared(self, config: TrialConfig, measured: Mapping[str, float]) -> dict[str, float]:
        """What was measured of a trial's model, with the model's own cost in place of another measurement of it."""
        found = dict(measured)
        if not self._name:
            return found
        model = self._model(config)
        if self._name in found:
            self._known.setdefault(model, found[self._name])
        if model in self._known:
            found[self._name] = self._known[model]
        return found

    def of(self, config: TrialConfig) -> float:
        """A model's cost; 0 without a second objective, and where it is not known: in a forecast no latency is."""
        if not self._name:
            return 0.0
        known = self._plan.sizes_of(config).get(self._name)
        return self._known.get(self._model(config), 0.0) if known is None else known

    def _model(self, config: TrialConfig) -> ModelSpec:
        return ModelSpec.of(config, self._plan.setup.data, self._plan.num_classes)


@dataclass(kw_only=True)
class Live:
    """What is known of a trial that runs or is about to.

    Attributes:
        epoch: The last one that the study holds.
        deaths: Node ids of workers that died; empty where unknown.
        first_look: Whether proposals wait for it, and ASHA does not stop it.
        gpus: Its fraction of a GPU; None until it is handed out, and outside of a cluster.
        alone: Whether it needs a whole device, since it ran out of memory in a fraction.
        heard: When it began here or reported last, by the search's own clock.
    """

    number: int
    config: TrialConfig
    seed: int
    bracket: int
    first_look: bool = False
    gpus: float | None = None
    alone: bool = False
    heard: float = 0.0
    epoch: int = 0
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, trial: FrozenTrial, plan: SearchPlan, costs: ModelCosts, *, heard: float) -> Live:
        """A trial that is RUNNING in the study, as its attributes there describe it."""
        attrs = trial.user_attrs
        config = from_plain(TrialConfig, attrs["config"])
        sizes = {name: size for name, size in plan.sizes_of(config).items() if name in plan.search.measured}
        return cls(
            number=trial.number,
            config=config,
            seed=attrs["seed"],
            bracket=attrs["bracket"],
            first_look=attrs.get(FIRST_LOOK, False),
            alone=attrs.get(ALONE, False),
            heard=heard,
            measured=costs.shared(config, sizes | attrs.get("measured", {})),
        )

    def observed(self, report: EpochReport, metric: str, costs: ModelCosts) -> Observation:
        """Its next report as the rules see it."""
        config, number, uncut, cost = self.config, self.number, self.first_look, costs.of(self.config)
        return Observation.of(report, metric, config, trial=number, bracket=self.bracket, uncut=uncut, cost=cost)

    def given(self, shares: Shares) -> dict[str, float | None]:
        """Settles its fraction of a GPU, where it has none yet; gives what the study is to keep of it."""
        if self.gpus is not None:
            return {}
        self.gpus = shares.of(self.config, alone=self.alone)
        return {GPUS: self.gpus} if shares.packs else {}

    def moved(self, shares: Shares) -> dict[str, float | bool]:
        """Moves it to a whole GPU, where it had a fraction; gives what the study is to keep of it."""
        if not self.gpus or self.gpus >= 1:
            return {}
        logger.warning("trial %d runs out of memory in %g of a GPU; it gets a whole one", self.number, self.gpus)
        shares.note_too_large(self.number, self.config)
        self.alone, self.gpus = True, 1.0
        return {ALONE: True, GPUS: 1.0}

    def job(self, plan: SearchPlan) -> Job:
        """The trial as a worker needs it, now."""
        assignment = TrialAssignment(
            number=self.number,
            seed=self.seed,
            config=self.config,
            setup=plan.setup,
            directory=str(plan.folder.trial(self.number)),
            gpus=self.gpus,
            shares=True,
        )
        limits = {name: limit for name, limit in plan.search.constraints.limits.items() if name in MEASURED_BY_WORKERS}
        return Job(
            assignment=assignment,
            reported=self.epoch,
            max_failures=plan.search.max_failures,
            limits=limits,
            gauged=tuple(name for name in plan.search.measured if name in MEASURED_BY_WORKERS),
            measured=self.measured,
        )

    def counted_deaths(self, alive: Collection[str], *, settled: bool) -> int:
        """The deaths of its workers that count against it: those whose node is alive, or unknown.

        Args:
            alive: The ids of the nodes that are alive now and are to stay.
            settled: Whether Ray knows the reason of the last death; if not, the next one decides about it.
        """
        judged = self.deaths if settled else self.deaths[:-1]
        return sum(not node or node in alive for node in judged)


def looking(live: Iterable[Live], search: SearchSpec, *, now: float) -> bool:
    """Whether the first look at a backbone runs: guided proposals begin when all have ended.

    Until then a backbone that is reported early would be taken for the best. A first look that says nothing for long
    does not hold up the others for ever.
    """
    timeout_s = search.trial_timeout_s or _OVERDUE_S  # with a timeout its worker is killed, then it fails
    return any(one.first_look and now - one.heard < timeout_s * (1 + search.max_failures) for one in live)


def take_stored(
    trials: Sequence[FrozenTrial], judge: Judge, shares: Shares, *, metric: str, costs: ModelCosts
) -> list[StoredReport]:
    """Has the judge and the shares take the reports of earlier starts; gives these in the order in which they came."""
    reports = [(stored, trial) for trial in trials for stored in stored_reports(trial)]
    reports.sort(key=lambda pair: pair[0].seq)
    for stored, trial in reports:
        attrs, number = trial.user_attrs, trial.number
        bracket, uncut = attrs.get("bracket", 0), attrs.get(FIRST_LOOK, False)
        config = from_plain(TrialConfig, attrs["config"])
        cost = costs.of(config)
        seen = Observation.of(stored.report, metric, config, trial=number, bracket=bracket, uncut=uncut, cost=cost)
        judge.observe(seen)
        shares.note(number, config, attrs.get(GPUS) or 1.0, stored.report)
    return [stored for stored, _ in reports]

"""What a search knows of a trial that runs or is about to, and how a worker gets it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from tlsearch.core.codec import from_plain
from tlsearch.core.types import TrialAssignment, TrialConfig
from tlsearch.search.plan import SearchPlan
from tlsearch.search.sampling.points import FIRST_LOOK
from tlsearch.search.scheduling.stopping_rules import MEASURED_BY_WORKERS, Verdict
from tlsearch.search.worker.messages import Job


@dataclass(kw_only=True)
class Live:
    """What is known of a trial that runs or is about to.

    Attributes:
        epoch: The last one that the study holds.
        deaths: Node ids of workers that died; empty where unknown.
        first_look: Whether proposals wait for it, and ASHA does not stop it.
        heard: When it began here or reported last, by the search's own clock.
    """

    number: int
    config: TrialConfig
    seed: int
    bracket: int
    first_look: bool = False
    heard: float = 0.0
    epoch: int = 0
    verdicts: dict[int, Verdict] = field(default_factory=dict)
    deaths: list[str] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, trial: FrozenTrial, plan: SearchPlan, *, heard: float) -> Live:
        """A trial that is RUNNING in the study, as its attributes there describe it."""
        attrs = trial.user_attrs
        config = from_plain(TrialConfig, attrs["config"])
        sizes = plan.sizes_of(config.backbone)
        limited = plan.search.constraints.limits
        return cls(
            number=trial.number,
            config=config,
            seed=attrs["seed"],
            bracket=attrs["bracket"],
            first_look=attrs.get(FIRST_LOOK, False),
            heard=heard,
            measured={name: sizes[name] for name in limited if name in sizes} | attrs.get("measured", {}),
        )

    def job(self, plan: SearchPlan) -> Job:
        """The trial as a worker needs it, now."""
        assignment = TrialAssignment(
            number=self.number,
            seed=self.seed,
            config=self.config,
            setup=plan.setup,
            directory=str(plan.folder.trial(self.number)),
        )
        limits = {name: limit for name, limit in plan.search.constraints.limits.items() if name in MEASURED_BY_WORKERS}
        return Job(
            assignment=assignment,
            reported=self.epoch,
            max_failures=plan.search.max_failures,
            limits=limits,
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

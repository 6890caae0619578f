"""The section ``search`` of a space file: what is searched for, how long, and when a trial or the search ends."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from tlsearch.config.document.wording import show, suggest
from tlsearch.config.samplers import SAMPLERS
from tlsearch.config.values import (
    STRICT,
    AnyScalar,
    Count,
    CountFromZero,
    Duration,
    Flag,
    Number,
    Seed,
    Text,
    Whole,
    broken,
)
from tlsearch.core.metrics import COSTS, METRICS

if TYPE_CHECKING:
    SamplerName = str
    MetricName = str
    CostName = str
else:  # a type checker cannot read the tables
    SamplerName = Literal[tuple(SAMPLERS)]
    MetricName = Literal[tuple(METRICS)]
    CostName = Literal[tuple(COSTS)]


def _metric(value: Any) -> Any:
    if isinstance(value, list) and len(value) > 1:
        raise broken(f"a metric is one name, not {show(value)}; a metric and a cost of the model are `objectives`")
    if not isinstance(value, str) or value not in METRICS:
        raise broken(f"the metric {show(value)} is not known{suggest(value, METRICS)}")
    return value


def _objectives(value: Any) -> Any:
    if value is None:
        return ()
    rule = "objectives are a metric, then a cost of the model, as in [val_accuracy, latency_ms]"
    if not isinstance(value, list | tuple) or not all(isinstance(one, str) for one in value):
        raise broken(f"{rule}; not {show(value)}")
    for one in value:
        if value.count(one) > 1:
            raise broken(f"{rule}; {show(one)} is there twice")
        if one not in METRICS and one not in COSTS:
            raise broken(f"{rule}; {show(one)} is neither{suggest(one, [*METRICS, *COSTS])}")
    if value and not (len(value) == 2 and value[0] in METRICS and value[1] in COSTS):
        raise broken(f"{rule}, one of {', '.join(COSTS)}; not {show(value)}")
    return value


def _scheduler(value: Any) -> Any:
    """``none`` or ``{asha: {...}}``; ``asha`` alone is ASHA with its defaults."""
    if value is None or value == "none":
        return None
    if value == "asha":
        return {}
    if isinstance(value, dict) and list(value) == ["asha"]:
        return {} if value["asha"] is None else value["asha"]
    if isinstance(value, dict) and value:
        wrong = next(key for key in value if key != "asha")
        raise broken(f"the scheduler is none or {{asha: ...}}, not {wrong!r}{suggest(wrong, ('asha',))}")
    raise broken(f"the scheduler is none or {{asha: ...}}, not {show(value)}")


def _or_empty(value: Any) -> Any:
    return {} if value is None else value


@dataclass(frozen=True, kw_only=True)
class AshaSpec:
    """Asynchronous successive halving, in epochs, or in folds where the search has folds.

    Attributes:
        grace_period: Epochs before the first rung. No trial is stopped earlier.
        reduction_factor: At each rung about one trial in this many goes on.
        brackets: Number of brackets with later and later first rungs.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    grace_period: Count = 1
    reduction_factor: Annotated[Whole, Field(ge=2, le=1000)] = 3
    brackets: Annotated[Whole, Field(ge=1, le=64)] = 1


@dataclass(frozen=True, kw_only=True)
class SchedulerForm:
    """How a file names the scheduler with its settings."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    asha: AshaSpec | None


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A constraint of the user's: at most so much.

    Attributes:
        max: Largest allowed value.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    max: Annotated[Number, Field(gt=0, le=10**9)]


@dataclass(frozen=True, kw_only=True)
class ConstraintsSpec:
    """Limits on the model. A trial that breaks one is infeasible, and the sampler learns from it.

    Attributes:
        params_millions: Parameters of the whole model, in millions.
        checkpoint_mb: Weights of the whole model, as it is logged or exported, in MB (10^6 bytes).
        latency_ms: Time of one image through the model on the trial's device, in milliseconds.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    params_millions: Limit | None = None
    checkpoint_mb: Limit | None = None
    latency_ms: Limit | None = None

    @property
    def limits(self) -> Mapping[str, float]:
        """The largest allowed value of each constraint that is set."""
        found = {one.name: getattr(self, one.name) for one in fields(self)}
        return {name: limit.max for name, limit in found.items() if limit is not None}


@dataclass(frozen=True, kw_only=True)
class SearchSpec:
    """What is searched for, how long, and when a trial or the search ends.

    Attributes:
        trials: Total number of trials, starting points included.
        max_epochs: Epochs of a trial that is not stopped earlier.
        folds: For few images: K trains each trial K times, with each K-th of the images of train and val held out
            once, and its value is the mean. The scheduler then counts folds. 0 or 1 is off.
        time_budget_s: Wall time of the search over all its starts; none is without limit.
        on_budget: Whether trials that run when the time is over finish, or end at their next report (cut).
        metric: Metric that decides, on the validation images; its direction follows from it.
        objectives: For a trade-off: the metric, then what the model costs, as [val_accuracy, latency_ms]. The search
            then looks for the Pareto front of both. By default the metric alone.
        sampler: Who proposes points: Optuna's TPE, a random draw, or only the entries of start_with (fixed).
        scheduler: Stopping rule for weak trials; ``none`` lets every trial run to max_epochs.
        start_with: Points of the space to try first, as mappings of dimensions to values; what an entry leaves
            out has its default.
        seeds: With sampler fixed: number of times that each entry of start_with is trained, each time with
            another seed.
        constraints: Limits on the model.
        patience: Epochs without improvement that end a trial as complete; none never does.
        starting_points: After the default and a first look at every other backbone: try points that are known to
            be good, on the backbone that is best by then. Sampler tpe only.
        cost_aware: Without starting points: each of the first ten trials is the cheapest of three random ones.
            Sampler tpe only.
        max_failures: Number of retries of one trial.
        max_failed_trials: The same error in this many trials in a row stops the search.
        trial_timeout_s: A worker without a report for this long is killed, which counts as a failure of its
            trial; the first report also waits for decoded images and features. None never kills.
        study: Where Optuna's study is: auto is a journal in the search's folder, else sqlite:///FILE,
            postgresql:// or mysql://. Needed where storage is s3://.
        stop: With auto the search ends when the chance that the trials that are left gain 0.2 points of the metric
            (0.002) falls below 10 %. Not with sampler fixed, nor with objectives.
        seed: Seed of the sampler and of all trials.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    trials: Count = 64
    max_epochs: Count = 20
    folds: Annotated[Whole, Field(ge=0, le=100)] = 0
    time_budget_s: Annotated[Duration, Field(alias="time_budget")] = None
    on_budget: Literal["finish", "cut"] = "cut"
    metric: Annotated[str, BeforeValidator(_metric, json_schema_input_type=MetricName)] = "val_accuracy"
    objectives: Annotated[
        tuple[str, ...],
        BeforeValidator(_objectives, json_schema_input_type=tuple[MetricName, CostName] | tuple[()] | None),
    ] = ()
    sampler: SamplerName = "tpe"
    scheduler: Annotated[
        AshaSpec | None,
        BeforeValidator(_scheduler, json_schema_input_type=SchedulerForm | Literal["none", "asha"] | None),
    ] = field(default_factory=AshaSpec)
    start_with: tuple[Mapping[str, AnyScalar], ...] = ()
    seeds: Annotated[Whole, Field(ge=1, le=1000)] = 1
    constraints: Annotated[
        ConstraintsSpec, BeforeValidator(_or_empty, json_schema_input_type=ConstraintsSpec | None)
    ] = field(default_factory=ConstraintsSpec)
    patience: Count | None = None
    starting_points: Literal["auto", "none"] = "auto"
    cost_aware: Flag = True
    max_failures: CountFromZero = 2
    max_failed_trials: Count = 5
    trial_timeout_s: Annotated[Duration, Field(alias="trial_timeout")] = None
    study: Text = "auto"
    stop: Literal["auto", "none"] = "none"
    seed: Seed = 0

    @property
    def listed(self) -> bool:
        """Whether the entries of ``start_with`` are the whole search."""
        return SAMPLERS[self.sampler].listed

    @property
    def cost(self) -> str:
        """The objective beside the metric; empty where there is none."""
        return self.objectives[1] if self.objectives else ""

    @property
    def measured(self) -> tuple[str, ...]:
        """The costs of a model that the search looks at: its constraints', and its objective."""
        return tuple(dict.fromkeys([*self.constraints.limits, *([self.cost] if self.cost else [])]))

    @property
    def num_folds(self) -> int:
        """Folds of each trial; 0 where there are none."""
        return self.folds if self.folds > 1 else 0

    @property
    def num_reports(self) -> int:
        """Reports of a whole trial: one of each epoch, or of each fold."""
        return self.num_folds or self.max_epochs

    def applies(self, option: str) -> bool:
        """Whether the sampler reads this key, one of those that apply to some samplers only."""
        return option in SAMPLERS[self.sampler].options

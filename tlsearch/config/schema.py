"""A space file as the rooms above read it: typed, complete, every path absolute.

The annotations carry the rules of single values (``rules``), which ``validate`` applies; rules between
values are in ``checks``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from tlsearch.config.document import Document
from tlsearch.config.rules import (
    AnyScalar,
    AutoCount,
    AutoFlag,
    AutoShare,
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
from tlsearch.config.words import show, suggest
from tlsearch.types import METRIC_MODES, CacheSpec, DataSpec, WeightsSource

STRICT = ConfigDict(extra="forbid")

Precision = Literal["auto", "fp32", "bf16", "fp16"]


def _metric(value: Any) -> Any:
    if not isinstance(value, str) or value not in METRIC_MODES:
        raise broken(f"the metric {show(value)} is not known{suggest(value, METRIC_MODES)}")
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


def _auto(value: Any) -> Any:
    return None if value == "auto" else value


def _or_empty(value: Any) -> Any:
    return {} if value is None else value


def _name(value: Any) -> Any:
    if isinstance(value, str) and (len(value) > 100 or not value.isprintable() or re.search(r"[/\\]|^\s|\s$", value)):
        raise broken(
            f"a name has 1 to 100 printable characters, no slash and no space at its ends, unlike {show(value)}"
        )
    return value


ExperimentName = Annotated[Text, BeforeValidator(_name)]


@dataclass(frozen=True, kw_only=True)
class DefaultsSpec:
    """What dimensions have that ``space`` leaves out; None is fitted to the data when a search begins.

    A search's ``resolved.yaml`` holds the values that were found, so that a resumed search keeps them.

    Attributes:
        batch_size: At most 32, and so small that an epoch has at least 16 steps.
        head_init: ``probe``, or ``random`` where no backbone has pretrained weights.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    batch_size: Annotated[Annotated[Whole, Field(ge=1, le=65536)] | None, BeforeValidator(_auto)] = None
    head_init: Annotated[Literal["probe", "random"] | None, BeforeValidator(_auto)] = None

    @property
    def values(self) -> Mapping[str, int | str]:
        """Those that are known, by dimension."""
        found = {"batch_size": self.batch_size, "head_init": self.head_init}
        return {name: value for name, value in found.items() if value is not None}

    def completed(self, others: DefaultsSpec) -> DefaultsSpec:
        """These, and of the others those that are not known here."""
        batch_size = others.batch_size if self.batch_size is None else self.batch_size
        return DefaultsSpec(batch_size=batch_size, head_init=self.head_init or others.head_init)


@dataclass(frozen=True, kw_only=True)
class AshaSpec:
    """Asynchronous successive halving, in epochs.

    Attributes:
        grace_period: Epochs before the first rung; no trial is cut earlier.
        reduction_factor: A rung keeps one in so many trials; at least 2.
        brackets: Number of brackets with staggered first rungs.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    grace_period: Count = 1
    reduction_factor: Annotated[Whole, Field(ge=2)] = 3
    brackets: Count = 1


@dataclass(frozen=True, kw_only=True)
class Limit:
    """A constraint of the user's: at most so much."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    max: Annotated[Number, Field(gt=0)]


@dataclass(frozen=True, kw_only=True)
class ConstraintsSpec:
    """What a model may weigh and cost; a trial that breaks one is infeasible, and its sampler is told.

    Attributes:
        params_millions: Parameters of the whole model, in millions.
        checkpoint_mb: Its weights on disk, in MB of 10^6 bytes.
        latency_ms: One image through the model on the trial's device, in milliseconds.
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
        trials: Trials in all, starting points included.
        max_epochs: Epochs of a trial that is not cut.
        time_budget_s: Wall time of the search; None is without limit.
        on_budget: Whether the trials then running finish or are cut at their next report.
        scheduler: None lets every trial run to ``max_epochs``.
        start_with: Points of the space to try first, by the user's names, as the user wrote them.
        seeds: With the sampler ``fixed``: how often each entry of start_with is trained, each time with another
            seed; the seeds are the same for all entries, so that entries can be compared seed by seed.
        max_failures: Retries of one trial.
        max_failed_trials: The same error in so many trials in a row stops the search.
        trial_timeout_s: A worker from which no report came for so long is killed; that counts as a failure of its
            trial. The first report also waits for what the node prepares once: decoded images, stored features.
        patience: Epochs without improvement that end a trial as complete.
        portfolio: After the default and a first look at every other backbone some points that are known to be good, on
            the backbone that is best by then. Sampler tpe only.
        cost_aware: What a trial costs counts, as measured by backbone and depth: without the portfolio each of the
            first points that nothing else gives (until four trials have reported; ten points without expected_gain) is
            the cheapest of three random ones, and an expected gain is divided by a root of the cost. Sampler tpe only.
        expected_gain: Then, in place of TPE's and until a hundred trials have begun, the points of the greatest
            expected gain over the best so far, by Gaussian processes over what trials have shown. None is auto: where
            the portfolio is off. Sampler tpe only.
        study: ``auto`` is a journal in the search's folder; else a database's URL, ``sqlite:///FILE`` (absolute here),
            ``postgresql://`` or ``mysql://``.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    trials: Count = 64
    max_epochs: Count = 20
    time_budget_s: Annotated[Duration, Field(alias="time_budget")] = None
    on_budget: Literal["finish", "cut"] = "cut"
    metric: Annotated[str, BeforeValidator(_metric)] = "val_accuracy"
    sampler: Literal["tpe", "random", "fixed"] = "tpe"
    scheduler: Annotated[AshaSpec | None, BeforeValidator(_scheduler)] = field(default_factory=AshaSpec)
    start_with: tuple[Mapping[str, AnyScalar], ...] = ()
    seeds: Count = 1
    constraints: Annotated[ConstraintsSpec, BeforeValidator(_or_empty)] = field(default_factory=ConstraintsSpec)
    patience: Count | None = None
    portfolio: Flag = True
    cost_aware: Flag = True
    expected_gain: AutoFlag = None
    max_failures: CountFromZero = 2
    max_failed_trials: Count = 5
    trial_timeout_s: Annotated[Duration, Field(alias="trial_timeout")] = None
    study: Text = "auto"
    seed: Seed = 0

    @property
    def by_gain(self) -> bool:
        """Whether the expected gain chooses points."""
        return not self.portfolio if self.expected_gain is None else self.expected_gain


@dataclass(frozen=True, kw_only=True)
class ResourcesSpec:
    """What one trial is given; None is auto.

    Attributes:
        gpus_per_trial: 0 to 1, a share of one device; auto is one where the cluster has any.
        max_concurrent: Trials at a time; auto is what fits.
        compile: Whether training goes through torch.compile. The first step of each backbone and depth takes a worker
            up to a minute longer: for long trials.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    gpus_per_trial: AutoShare = None
    cpus_per_trial: Count = 1
    max_concurrent: AutoCount = None
    precision: Precision = "auto"
    compile: Flag = False


@dataclass(frozen=True, kw_only=True)
class TrackingSpec:
    """Where MLflow records; ``uri`` is absolute, ``keep_best`` models stay in the store."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    uri: Text = "sqlite:///mlflow.db"
    keep_best: Count = 3


@dataclass(frozen=True, kw_only=True)
class SpaceFile:
    """A whole space file; ``space`` is still in the file's own syntax, which the room ``space`` reads."""

    name: str
    data: DataSpec
    weights: Mapping[str, WeightsSource]
    space: Mapping[str, Any]
    defaults: DefaultsSpec
    search: SearchSpec
    resources: ResourcesSpec
    cache: CacheSpec
    tracking: TrackingSpec
    storage: str


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """A space file with the document it was read from."""

    file: SpaceFile
    document: Document

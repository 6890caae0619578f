"""A space file as the rooms above read it: typed, complete, every path absolute.

The annotations carry the rules of single values; those between values are in ``rules.between_values``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from tlsearch.config.document.positions import Document
from tlsearch.config.document.wording import show
from tlsearch.config.search_section import SearchSpec
from tlsearch.config.values import STRICT, AutoCount, AutoShare, Flag, Text, Whole, broken
from tlsearch.core.types import CacheSpec, DataSpec, TrialSetup, WeightsSource

Precision = Literal["auto", "fp32", "bf16", "fp16"]
_BatchSize = Annotated[Whole, Field(ge=1, le=65536)]


def _auto(value: Any) -> Any:
    return None if value == "auto" else value


def _name(value: Any) -> Any:
    wrong = r"[/\\]|^\s|\s$|^\.+$"
    if isinstance(value, str) and (len(value) > 100 or not value.isprintable() or re.search(wrong, value)):
        raise broken(
            "a name has 1 to 100 printable characters, not only dots, no slash and no space at its ends, unlike "
            f"{show(value)}"
        )
    return value


ExperimentName = Annotated[Text, BeforeValidator(_name)]


@dataclass(frozen=True, kw_only=True)
class DefaultsSpec:
    """What dimensions have that ``space`` leaves out; None is fitted to the data when a search begins.

    A search's ``resolved.yaml`` holds the values that were found, so that a resumed search keeps them.

    Attributes:
        batch_size: Images in a batch where ``space`` has no batch_size; auto is at most 32, and so small that
            an epoch has at least 16 steps.
        head_init: How heads start where ``space`` has no head_init; auto is ``probe``, or ``random`` where no
            backbone has pretrained weights.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    batch_size: Annotated[
        _BatchSize | None, BeforeValidator(_auto, json_schema_input_type=_BatchSize | Literal["auto"] | None)
    ] = None
    head_init: Annotated[
        Literal["probe", "random"] | None,
        BeforeValidator(_auto, json_schema_input_type=Literal["probe", "random", "auto"] | None),
    ] = None

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
class ResourcesSpec:
    """What one trial is given; None is auto.

    Attributes:
        gpus_per_trial: GPUs of one trial, 0 to 1, a fraction of one device; auto is a whole one, and a fraction
            once trials of the search have shown that several fit a device.
        cpus_per_trial: CPU threads of one trial.
        max_concurrent: Number of trials at a time; auto is as many as fit.
        precision: Number format of training; auto is fp32 on a CPU and bf16 or fp16 on a GPU.
        compile: Whether training uses torch.compile. The first step of each backbone and depth takes up to a
            minute longer.
        deterministic: Whether trials on a GPU use only algorithms that repeat to the bit, which are slower; trials on
            a CPU always repeat.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    gpus_per_trial: AutoShare = None
    cpus_per_trial: Annotated[Whole, Field(ge=1, le=4096)] = 1
    max_concurrent: AutoCount = None
    precision: Precision = "auto"
    compile: Flag = False
    deterministic: Flag = False


@dataclass(frozen=True, kw_only=True)
class TrackingSpec:
    """Where MLflow records; ``uri`` is absolute, ``keep_best`` models stay in the store.

    Attributes:
        uri: MLflow store: sqlite:///FILE, http(s)://, postgresql://, mysql://, mssql:// or databricks. A
            relative file starts at the space file.
        keep_best: Number of models that stay in MLflow, the best of the search. With two objectives those of the whole
            Pareto front stay, too.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    uri: Text = "sqlite:///mlflow.db"
    keep_best: Annotated[Whole, Field(ge=1, le=1000)] = 3


@dataclass(frozen=True, kw_only=True)
class SpaceFile:
    """A whole space file, as the rooms above read it.

    Attributes:
        space: Still in the file's own syntax, which the room ``space`` reads.
        document: What it was read from: it knows the place of each value, for errors that are found later.
    """

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
    document: Document = field(compare=False, repr=False)

    def weights_of(self, backbone: str) -> WeightsSource:
        """Where a backbone's weights come from: as the file says, or the library's default ones."""
        return self.weights.get(backbone, WeightsSource())

    def trial_setup(self) -> TrialSetup:
        """What all trials of the search share."""
        return TrialSetup(
            data=self.data,
            weights=self.weights,
            max_epochs=self.search.max_epochs,
            folds=self.search.num_folds,
            metric=self.search.metric,
            num_threads=self.resources.cpus_per_trial,
            precision=self.resources.precision,
            device="cpu" if self.resources.gpus_per_trial == 0 else "auto",
            compiled=self.resources.compile,
            deterministic=self.resources.deterministic,
            cache=self.cache,
        )

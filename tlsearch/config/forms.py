"""The sections whose shape in the file differs from the dataclasses of ``tlsearch.types``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from tlsearch.config.rules import AnyScalar, AutoAmount, AutoPixels, Count, Flag, Number, Pattern, Seed, Text, broken
from tlsearch.config.schema import (
    STRICT,
    AshaSpec,
    ConstraintsSpec,
    DefaultsSpec,
    ExperimentName,
    Limit,
    ResourcesSpec,
    SearchSpec,
    TrackingSpec,
)
from tlsearch.types import MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class SplitForm:
    """``data.split``: fractions of the images; the rest trains."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    val: Annotated[Number, Field(gt=0, lt=1)] = 0.15
    test: Annotated[Number, Field(ge=0, lt=1)] = 0.15
    seed: Seed = 0
    group_by: Pattern | None = None


@dataclass(frozen=True, kw_only=True)
class DataForm:
    """``data``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    source: Literal["folder", "digits", "manifest", "torchvision", "huggingface"]
    path: Text | None = None
    split: SplitForm = field(default_factory=SplitForm)
    image_size: AutoPixels = None
    name: Text | None = None
    download: Flag = False
    options: Mapping[str, AnyScalar] = field(default_factory=dict)
    image_column: Text | None = None
    label_column: Text | None = None
    max_pixels: Count = MAX_PIXELS
    layout: Literal["auto", "classes"] = "auto"


@dataclass(frozen=True, kw_only=True)
class WeightsForm:
    """One entry of ``weights``; text alone is the ``path``, ``none`` or ``default``."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    path: Text | None = None
    transform: Text | None = None
    package: Text | None = None
    file: Text | None = None
    match: Literal["name", "order"] = "name"


@dataclass(frozen=True, kw_only=True)
class CacheForm:
    """``cache``; sizes in GB, None is auto."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    images_gb: AutoAmount = None
    features_gb: AutoAmount = None
    feature_precision: Literal["full", "half"] = "full"
    views: Count = 1


def _weights(value: Any) -> Any:
    if isinstance(value, str):
        return {"path": value}
    if value is None:
        raise broken("must be a path, none, default, {path: ...} or {package: ..., file: ...}, not empty")
    return value


@dataclass(frozen=True, kw_only=True)
class FileForm:
    """The root of the file."""

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: ExperimentName
    data: DataForm
    space: Mapping[str, Any]
    defaults: DefaultsSpec = field(default_factory=DefaultsSpec)
    weights: Mapping[str, Annotated[WeightsForm, BeforeValidator(_weights)]] = field(default_factory=dict)
    search: SearchSpec = field(default_factory=SearchSpec)
    resources: ResourcesSpec = field(default_factory=ResourcesSpec)
    cache: CacheForm = field(default_factory=CacheForm)
    tracking: TrackingSpec = field(default_factory=TrackingSpec)
    storage: Text = "./tlsearch_runs"


# Which form stands where; "*" is any key.
FORMS: Mapping[tuple[str, ...], type] = {
    (): FileForm,
    ("data",): DataForm,
    ("data", "split"): SplitForm,
    ("defaults",): DefaultsSpec,
    ("weights", "*"): WeightsForm,
    ("search",): SearchSpec,
    ("search", "scheduler", "asha"): AshaSpec,
    ("search", "constraints"): ConstraintsSpec,
    ("search", "constraints", "*"): Limit,
    ("resources",): ResourcesSpec,
    ("cache",): CacheForm,
    ("tracking",): TrackingSpec,
}

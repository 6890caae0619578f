"""The root of a space file, its sections, and the rules of the keys whose classes are of ``tlsearch.core.types``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, make_dataclass
from typing import Annotated, Any, ClassVar, Literal, get_type_hints

from pydantic import BeforeValidator, ConfigDict, Field, GetCoreSchemaHandler
from pydantic.fields import FieldInfo
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_after_validator_function

from tlsearch.config.data_sources import DATA_SOURCES
from tlsearch.config.schema import DefaultsSpec, ExperimentName, ResourcesSpec, TrackingSpec
from tlsearch.config.search_section import AshaSpec, ConstraintsSpec, Limit, SearchSpec
from tlsearch.config.values import (
    STRICT,
    AnyScalar,
    AutoAmount,
    AutoBits,
    AutoChannels,
    AutoPixels,
    Flag,
    Fraction,
    Number,
    Pattern,
    Seed,
    Text,
    Whole,
    broken,
)
from tlsearch.core.label_tasks import TaskName
from tlsearch.core.types import CacheSpec, DataSpec, SplitSpec


class Section:
    """Reads a section of the file into a class of ``core``, which knows no pydantic: by ``RULES``, a rule for each key.

    A field of the class without a rule has no key in the file.
    """

    def __get_pydantic_core_schema__(self, source: type, handler: GetCoreSchemaHandler) -> CoreSchema:
        rules = RULES[source]
        keys: list[tuple[str, Any, Any]] = [
            (one.name, rules[one.name], field(default=one.default, default_factory=one.default_factory))
            for one in fields(source)
            if one.name in rules
        ]
        namespace = {"__pydantic_config__": STRICT, "__doc__": source.__doc__}
        form = make_dataclass(source.__name__, keys, kw_only=True, namespace=namespace)
        return no_info_after_validator_function(lambda read: source(**vars(read)), handler.generate_schema(form))


RULES: Mapping[type, Mapping[str, Any]] = {
    SplitSpec: {
        "val": Annotated[Number, Field(gt=0, lt=1)],
        "test": Annotated[Number, Field(ge=0, lt=1)],
        "seed": Seed,
        "group_by": Pattern | None,
    },
    DataSpec: {
        "source": Literal[tuple(DATA_SOURCES)],
        "path": Text | None,
        "split": Annotated[SplitSpec, Section()],
        "image_size": AutoPixels,
        "name": Text | None,
        "download": Flag,
        "options": Mapping[str, AnyScalar],
        "image_column": Text | None,
        "label_column": Text | None,
        "max_pixels": Annotated[Whole, Field(ge=1, le=2**31)],
        "layout": Literal["auto", "classes"],
        "task": TaskName,
        "channels": AutoChannels,
        "bits": AutoBits,
        "mean": tuple[Fraction, ...] | None,
        "std": tuple[Annotated[Fraction, Field(gt=0)], ...] | None,
    },
    CacheSpec: {
        "images_gb": AutoAmount,
        "features_gb": AutoAmount,
        "feature_precision": Literal["full", "half"],
        "views": Annotated[Whole, Field(ge=1, le=1000)],
    },
}


def hints_of(section: type) -> Mapping[str, Any]:
    """The rule of each key of a section, by the field's name."""
    return RULES[section] if section in RULES else get_type_hints(section, include_extras=True)


def keys_of(section: type) -> dict[str, str]:
    """The keys of a section as the file writes them, by the field's name."""
    keys = {one.name: one.name for one in fields(section) if one.name in hints_of(section)}
    for name in keys:
        notes = getattr(hints_of(section)[name], "__metadata__", ())
        keys[name] = next((one.alias for one in notes if isinstance(one, FieldInfo) and one.alias), name)
    return keys


@dataclass(frozen=True, kw_only=True)
class WeightsForm:
    """One entry of ``weights``; text alone is the ``path``, ``none`` or ``default``.

    Attributes:
        path: A file (.pth, .safetensors, ...), an address (https:// or s3://), ``none`` for random weights, or
            ``default``. As text alone it may stand without ``path``.
        transform: Take the evaluation transform of another backbone, or of another version of the weights.
        package: Installed Python package that holds the file.
        file: Path of the file inside the package.
        match: How tensors of the file are matched to the model: by name, or by order, shape and kind.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    path: Text | None = None
    transform: Text | None = None
    package: Text | None = None
    file: Text | None = None
    match: Literal["name", "order"] = "name"


def _weights(value: Any) -> Any:
    if isinstance(value, str):
        return {"path": value}
    if value is None:
        raise broken("must be a path, none, default, {path: ...} or {package: ..., file: ...}, not empty")
    return value


@dataclass(frozen=True, kw_only=True)
class FileForm:
    """The root of the file.

    Attributes:
        name: Name of the MLflow experiment, 1 to 100 printable characters; searches are named after it.
        data: Where the images come from and how they are split.
        space: What the search may vary; see the section of its own.
        defaults: Values of dimensions that ``space`` leaves out.
        weights: Pretrained weights by backbone. A backbone that is left out has its library's default weights.
        search: What is searched for, how long, and when a trial or the search ends.
        resources: What one trial gets of the machine.
        cache: How much disk each machine keeps for decoded images and features.
        tracking: Where MLflow records the search.
        storage: Folder, or s3://BUCKET/PREFIX, for studies and checkpoints. On a cluster every node must see
            it. A relative path starts at the space file.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    name: ExperimentName
    data: Annotated[DataSpec, Section()]
    space: Mapping[str, Any]
    defaults: DefaultsSpec = field(default_factory=DefaultsSpec)
    weights: Mapping[
        str, Annotated[WeightsForm, BeforeValidator(_weights, json_schema_input_type=WeightsForm | Text)]
    ] = field(default_factory=dict)
    search: SearchSpec = field(default_factory=SearchSpec)
    resources: ResourcesSpec = field(default_factory=ResourcesSpec)
    cache: Annotated[CacheSpec, Section()] = field(default_factory=CacheSpec)
    tracking: TrackingSpec = field(default_factory=TrackingSpec)
    storage: Text = "./tlsearch_runs"


# Which section stands where; "*" is any key.
FORMS: Mapping[tuple[str, ...], type] = {
    (): FileForm,
    ("data",): DataSpec,
    ("data", "split"): SplitSpec,
    ("defaults",): DefaultsSpec,
    ("weights", "*"): WeightsForm,
    ("search",): SearchSpec,
    ("search", "scheduler", "asha"): AshaSpec,
    ("search", "constraints"): ConstraintsSpec,
    ("search", "constraints", "*"): Limit,
    ("resources",): ResourcesSpec,
    ("cache",): CacheSpec,
    ("tracking",): TrackingSpec,
}

"""The sections whose shape in the file differs from the dataclasses of ``tlsearch.core.types``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from tlsearch.config.rules.values import (
    AnyScalar,
    AutoAmount,
    AutoPixels,
    Flag,
    Number,
    Pattern,
    Seed,
    Text,
    Whole,
    broken,
)
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
from tlsearch.core.types import MAX_PIXELS


@dataclass(frozen=True, kw_only=True)
class SplitForm:
    """``data.split``: fractions of the images; the rest trains.

    Attributes:
        val: Fraction of the images for validation.
        test: Fraction of the images for the sealed test split, which only ``promote`` opens.
        seed: Seed of the shuffle.
        group_by: Regular expression, searched in the path below the class folder; images with the same first
            group stay in one split. Only for source folder.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    val: Annotated[Number, Field(gt=0, lt=1)] = 0.15
    test: Annotated[Number, Field(ge=0, lt=1)] = 0.15
    seed: Seed = 0
    group_by: Pattern | None = None


@dataclass(frozen=True, kw_only=True)
class DataForm:
    """Where the images come from.

    Attributes:
        source: Kind of the data set. ``digits`` is scikit-learn's, for a trial run without images of your own.
        path: The folder of images, the manifest file, the folder of torchvision's files, or a local Hugging
            Face set. A folder or a manifest may be s3://. A relative path starts at the space file.
        split: How images are split where the source has no ready split.
        image_size: Side of the square images that a model sees, in pixels; auto is the size of the weights.
        name: Class of torchvision.datasets, such as CIFAR10, or the ID of a set on the Hugging Face Hub.
        download: Whether a set that is not on this machine may be downloaded.
        options: Further arguments of the torchvision class or of datasets.load_dataset.
        image_column: Column of the images in a Hugging Face set; by default the only one of that kind.
        label_column: Column of the class labels in a Hugging Face set; by default the only one of that kind.
        max_pixels: Images of more pixels are refused, by ``check`` and by trials alike.
        layout: Whether folders named train, val or test are splits (auto), or every folder is a class (classes).
    """

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
    max_pixels: Annotated[Whole, Field(ge=1, le=2**31)] = MAX_PIXELS
    layout: Literal["auto", "classes"] = "auto"


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


@dataclass(frozen=True, kw_only=True)
class CacheForm:
    """Budgets of each machine's caches; sizes in GB, None is auto.

    Attributes:
        images_gb: Disk for decoded images on each machine, in GB; auto follows the free space, 0 turns the
            cache off.
        features_gb: Disk for cached features on each machine, in GB; auto follows the free space, 0 turns the
            cache off.
        feature_precision: Whether features are kept in 32 bits (full) or 16 bits (half).
        views: Number of fixed augmented views of each image that epochs rotate through, so that their features
            can be cached; 1 augments every epoch afresh.
    """

    __pydantic_config__: ClassVar[ConfigDict] = STRICT
    images_gb: AutoAmount = None
    features_gb: AutoAmount = None
    feature_precision: Literal["full", "half"] = "full"
    views: Annotated[Whole, Field(ge=1, le=1000)] = 1


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
    data: DataForm
    space: Mapping[str, Any]
    defaults: DefaultsSpec = field(default_factory=DefaultsSpec)
    weights: Mapping[
        str, Annotated[WeightsForm, BeforeValidator(_weights, json_schema_input_type=WeightsForm | Text)]
    ] = field(default_factory=dict)
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

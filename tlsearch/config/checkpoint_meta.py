"""What a model folder's ``checkpoint.json`` says, read as a stranger's: every value has a type and a range.

The ranges hold what a search can write, and bound the memory that a prediction takes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import (
    Annotated,
    Any,
    Literal,
    NotRequired,  # pydantic reads typing's own from Python 3.12 on
    get_type_hints,
)

from pydantic import AfterValidator, Field, PlainValidator, StringConstraints, TypeAdapter
from typing_extensions import TypedDict

from tlsearch.config.document.wording import show
from tlsearch.config.strict_json import STRICT_FORM, read_strictly
from tlsearch.config.values import Number, Whole, broken
from tlsearch.core import __version__
from tlsearch.core.label_tasks import DEFAULT_TASK, TASKS, TaskName
from tlsearch.core.layout import frozen_folder
from tlsearch.core.types import MAX_CHANNELS, MAX_PIXELS, CropMode, TransformSpec, TrialConfig

META_FILE = "checkpoint.json"
FORMAT = 1
MAX_CLASSES = 100_000
MAX_MEMBERS = 1000
MAX_CROP, MAX_RESIZE = 4096, 8192  # pixels; of `data.image_size`, and what transforms make of it
_MAX_SHARED = 100


@dataclass(frozen=True, kw_only=True)
class ModelMeta:
    """What a model checkpoint says of itself.

    Attributes:
        classes: In the order of the logits.
        transform: The evaluation transform that belongs to the model.
        image_size: Side of the model's square input, in pixels.
        epoch: The epoch, from 1, whose weights these are; 0 for the solved head before the first step.
        metric: The search's metric; ``value`` is its value at that epoch.
        metrics: All metrics of that epoch.
        max_pixels: The most pixels that an image may have, as in the search's data.
        temperature: What logits are divided by before the softmax; 1 until a calibration has set it.
        members: The trials whose weights it is the average of, the best first; empty for the model of one trial.
        task: Whether an image has one class or any number of them.
        thresholds: Of a multi-label task: the probability of each class, before the temperature, above which an image
            has it; chosen by the validation images.
    """

    backbone: str
    classes: tuple[str, ...]
    weights_id: str
    weights_digest: str
    transform: TransformSpec
    image_size: int
    config: TrialConfig
    epoch: int
    metric: str
    value: float
    metrics: Mapping[str, float]
    max_pixels: int = MAX_PIXELS
    temperature: float = 1.0
    members: tuple[int, ...] = ()
    task: TaskName = "single_label"
    thresholds: tuple[float, ...] = ()
    tlsearch_version: str = __version__

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The index of each class's logit."""
        return {name: index for index, name in enumerate(self.classes)}


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """A safetensors file of a model; its name carries its content's hash, so that no commit overwrites another's.

    Attributes:
        shared: Models of one search have it in common. It lies in the search's folder, see `frozen_folder`, or, where
            the model has left that, beside its checkpoint.json.
    """

    name: str
    sha256: str
    shared: bool = False

    def path(self, folder: Path) -> Path:
        """Where it lies for the model in ``folder``, or would lie."""
        places = [folder]
        if self.shared:  # a link may lead to the folder, or to the one above
            places += [frozen_folder(folder.resolve()), frozen_folder(folder)]
        return next((place / self.name for place in places if (place / self.name).is_file()), places[-1] / self.name)


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A whole checkpoint.json; ``files`` hold the tensors: those that training changes, then the frozen ones."""

    meta: ModelMeta
    files: tuple[TensorFile, ...]

    def as_json(self) -> dict[str, Any]:
        """What is written."""
        content: dict[str, Any] = {"format": FORMAT, **asdict(self.meta), "class_to_idx": self.meta.class_to_idx}
        content["transform"] = self.meta.transform.as_json()
        for key in ("members", "thresholds"):
            if not content[key]:
                del content[key]  # earlier versions read it then
        if self.meta.task == DEFAULT_TASK:
            del content["task"]
        content["metrics"] = {name: float(value) for name, value in self.meta.metrics.items()}
        own = [file for file in self.files if not file.shared]
        for kind, file in zip(("weights", "frozen"), (*own, None), strict=False):
            content[f"{kind}_file"] = file.name if file else None
            content[f"{kind}_sha256"] = file.sha256 if file else None
        if shared := [{"name": file.name, "sha256": file.sha256} for file in self.files if file.shared]:
            content["shared_files"] = shared  # absent without: earlier versions read it then
        return content


def read_model_file(folder: Path) -> ModelFile:
    """Reads the checkpoint.json of a model folder.

    Raises:
        StorageError: There is none, or it breaks a rule; names the file, the key and the rule.
    """
    return model_file_of(read_strictly(folder / META_FILE, FORMAT, _adapter()))


def tensor_name_problem(name: str) -> str:
    """What is wrong with the name of a file with tensors; empty where nothing is."""
    if name != Path(name).name or "\\" in name or "\0" in name or name in ("", ".", ".."):
        return f"must name a file in the checkpoint's own folder, never a path: {show(name)}"
    return "" if name.endswith(".safetensors") else f"must be .safetensors, never a pickle: {show(name)}"


def _file_name(name: str) -> str:
    if problem := tensor_name_problem(name):
        raise broken(problem)
    return name


def _one_each(names: tuple[str, ...]) -> tuple[str, ...]:
    known: set[str] = set()
    for name in names:
        if name in known:
            raise broken(f"must hold each class once; {show(name)} stands twice")
        known.add(name)
    return names


def _class_name(name: object) -> str:
    if not isinstance(name, str) or not 1 <= len(name) <= 1000:
        raise broken(f"must be a text of 1 to 1000 characters, not {show(name)}")
    return name


_ClassName = Annotated[str, PlainValidator(_class_name)]  # pydantic's own text refuses bytes that are not UTF-8
_Name = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
_Text = Annotated[str, StringConstraints(max_length=10_000)]
_FileName = Annotated[str, StringConstraints(max_length=255), AfterValidator(_file_name)]
_Digest = Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")]
_Mean = Annotated[Number, Field(ge=-1000, le=1000)]
_Deviation = Annotated[Number, Field(ge=1e-6, le=1000)]  # by which pixels are divided
_PER_CHANNEL = Field(strict=False, min_length=1, max_length=MAX_CHANNELS)


_Trial = Annotated[Whole, Field(ge=0, le=2**31)]
Thresholds = Annotated[tuple[Annotated[Number, Field(ge=0, le=1)], ...], Field(strict=False, max_length=MAX_CLASSES)]


class _Transform(TypedDict):
    __pydantic_config__ = STRICT_FORM  # type: ignore[misc]

    resize_size: Annotated[Whole, Field(ge=1, le=MAX_RESIZE)]
    crop_size: Annotated[Whole, Field(ge=1, le=MAX_CROP)]
    interpolation: Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
    mean: Annotated[tuple[_Mean, ...], _PER_CHANNEL]
    std: Annotated[tuple[_Deviation, ...], _PER_CHANNEL]
    crop_mode: NotRequired[CropMode]
    bits: NotRequired[Literal[8, 16]]


def _trial_config() -> Any:
    """A TrialConfig as the file has it: fields that are younger than the file are absent."""
    hints: dict[str, Any] = {name: NotRequired[hint] for name, hint in get_type_hints(TrialConfig).items()}
    hints |= {"backbone": _Name, "unfreeze_depth": NotRequired[Annotated[Whole, Field(ge=0, le=5)]]}
    form = TypedDict("_TrialConfig", hints)  # type: ignore[misc]
    form.__pydantic_config__ = STRICT_FORM  # type: ignore[attr-defined]
    return form


_TrialConfig = _trial_config()


class _SharedFile(TypedDict):
    __pydantic_config__ = STRICT_FORM  # type: ignore[misc]

    name: _FileName
    sha256: _Digest


class _Form(TypedDict):
    """The whole file; keys that are younger than the format may be absent."""

    __pydantic_config__ = STRICT_FORM  # type: ignore[misc]

    format: Whole
    backbone: _Name
    classes: Annotated[
        tuple[_ClassName, ...], Field(strict=False, min_length=1, max_length=MAX_CLASSES), AfterValidator(_one_each)
    ]
    class_to_idx: dict[_ClassName, Whole]
    weights_id: _Text
    weights_digest: _Text
    transform: _Transform
    image_size: Annotated[Whole, Field(ge=1, le=MAX_CROP)]
    config: _TrialConfig  # type: ignore[valid-type]
    epoch: Annotated[Whole, Field(ge=0, le=2**31)]
    metric: _Name
    value: Number
    metrics: Annotated[dict[_Name, Number], Field(max_length=10_000)]
    max_pixels: NotRequired[Annotated[Whole, Field(ge=1, le=2**31)]]
    temperature: NotRequired[Annotated[Number, Field(ge=1e-3, le=1e3)]]
    members: NotRequired[Annotated[tuple[_Trial, ...], Field(strict=False, max_length=MAX_MEMBERS)]]
    task: NotRequired[TaskName]
    thresholds: NotRequired[Thresholds]
    tlsearch_version: _Text
    weights_file: _FileName
    weights_sha256: _Digest
    frozen_file: NotRequired[_FileName | None]
    frozen_sha256: NotRequired[_Digest | None]
    shared_files: NotRequired[Annotated[tuple[_SharedFile, ...], Field(strict=False, max_length=_MAX_SHARED)]]


def check_thresholds(thresholds: Sequence[float], classes: Sequence[str], task: str | None) -> None:
    """Raises where a model that answers of each class has not one for each, or another model has some."""
    if len(thresholds) != (len(classes) if TASKS[task or DEFAULT_TASK].several else 0):
        raise broken("thresholds must hold a number for each class of a multi_label task, and none of another")


def _agreeing(form: _Form) -> _Form:
    if form["class_to_idx"] != {name: index for index, name in enumerate(form["classes"])}:
        raise broken("classes and class_to_idx must agree")
    if len(form["transform"]["mean"]) != len(form["transform"]["std"]):
        raise broken("transform.mean and transform.std have a number for each channel")
    config: Mapping[str, Any] = form["config"]
    if not {form["transform"]["crop_size"], config.get("image_size")} <= {form["image_size"], None}:
        raise broken("image_size, transform.crop_size and config.image_size must agree")
    check_thresholds(form.get("thresholds", ()), form["classes"], form.get("task"))
    if (form.get("frozen_file") is None) != (form.get("frozen_sha256") is None):
        raise broken("frozen_file and frozen_sha256 belong together")
    return form


CheckpointForm = Annotated[_Form, AfterValidator(_agreeing)]


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[_Form]:
    return TypeAdapter(CheckpointForm)


def model_file_of(form: Mapping[str, Any]) -> ModelFile:
    """The checkpoint of a form that keeps the rules."""
    files = [TensorFile(name=form["weights_file"], sha256=form["weights_sha256"])]
    if form.get("frozen_file") is not None:
        files.append(TensorFile(name=form["frozen_file"], sha256=form["frozen_sha256"]))
    files += [TensorFile(**one, shared=True) for one in form.get("shared_files", ())]
    values = {one.name: form[one.name] for one in dataclasses.fields(ModelMeta) if one.name in form}
    values |= {key: tuple(form.get(key, ())) for key in ("members", "thresholds")}
    values |= {"transform": TransformSpec(**form["transform"]), "config": TrialConfig(**form["config"])}
    return ModelFile(meta=ModelMeta(**values), files=tuple(files))

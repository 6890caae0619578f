"""What a model folder's ``checkpoint.json`` says, read as a stranger's: every value has a type and a range.

The ranges hold what a search can write, and bound the memory that a prediction takes.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
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

from pydantic import AfterValidator, ConfigDict, Field, PlainValidator, StringConstraints, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from tlsearch.config.document.wording import show
from tlsearch.config.rules.schema_errors import error_text
from tlsearch.config.values import Number, Whole, broken
from tlsearch.core import __version__
from tlsearch.core.errors import SpaceProblem, StorageError
from tlsearch.core.files import read_regular
from tlsearch.core.types import MAX_PIXELS, CropMode, TransformSpec, TrialConfig

META_FILE = "checkpoint.json"
FORMAT = 1
MAX_CLASSES = 100_000
MAX_MEMBERS = 1000
MAX_CROP, MAX_RESIZE = 4096, 8192  # pixels; of `data.image_size`, and what transforms make of it
_MAX_BYTES = 16_000_000
_SHOWN = 5
STRICT_FORM = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


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
    tlsearch_version: str = __version__

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The index of each class's logit."""
        return {name: index for index, name in enumerate(self.classes)}


@dataclass(frozen=True, kw_only=True)
class TensorFile:
    """A safetensors file in a folder; its name carries its content's hash, so that no commit overwrites another's."""

    name: str
    sha256: str


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """A whole checkpoint.json; ``files`` hold the tensors: those that training changes, then the frozen ones."""

    meta: ModelMeta
    files: tuple[TensorFile, ...]

    def as_json(self) -> dict[str, Any]:
        """What is written."""
        content: dict[str, Any] = {"format": FORMAT, **asdict(self.meta), "class_to_idx": self.meta.class_to_idx}
        if not self.meta.members:
            del content["members"]  # earlier versions read it then
        content["metrics"] = {name: float(value) for name, value in self.meta.metrics.items()}
        for kind, file in zip(("weights", "frozen"), (*self.files, None), strict=False):
            content[f"{kind}_file"] = file.name if file else None
            content[f"{kind}_sha256"] = file.sha256 if file else None
        return content


def read_model_file(folder: Path) -> ModelFile:
    """Reads the checkpoint.json of a model folder.

    Raises:
        StorageError: There is none, or it breaks a rule; names the file, the key and the rule.
    """
    return model_file_of(read_strictly(folder / META_FILE, FORMAT, _adapter()))


def read_strictly(path: Path, form: int, shape: TypeAdapter[Any]) -> Any:
    """A model's JSON file of the format ``form``, held to the rules of a shape.

    Raises:
        StorageError: As of ``read_model_file``.
    """
    content = _read_object(path)
    if content.get("format") != form or isinstance(content["format"], bool):
        raise StorageError(
            f"a model checkpoint must have the format {form} that tlsearch {__version__} reads, "
            f"not {show(content.get('format'))}: {path}"
        )
    try:
        return shape.validate_python(content)
    except ValidationError as error:
        found = error.errors(include_url=False)
        texts = [str(SpaceProblem(path=tuple(one["loc"]), message=_text(one))) for one in found[:_SHOWN]]
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        raise StorageError(f"a model checkpoint breaks rules: {path}: {'; '.join(texts)}{more}") from None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        data = read_regular(path, _MAX_BYTES)
    except OSError as error:
        raise StorageError(f"a model checkpoint must be readable: {path}: {error.strerror}") from error
    if data.startswith(b"version https://git-lfs"):
        raise StorageError(
            f"{path} is a Git LFS pointer, not the file that it stands for: `git lfs pull` in its repository "
            "fetches that"
        )
    try:
        content = json.loads(data, object_pairs_hook=_unique, parse_constant=_no_constant)
    except RecursionError:
        raise StorageError(f"a model checkpoint must be JSON, not nested this deep: {path}") from None
    except ValueError as error:
        raise StorageError(f"a model checkpoint must be JSON: {path}: {error}") from None
    if not isinstance(content, dict):
        raise StorageError(f"a model checkpoint must be a JSON object: {path}")
    return content


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {show(twice)} stands twice in one object")
    return found


def _no_constant(name: str) -> float:
    raise ValueError(f"a number must be finite, not {name}")


def _text(item: Any) -> str:
    if item["type"] == "extra_forbidden":
        return "is a key that this version does not know; a newer tlsearch may have written it"
    if item["type"] == "missing":
        return "is required"
    return error_text(item)


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


_Trial = Annotated[Whole, Field(ge=0, le=2**31)]


class _Transform(TypedDict):
    __pydantic_config__ = STRICT_FORM  # type: ignore[misc]

    resize_size: Annotated[Whole, Field(ge=1, le=MAX_RESIZE)]
    crop_size: Annotated[Whole, Field(ge=1, le=MAX_CROP)]
    interpolation: Literal["nearest", "bilinear", "bicubic", "box", "hamming", "lanczos"]
    mean: Annotated[tuple[_Mean, _Mean, _Mean], Field(strict=False)]
    std: Annotated[tuple[_Deviation, _Deviation, _Deviation], Field(strict=False)]
    crop_mode: NotRequired[CropMode]


def _trial_config() -> Any:
    """A TrialConfig as the file has it: fields that are younger than the file are absent."""
    hints: dict[str, Any] = {name: NotRequired[hint] for name, hint in get_type_hints(TrialConfig).items()}
    hints |= {"backbone": _Name, "unfreeze_depth": NotRequired[Annotated[Whole, Field(ge=0, le=5)]]}
    form = TypedDict("_TrialConfig", hints)  # type: ignore[misc]
    form.__pydantic_config__ = STRICT_FORM  # type: ignore[attr-defined]
    return form


_TrialConfig = _trial_config()


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
    tlsearch_version: _Text
    weights_file: _FileName
    weights_sha256: _Digest
    frozen_file: NotRequired[_FileName | None]
    frozen_sha256: NotRequired[_Digest | None]


def _agreeing(form: _Form) -> _Form:
    if form["class_to_idx"] != {name: index for index, name in enumerate(form["classes"])}:
        raise broken("classes and class_to_idx must agree")
    if form["image_size"] != form["transform"]["crop_size"]:
        raise broken("image_size and transform.crop_size must agree")
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
    values = {one.name: form[one.name] for one in dataclasses.fields(ModelMeta) if one.name in form}
    values["members"] = tuple(form.get("members", ()))
    values |= {"transform": TransformSpec(**form["transform"]), "config": TrialConfig(**form["config"])}
    return ModelFile(meta=ModelMeta(**values), files=tuple(files))

"""What an ensemble's ``ensemble.json`` says, read as strictly as a ``checkpoint.json``.

The folder of an ensemble holds this file and the files with its members' tensors. Their names carry the hash of their
content, so that frozen tensors that several members share lie there once.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import AfterValidator, Field, StringConstraints, TypeAdapter
from typing_extensions import TypedDict

from tlsearch.config.checkpoint_meta import (
    MAX_MEMBERS,
    META_FILE,
    CheckpointForm,
    ModelFile,
    Thresholds,
    check_thresholds,
    model_file_of,
)
from tlsearch.config.strict_json import STRICT_FORM, read_strictly
from tlsearch.config.values import Number, Whole, broken
from tlsearch.core import __version__
from tlsearch.core.codec import read_json

ENSEMBLE_FILE = "ensemble.json"
FORMAT = 1


@dataclass(frozen=True, kw_only=True)
class EnsembleMember:
    """One model of an ensemble.

    Attributes:
        trial: Its number in the search.
        count: Its weight is this over the sum of all counts.
        temperature: What its logits are divided by before the softmax.
        checkpoint: As the trial's own; its files lie in the ensemble's folder.
    """

    trial: int
    count: int
    temperature: float
    checkpoint: ModelFile


@dataclass(frozen=True, kw_only=True)
class EnsembleMeta:
    """What an ensemble says of itself.

    Attributes:
        members: At least one; all have the same classes in the same order.
        metric: The search's metric; ``value`` is the ensemble's on all validation images, ``cross_fitted`` its estimate
            on images that it was not selected on.
        temperature: What the logarithm of the averaged probabilities is divided by; 1 until a calibration has set it.
        thresholds: Of a multi-label task: of the averaged probabilities, before the temperature; see ``ModelMeta``.
    """

    members: tuple[EnsembleMember, ...]
    metric: str
    value: float
    cross_fitted: float
    temperature: float = 1.0
    thresholds: tuple[float, ...] = ()
    tlsearch_version: str = __version__

    @property
    def classes(self) -> tuple[str, ...]:
        """In the order of the logits."""
        return self.members[0].checkpoint.meta.classes

    @property
    def max_pixels(self) -> int:
        """The most pixels that an image may have."""
        return min(member.checkpoint.meta.max_pixels for member in self.members)

    def as_json(self) -> dict[str, Any]:
        """What is written."""
        members = [{**vars(member), "checkpoint": member.checkpoint.as_json()} for member in self.members]
        content = {"format": FORMAT, **vars(self), "members": members}
        if not self.thresholds:
            del content["thresholds"]  # earlier versions read it then
        return content


def is_ensemble(folder: Path) -> bool:
    """Whether a folder holds an ensemble."""
    return (folder / ENSEMBLE_FILE).is_file()


def networks_json(folder: Path) -> list[dict[str, Any]]:
    """What the file of a model's folder says, held to no rule: of a checkpoint, or of each member of an ensemble.

    Raises:
        OSError, ValueError, LookupError, TypeError: It cannot be read, or says nothing of the kind.
    """
    if not is_ensemble(folder):
        return [read_json(folder / META_FILE)]
    return [dict(member["checkpoint"]) for member in read_json(folder / ENSEMBLE_FILE)["members"]]


def read_ensemble_meta(folder: Path) -> EnsembleMeta:
    """Reads the ensemble.json of a folder.

    Raises:
        StorageError: There is none, or it breaks a rule; names the file, the key and the rule.
    """
    path = folder / ENSEMBLE_FILE
    form = read_strictly(path, FORMAT, _adapter())
    members = tuple(EnsembleMember(**one | {"checkpoint": model_file_of(one["checkpoint"])}) for one in form["members"])
    values = {key: value for key, value in form.items() if key != "format"}
    return EnsembleMeta(**values | {"members": members})


_Temperature = Annotated[Number, Field(ge=1e-3, le=1e3)]


class _Member(TypedDict):
    __pydantic_config__ = STRICT_FORM  # type: ignore[misc]

    trial: Annotated[Whole, Field(ge=0, le=2**31)]
    count: Annotated[Whole, Field(ge=1, le=10**6)]
    temperature: _Temperature
    checkpoint: CheckpointForm


class _Form(TypedDict):
    __pydantic_config__ = STRICT_FORM  # type: ignore[misc]

    format: Whole
    members: Annotated[tuple[_Member, ...], Field(strict=False, min_length=1, max_length=MAX_MEMBERS)]
    metric: Annotated[str, StringConstraints(min_length=1, max_length=1000)]
    value: Number
    cross_fitted: Number
    temperature: NotRequired[_Temperature]
    thresholds: NotRequired[Thresholds]
    tlsearch_version: Annotated[str, StringConstraints(max_length=10_000)]


def _agreeing(form: _Form) -> _Form:
    checkpoints = [member["checkpoint"] for member in form["members"]]
    if any(one["classes"] != checkpoints[0]["classes"] for one in checkpoints):
        raise broken("the members must have the same classes in the same order")
    if len({one.get("task") for one in checkpoints}) > 1:
        raise broken("the members must have one task")
    check_thresholds(form.get("thresholds", ()), checkpoints[0]["classes"], checkpoints[0].get("task"))
    return form


@lru_cache(maxsize=1)
def _adapter() -> TypeAdapter[_Form]:
    return TypeAdapter(Annotated[_Form, AfterValidator(_agreeing)])

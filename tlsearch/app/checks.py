"""What can be known before a trial is spent: the file, the data, the weights, the stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tlsearch.config import SpaceFile
from tlsearch.errors import ConfigError, DataError, Fault, WeightsError
from tlsearch.space import Space, load
from tlsearch.types import WeightsSource

if TYPE_CHECKING:
    from tlsearch.data import ImageIndex


@dataclass(frozen=True, kw_only=True)
class CheckReport:
    """What ``tlsearch check`` found; ``as_json`` has the published shape."""

    faults: tuple[Fault, ...] = ()
    data: Mapping[str, Any] | None = None
    backbones: tuple[Mapping[str, Any], ...] = ()

    @property
    def ok(self) -> bool:
        """No fault."""
        return not self.faults

    def as_json(self) -> dict[str, Any]:
        """{ok, faults: [{line, column, path, message}], data, backbones}."""
        faults = [{"line": f.line, "column": f.column, "path": f.dotted, "message": f.message} for f in self.faults]
        return {"ok": self.ok, "faults": faults, "data": self.data or {}, "backbones": list(self.backbones)}


def check_file(
    path: Path, *, overrides: tuple[str, ...] = (), data_path: Path | None = None, with_model: bool = True
) -> CheckReport:
    """Checks a space file, its data and (``with_model``) its backbones and weights.

    Faults of the file end the check, since the rest cannot be read; faults of data and weights are
    all listed.
    """
    try:
        file, space = load(path, overrides=overrides, data_path=data_path)
    except ConfigError as error:
        return CheckReport(faults=error.faults)
    faults: list[Fault] = []
    card: Mapping[str, Any] | None = None
    num_classes = 0
    try:
        from tlsearch.data import load_index

        index = load_index(file.data)
        card, num_classes = data_card(index), len(index.classes)
    except DataError as error:
        faults.append(Fault(path=("data",), message=str(error), file=str(path)))
    backbones: list[Mapping[str, Any]] = []
    if with_model:
        faults += weights_faults(file, space)
        backbones = [_describe(name, num_classes or 2, file.data.image_size) for name in space.backbones()]
    return CheckReport(faults=tuple(faults), data=card, backbones=tuple(backbones))


def data_card(index: ImageIndex) -> dict[str, Any]:
    """Counts per split and class, from the index alone: no image is opened."""
    splits = {}
    for name, split in index.splits.items():
        counts = Counter(split.labels)
        per_class = {label: counts[number] for number, label in enumerate(index.classes)}
        splits[name] = {"images": len(split.labels), "per_class": per_class}
    largest = max(splits["train"]["per_class"].values())
    smallest = min(splits["train"]["per_class"].values())
    return {
        "source": index.source,
        "classes": list(index.classes),
        "digest": index.digest,
        "splits": splits,
        "imbalance": round(largest / max(smallest, 1), 2),
    }


def weights_faults(file: SpaceFile, space: Space) -> list[Fault]:
    """Resolves the weights of every backbone of the space; a fault for each that cannot be had."""
    from tlsearch.model import resolve_weights

    faults = []
    for backbone in space.backbones():
        source = weights_source(file, backbone)
        try:
            resolve_weights(backbone, source)
        except WeightsError as error:
            faults.append(Fault(path=("weights", backbone), message=str(error)))
    return faults


def check_weights(file: SpaceFile, space: Space) -> None:
    """As ``weights_faults``.

    Raises:
        ConfigError: The faults, if there are any.
    """
    faults = weights_faults(file, space)
    if faults:
        raise ConfigError(faults)


def weights_source(file: SpaceFile, backbone: str) -> WeightsSource:
    """The file's weights of a backbone, or the library's default ones."""
    return file.weights.get(backbone, WeightsSource())


def _describe(backbone: str, num_classes: int, image_size: int | None) -> dict[str, Any]:
    from tlsearch.model import describe_backbone

    described = describe_backbone(backbone, num_classes=num_classes, image_size=image_size)
    return {
        "name": backbone,
        "stages": [
            {"name": s.name, "parameters": s.parameters, "batchnorm_layers": s.batchnorm_layers}
            for s in described.stages
        ],
        "trainable_parameters": {str(depth): count for depth, count in described.trainable_parameters.items()},
    }

"""The user's constraints before a trial: sizes of backbones, and limits that none of them keeps."""

from __future__ import annotations

from collections.abc import Mapping

from tlsearch.config import SpaceFile
from tlsearch.errors import Fault
from tlsearch.space import Space


def backbone_sizes(file: SpaceFile, space: Space, num_classes: int) -> dict[str, dict[str, float]]:
    """params_millions and checkpoint_mb of each backbone, counted on the meta device where a constraint asks for them.

    Raises:
        UserError: A backbone cannot take the file's image size.
    """
    if not file.search.constraints.limits.keys() & {"params_millions", "checkpoint_mb"}:
        return {}
    from tlsearch.model import describe_backbone

    sizes = {}
    for name in space.backbones():
        described = describe_backbone(name, num_classes=num_classes, image_size=file.data.image_size)
        parameters = sum(stage.parameters for stage in described.stages)
        sizes[name] = {"params_millions": parameters / 1e6, "checkpoint_mb": described.state_bytes / 1e6}
    return sizes


def limit_faults(file: SpaceFile, sizes: Mapping[str, Mapping[str, float]]) -> list[Fault]:
    """A fault for each constraint that every backbone of the space breaks: no trial could be feasible."""
    faults = []
    for name, limit in file.search.constraints.limits.items():
        values = {backbone: known[name] for backbone, known in sizes.items() if name in known}
        if values and min(values.values()) > limit:
            smallest = min(values, key=lambda backbone: values[backbone])
            message = (
                f"no backbone of the space has {name} of at most {limit:g}; "
                f"the smallest, {smallest}, has {values[smallest]:.3g}"
            )
            faults.append(Fault(path=("search", "constraints", name, "max"), message=message))
    return faults

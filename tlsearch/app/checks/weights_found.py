"""The pretrained weights that a space file names: where they are, and whether they can be had."""

from __future__ import annotations

from collections.abc import Iterable

from tlsearch.config import SpaceFile
from tlsearch.core.errors import Fault, UserError
from tlsearch.core.types import WeightsSource
from tlsearch.space import Space


def weights_faults(file: SpaceFile, space: Space, *, fetch: bool = True) -> list[Fault]:
    """A fault for each backbone of the space whose weights cannot be had.

    Args:
        fetch: False: the libraries' official weights are only asked for at their host, not downloaded.
    """
    from tlsearch.model import check_weights, resolve_weights

    have = resolve_weights if fetch else check_weights
    faults = []
    for backbone in space.backbones():
        try:
            have(backbone, weights_source(file, backbone))
        except UserError as error:
            faults.append(Fault(path=("weights", backbone), message=str(error)))
    return faults


def weights_digests(file: SpaceFile, backbones: Iterable[str]) -> dict[str, str]:
    """The digest of each backbone's weights, see ``Weights.digest``.

    Raises:
        WeightsError: They cannot be had.
    """
    from tlsearch.model import weights_digest

    return {name: weights_digest(name, weights_source(file, name)) for name in backbones}


def weights_source(file: SpaceFile, backbone: str) -> WeightsSource:
    """The file's weights of a backbone, or the library's default ones."""
    return file.weights.get(backbone, WeightsSource())

"""A space with fewer values of a dimension: what a screen leaves of its backbones, what a forecast tries out."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from tlsearch.core.types import Scalar
from tlsearch.space.domains import Choice, Domain, Fixed
from tlsearch.space.space import Space


def listed(values: Sequence[Scalar]) -> Domain:
    """The domain of these values, at least one."""
    return Choice(values=tuple(values)) if len(values) > 1 else Fixed(value=values[0])


def with_domain(space: Space, name: str, domain: Domain) -> Space:
    """The same space with other values of one dimension."""
    return replace(space, dimensions={**space.dimensions, name: replace(space.dimensions[name], domain=domain)})


def is_screened(space: Space) -> bool:
    """Whether the backbones of a space are still to be screened."""
    return space.dimensions["backbone"].screened


def with_backbones(space: Space, kept: Collection[str]) -> Space:
    """What a screen leaves of a space: the kept backbones in its own order, with nothing left to screen.

    Args:
        kept: At least one backbone of the space; others are passed over.
    """
    dimension = space.dimensions["backbone"]
    left = [name for name in space.backbones() if name in kept]
    assert left, "a screen keeps a backbone of its space"
    narrowed = replace(dimension, domain=listed(left), screened=False)
    return replace(space, dimensions={**space.dimensions, "backbone": narrowed})

"""The image sizes of a space: which of them a backbone takes, and where its trials begin.

A list is as its author wrote it, and a size that a backbone cannot take is an error. A range is moved to the multiples
that a backbone takes, such as those of a transformer's patches; each backbone then proposes sizes of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import TYPE_CHECKING

from tlsearch.core.types import Scalar
from tlsearch.space.domains import Choice, Domain, Fixed, IntRange
from tlsearch.space.libraries.backbones import BackboneFacts, backbone_facts

if TYPE_CHECKING:
    from tlsearch.space.space import Space

IMAGE_SIZE = "image_size"


@cache
def suited(domain: Domain, backbone: Scalar) -> Domain | None:
    """A range of sizes as a backbone takes them.

    The lower end goes up to a size that it takes, the step to the nearest multiple, and the upper end down to the last
    step: 64 to 160 in steps of 32 become 70 to 154 in steps of 28 for patches of 14 px.

    Returns:
        None where the range is to stay as it is: the backbone takes all of it, or none, which is an error.
    """
    facts = backbone_facts(str(backbone))
    if facts is None or facts.size_multiple == 0 or not isinstance(domain, IntRange):
        return None
    multiple, low, step = facts.size_multiple, domain.low, domain.step
    if low % multiple or step % multiple:
        step = multiple * max(1, round(step / multiple))
        low = multiple * -(-max(low, facts.min_size) // multiple)
    elif low < facts.min_size:
        low += step * -(-(facts.min_size - low) // step)
    if low > domain.high or low == domain.low and step == domain.step:
        return None
    high = low + (domain.high - low) // step * step
    return Fixed(value=low) if low == high else IntRange(low=low, high=high, step=step)


def name_of_sizes(domain: Domain) -> str:
    """What a range of sizes that was moved is proposed under."""
    if not isinstance(domain, IntRange):
        return IMAGE_SIZE
    return f"{IMAGE_SIZE}_{domain.low}_to_{domain.high}_by_{domain.step}"


@cache
def own_size(backbone: Scalar) -> int | None:
    """The size that a backbone's weights were trained at, in pixels: trials begin at the nearest one of the space."""
    facts = backbone_facts(str(backbone))
    return None if facts is None else facts.image_size


def image_sizes_of(space: Space, backbone: str) -> tuple[int | None, ...]:
    """The image sizes that the trials of a backbone may have, rising; None is that of ``data.image_size``."""
    dimension = space.dimensions.get(IMAGE_SIZE)
    if dimension is None or not all(one.holds(backbone) for one in dimension.when if one.on == "backbone"):
        return (None,)
    sizes = tuple(_listed(dimension.domain_at({"backbone": backbone})))
    by_default = (None,) if any(one.on != "backbone" for one in dimension.when) else ()
    return (*by_default, *sizes)


def _listed(domain: Domain) -> Iterator[int | None]:
    if isinstance(domain, IntRange):
        yield from range(domain.low, domain.high + 1, domain.step)
    elif isinstance(domain, Choice):
        yield from sorted(value for value in domain.values if isinstance(value, int))
    elif isinstance(domain, Fixed):
        assert domain.value is None or isinstance(domain.value, int)
        yield domain.value


def unfit_sizes(domain: Domain, facts: BackboneFacts) -> tuple[int, ...]:
    """The sizes of a space that a backbone cannot take; of a range all, where it takes none of them.

    The first and the last stand for all of a range.
    """
    if isinstance(domain, IntRange):
        moved = suited(domain, facts.name) or domain
        return () if all(facts.valid_size(size) for size in _listed(moved) if size) else (domain.low, domain.high)
    return tuple(size for size in _listed(domain) if size is not None and not facts.valid_size(size))

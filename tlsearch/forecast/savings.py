"""What would make a search shorter: changes of its file, each simulated like the search itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

from tlsearch.config import AshaSpec
from tlsearch.core.types import TrialConfig
from tlsearch.forecast.forecast import forecast
from tlsearch.forecast.trial_costs import Node, TrialCosts
from tlsearch.search.plan import SearchPlan
from tlsearch.space import Choice, Domain, IntRange, Space, backbone_facts, image_sizes_of
from tlsearch.space.domains import largest, listed
from tlsearch.space.image_sizes import IMAGE_SIZE
from tlsearch.space.slots import with_domain

_HALVES = 0.65  # a change that leaves at most this fraction of the time is worth naming
_WORTH = 0.9
_SIMULATIONS = 6
_VIEWS = 4
_SMALLER = 0.75  # of the side of the images
_SMALLEST_PX = 64


@dataclass(frozen=True, kw_only=True)
class Saving:
    """A change of the space file, and the fraction of the wall time that is left with it."""

    change: str
    fraction: float


@dataclass(frozen=True, kw_only=True)
class _Changed:
    change: str
    plan: SearchPlan
    costs: TrialCosts


def savings(plan: SearchPlan, costs: TrialCosts, *, slots: int, start_s: float, stored: Node) -> list[Saving]:
    """Changes that about halve the search, the largest saving first; where none does, the two that come nearest."""

    def wall_s(one: SearchPlan, costing: TrialCosts) -> float:
        if not one.search.listed:  # what a sampler learns takes long to simulate and hardly changes the comparison
            one = replace(one, search=replace(one.search, sampler="random"))
        few = forecast(one, costing, slots=slots, start_s=start_s, stored=stored, simulations=_SIMULATIONS)
        return few.wall_s.median

    base_s = wall_s(plan, costs)
    found = []
    for one in _changes(plan, costs):
        with suppress(ValueError):  # a starting point is outside of the smaller space, or a phase has no epoch left
            found.append(Saving(change=one.change, fraction=wall_s(one.plan, one.costs) / base_s))
    found.sort(key=lambda one: one.fraction)
    halving = [one for one in found if one.fraction <= _HALVES]
    return halving or [one for one in found if one.fraction <= _WORTH][:2]


def _changes(plan: SearchPlan, costs: TrialCosts) -> Iterator[_Changed]:
    search, setup, space = plan.search, plan.setup, plan.space

    def with_search(change: str, **values: object) -> _Changed:
        return _Changed(change=change, plan=replace(plan, search=replace(search, **values)), costs=costs)  # type: ignore[arg-type]

    def with_cache(change: str, **values: object) -> _Changed:
        own = replace(setup, cache=replace(setup.cache, **values))  # type: ignore[arg-type]
        return _Changed(change=change, plan=replace(plan, setup=own), costs=replace(costs, setup=own))

    if setup.cache.features_gb == 0:
        yield with_cache("cache.features_gb: auto", features_gb=None)
    augmented = any(space.dimensions["augmentation"].domain.contains(one) for one in ("light", "strong"))
    if augmented and setup.cache.views == 1:
        yield with_cache(f"cache.views: {_VIEWS}", views=_VIEWS)
    if search.scheduler is None and not search.listed and search.max_epochs > 1:
        yield with_search("search.scheduler: asha", scheduler=AshaSpec())
    if not search.listed and search.trials > 1:
        yield with_search(f"search.trials: {search.trials // 2}", trials=search.trials // 2)
    if search.max_epochs > 1:
        epochs = search.max_epochs // 2
        own = replace(setup, max_epochs=epochs)
        changed = replace(plan, setup=own, search=replace(search, max_epochs=epochs))
        yield _Changed(change=f"search.max_epochs: {epochs}", plan=changed, costs=replace(costs, setup=own))
    yield from _smaller_spaces(plan, costs)
    smaller = _smaller_images(costs) if space.dimensions[IMAGE_SIZE].left_out else None
    if smaller is not None:
        yield _Changed(change=f"data.image_size: {smaller[0]}", plan=plan, costs=smaller[1])


def _smaller_spaces(plan: SearchPlan, costs: TrialCosts) -> Iterator[_Changed]:
    """Without the deepest unfreezing, the largest images, or the dearest backbone."""
    space = plan.space
    if plan.search.listed:
        return
    depths = space.depths()
    if len(depths) > 1:
        kept = depths[: -(-len(depths) // 2)]
        shallow = with_domain(space, "unfreeze_depth", listed(kept))
        yield _Changed(
            change=f"space.unfreeze_depth at most {kept[-1]}",
            plan=replace(plan, space=shallow, setup=replace(plan.setup, depths=kept)),
            costs=costs,
        )
    sizes = _smaller_sizes(space.dimensions[IMAGE_SIZE].domain)
    if sizes is not None:
        narrow = replace(plan, space=with_domain(space, IMAGE_SIZE, sizes))
        if _is_timed(narrow.space, costs):
            yield _Changed(change=f"space.image_size at most {largest(sizes):g}", plan=narrow, costs=costs)
    names = space.backbones()
    if len(names) > 1:
        dearest = max(costs.models, key=lambda spec: sum(costs.models[spec].forward_s)).backbone
        others = tuple(name for name in names if name != dearest)
        yield _Changed(
            change=f"space.backbone without {dearest}",
            plan=replace(plan, space=with_domain(space, "backbone", listed(others))),
            costs=costs,
        )


def _smaller_sizes(domain: Domain) -> Domain | None:
    """The smaller half of the image sizes; None where there are too few."""
    if isinstance(domain, Choice):
        sizes = sorted(value for value in domain.values if isinstance(value, int))
        return listed(sizes[: -(-len(sizes) // 2)])
    if not isinstance(domain, IntRange):
        return None
    high = domain.low + (domain.high - domain.low) // (2 * domain.step) * domain.step
    return replace(domain, high=high) if high > domain.low else None


def _is_timed(space: Space, costs: TrialCosts) -> bool:
    """Whether the times of all models of a space are known: with fewer sizes a backbone may have none of its own."""
    sized = ((name, size) for name in space.backbones() for size in image_sizes_of(space, name))
    return all(costs.spec(TrialConfig(backbone=name, image_size=size)) in costs.models for name, size in sized)


def _smaller_images(costs: TrialCosts) -> tuple[int, TrialCosts] | None:
    """The search at a smaller image size that every backbone takes; passes cost in proportion to the pixels."""
    sides = {spec: pair[0] for spec, pair in costs.sides.items()}
    facts = [backbone_facts(spec.backbone) for spec in sides]
    fitting = [
        size
        for size in range(_SMALLEST_PX, int(max(sides.values()) * _SMALLER) + 1)
        if all(one is not None and one.valid_size(size) for one in facts)
    ]
    if not fitting:
        return None
    size = fitting[-1]
    models = {spec: costs.models[spec].at_pixels(min(1.0, (size / own) ** 2)) for spec, own in sides.items()}
    return size, replace(costs, models=models)

"""Points of a conditional space: random ones, the nearest to another, and those that are fixed before a search begins.

The fixed ones are the user's, the default, and a first look at every other backbone. A first look is the cheapest fair
trial of a backbone: its head alone (the shallowest depth that the space has), at the default rates, without
augmentation, so that it reads cached features, and from the linear probe where the space has it. Of the space's image
sizes it has the one nearest to that of the weights. ASHA does not stop it, so that backbones are compared by equal
trials. A search with a cost as a second objective then looks at every backbone at its other image sizes too, at most 16
times: both decide about the cost, and a first front is there.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from optuna.trial import FrozenTrial

from tlsearch.core.types import Scalar
from tlsearch.search.plan import SearchPlan
from tlsearch.search.scheduling.stopping_rules import complaint
from tlsearch.search.seeds import derive_seed
from tlsearch.space.image_sizes import image_sizes_of

if TYPE_CHECKING:
    from tlsearch.space import Space


Origin = Literal["start_with", "default", "first_look", "free_slot", "starting_point", "sampler"]
ORIGIN = "origin"  # user attribute of a trial: why it was tried
FIRST_LOOK = "first_look"  # user attribute of a trial that ASHA does not stop
_MOST_AT_SIZES = 16  # of the looks at other image sizes: a quarter of a search's trials by default
_FIRST: tuple[Origin, ...] = ("start_with", "default", "first_look")
SAMPLED: tuple[Origin, ...] = ("free_slot", "sampler")  # by a sampler: no list has them


@dataclass(frozen=True, kw_only=True)
class FirstPoint:
    """A point that is enqueued before the first trial.

    Attributes:
        values: By the names that Optuna sees.
        origin: Why it is tried.
        first_look: Whether it is its backbone's first look; the default and the user's own points may be one.
    """

    values: Mapping[str, Scalar]
    origin: Origin
    first_look: bool = False

    @property
    def attrs(self) -> dict[str, Scalar]:
        """The user attributes of its trial."""
        return {ORIGIN: self.origin} | ({FIRST_LOOK: True} if self.first_look else {})


def first_points(plan: SearchPlan) -> list[FirstPoint]:
    """The first points of a search, in order.

    The order of the first looks is drawn from the seed: where there are fewer trials than backbones, or too little
    time, the order of the space's list does not decide which of them are looked at.
    """
    space, search = plan.space, plan.search
    if search.listed:
        entries = [space.complete(entry) for entry in search.start_with] * search.seeds
        return [FirstPoint(values=entry, origin="start_with") for entry in entries]
    looks = _feasible(plan, [first_look(space, backbone) for backbone in space.backbones()])
    if len(space.backbones()) == 1:  # nothing to compare
        looks = []
    found = [
        FirstPoint(
            values=values,
            origin="start_with" if index < len(search.start_with) else "default",
            first_look=values in looks,
        )
        for index, values in enumerate(space.starting_points(search.start_with))
    ]
    left = [look for look in looks if all(look != one.values for one in found)]
    rng = random.Random(derive_seed(search.seed, "first looks", 0))
    rng.shuffle(left)
    known = [*looks, *(one.values for one in found)]
    at_sizes = [look for look in _looks_at_sizes(plan) if look not in known]
    left += rng.sample(at_sizes, min(len(at_sizes), _MOST_AT_SIZES))
    return found + [FirstPoint(values=look, origin="first_look", first_look=True) for look in left]


def first_look(space: Space, backbone: str, **values: Scalar) -> dict[str, Scalar]:
    """The point of a backbone's first look; ``values`` have their own in place of the default."""
    return dict(nearest(space, {**space.complete({"backbone": backbone, **values}), "head_init": "probe"}))


def num_proposed(trials: Sequence[FrozenTrial], number: int, *, most: int) -> int:
    """How many trials before ``number`` were proposed with knowledge of the first looks, in a study of any version.

    Args:
        trials: Of the study, by number.
        most: Beyond this number they are not counted on: the answer is ``most`` + 1.
    """
    has_origins = any(trial.user_attrs.get(ORIGIN) in _FIRST for trial in trials)
    count = 0
    for trial in reversed(trials[:number]):  # the latest first: of a long search they are not
        origin = trial.user_attrs.get(ORIGIN)
        early = origin in _FIRST or origin == "free_slot" if has_origins else "fixed_params" in trial.system_attrs
        count += not early
        if count > most:
            break
    return count


def _looks_at_sizes(plan: SearchPlan) -> list[dict[str, Scalar]]:
    """A look at each backbone at each image size, where both decide about a second objective."""
    space = plan.space
    if not plan.search.cost:
        return []
    models = ((name, size) for name in space.backbones() for size in image_sizes_of(space, name) if size is not None)
    return _feasible(plan, [first_look(space, name, image_size=size) for name, size in models])


def _feasible(plan: SearchPlan, looks: Sequence[dict[str, Scalar]]) -> list[dict[str, Scalar]]:
    """The looks that keep the search's limits on the size of a model: the others' trials end before they begin."""
    limits = plan.search.constraints.limits
    return [look for look in looks if not complaint(plan.sizes_of(plan.space.to_config(look)), limits)]


def draw(space: Space, rng: random.Random, *, central: bool = False) -> Mapping[str, Scalar]:
    """A random point.

    Args:
        central: Numbers lean to the middle of their range, where its author expects the best: their density there is
            twice the uniform one, and none at the ends.
    """
    return _Drawer({}, rng.triangular if central else rng.random, rng.choice).point(space)


def nearest(space: Space, wanted: Mapping[str, Scalar]) -> Mapping[str, Scalar]:
    """The point with these values, each moved to the nearest one in the space.

    Args:
        wanted: Values of dimensions. Others that are active have the middle of their range, or their first choice.
    """
    return _Drawer(wanted, lambda: 0.5, lambda choices: choices[0]).point(space)


class _Drawer:
    """Proposes values through the interface of Optuna's trial: the wanted one, else one at a position in the range."""

    def __init__(
        self,
        wanted: Mapping[str, Any],
        position: Callable[[], float],
        pick: Callable[[Sequence[Scalar]], Scalar],
    ) -> None:
        self._wanted, self._position, self._pick = wanted, position, pick
        self._values: dict[str, Scalar] = {}

    def point(self, space: Space) -> Mapping[str, Scalar]:
        """The values that this walk through the space chose."""
        space.suggest(self)
        return self._values

    def suggest_int(self, name: str, low: int, high: int, *, step: int = 1) -> int:
        """On the grid."""
        last = (high - low) // step
        at = (self._wanted[name] - low) / step if name in self._wanted else self._position() * last
        return int(self._keep(name, low + step * min(last, max(0, round(at)))))

    def suggest_float(
        self, name: str, low: float, high: float, *, step: float | None = None, log: bool = False
    ) -> float:
        """Uniform on the log scale where that is the dimension's; without a step a wanted value is kept to the bit."""
        if name in self._wanted:
            value = float(self._wanted[name])
        else:
            at = self._position()
            value = low * (high / low) ** at if log else low + at * (high - low)
        if step is not None:
            value = low + step * round((value - low) / step)
        return float(self._keep(name, min(high, max(low, value))))

    def suggest_categorical(self, name: str, choices: Sequence[Scalar]) -> Scalar:
        """One of the choices."""
        wanted = self._wanted.get(name)
        known = name in self._wanted and wanted in choices
        self._values[name] = value = wanted if known else self._pick(list(choices))
        return value

    def _keep(self, name: str, value: Any) -> Any:
        self._values[name] = value
        return value

"""From what was seen to what a search should vary: the rules of transfer learning, each with its reason.

How much data there is and how near they are to the pretraining decide how deep to fine-tune (Yosinski et al.,
arXiv 1411.1792; Kornblith et al., arXiv 1805.08974; Kumar et al., arXiv 2202.10054); the machine and the minutes decide
how many backbones, epochs and trials there can be.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from tlsearch.app.init.candidates import AtHand, image_sizes
from tlsearch.app.init.facts import DataFacts, Machine
from tlsearch.app.production.within_time import SEARCH_SHARE
from tlsearch.core.text import about_s
from tlsearch.space.libraries.backbones import backbone_facts

Distance = Literal["near", "middle", "far", "open"]
Size = Literal["very small", "small", "medium", "large"]

_DEEPEST: Mapping[Size, Mapping[Distance, int]] = {
    "very small": {"near": 0, "open": 0, "middle": 0, "far": 1},
    "small": {"near": 1, "open": 2, "middle": 2, "far": 3},
    "medium": {"near": 2, "open": 3, "middle": 3, "far": 5},
    "large": {"near": 5, "open": 5, "middle": 5, "far": 5},
}
_EPOCHS: Mapping[Size, tuple[int, int]] = {"very small": (10, 15), "small": (6, 15), "medium": (6, 12), "large": (3, 6)}
# Fraction of a backbone's work in the stages that train at a depth: of small convolutional networks, roughly.
_WORK = (0.0, 0.25, 0.6, 0.85, 0.97, 1.0)
_CPU_GMACS_S, _GPU_GMACS_S = 15.0, 3000.0  # of a core, of a GPU: rough, `tlsearch plan` measures
_START_S, _TRIAL_S = 30.0, 2.0  # of Ray and MLflow; of a trial beside its epochs
_CUT = 0.6  # what ASHA leaves of the epochs
_GB_PER_TRIAL = 1.5
_MIN_TRIALS, _FEW_TRIALS, _MAX_TRIALS = 6, 8, 64


@dataclass(frozen=True, kw_only=True)
class Domain:
    """A kind of images.

    Attributes:
        words: What sentences call them.
        distance: From the photographs of the pretraining.
        mirrors: Whether a mirrored image keeps its class.
    """

    words: str
    distance: Distance
    mirrors: bool = True


DOMAINS: Mapping[str, Domain] = {
    "photos": Domain(words="photographs", distance="near"),
    "drawings": Domain(words="drawings", distance="middle"),
    "documents": Domain(words="documents, digits and letters", distance="far", mirrors=False),
    "medical": Domain(words="medical images", distance="far"),
    "microscopy": Domain(words="images of a microscope", distance="far"),
    "satellite": Domain(words="satellite images", distance="far"),
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What the machine can do in the minutes that there are."""

    minutes: float
    slots: int
    gmacs_s: float

    @property
    def search_s(self) -> float:
        """Seconds of the search itself."""
        return 60 * self.minutes * SEARCH_SHARE


def size_of(data: DataFacts) -> Size:
    """How much there is to learn from."""
    per_class = data.num_train / len(data.classes)
    if data.num_train < 150 or per_class < 10:
        return "very small"
    return "small" if data.num_train < 2_000 else "medium" if data.num_train < 20_000 else "large"


def budget_of(machine: Machine, minutes: float) -> Budget:
    """How many trials run at a time, and how fast."""
    if machine.gpus:
        return Budget(minutes=minutes, slots=len(machine.gpus), gmacs_s=_GPU_GMACS_S)
    slots = max(1, min(machine.cores, int(machine.memory_gb / _GB_PER_TRIAL)))
    return Budget(minutes=minutes, slots=slots, gmacs_s=_CPU_GMACS_S)


def choose_backbones(
    data: DataFacts, machine: Machine, at_hand: Sequence[AtHand], distance: Distance, budget: Budget
) -> list[AtHand]:
    """The backbones to compare, in order; the user's own files come first.

    Returns:
        At least one; where no weights can be had, those that would be listed if they could.
    """
    pool = [one for one in at_hand if one.place != "nowhere"] or list(at_hand)
    passes = data.num_train + data.images["val"]

    def bearable(one: AtHand) -> bool:
        """Whether one pass over the images, which caches their features, takes at most a fifth of the search."""
        work = passes * one.candidate.gmacs * (useful_side(data) / 224) ** 2
        return work / (budget.gmacs_s * budget.slots) <= budget.search_s / 5

    most = 3 if machine.gpus or budget.minutes > 15 else 2
    taught = [one for one in pool if not one.candidate.self_supervised]
    fitting = [one for one in taught if one.place == "file" or one.candidate.small != bool(machine.gpus)] or taught
    fitting.sort(key=lambda one: (one.place != "file", not one.is_local))  # stable: in the order of preference
    chosen = [one for one in fitting if bearable(one)][:most] or fitting[:1]
    unlabelled = [one for one in pool if one.candidate.self_supervised and bearable(one)]
    wanted = distance == "far" or any(one.place == "file" for one in unlabelled)
    return chosen + unlabelled[:1] if wanted or not chosen else chosen


def useful_side(data: DataFacts) -> int:
    """Pixels that are worth computing: a little more than the images have, at most the usual 224."""
    return int(min(224, max(96, 1.25 * data.sides[1])))


def image_size(data: DataFacts, chosen: Sequence[AtHand]) -> int | None:
    """The size to train at; None is the weights' own."""
    names = [one.name for one in chosen]
    found = image_sizes(names, useful_side(data))
    own = {facts.image_size for name in names if (facts := backbone_facts(name)) is not None}
    return None if found is None or own == {found} else found


def deepest_stage(
    data: DataFacts, chosen: Sequence[AtHand], distance: Distance, epochs: int, budget: Budget
) -> tuple[int, int]:
    """The largest unfreeze_depth: what the data bear, and what of it the time allows."""
    wanted = _DEEPEST[size_of(data)][distance]
    allowed = wanted
    while allowed > 1 and _trial_s(data, chosen, allowed, epochs, budget, augmented=True) > budget.search_s / 3:
        allowed -= 1
    return wanted, allowed


def epochs_of(data: DataFacts, *, gpu: bool) -> int:
    """Epochs of a trial that is not stopped: fewer where each sees more images."""
    return _EPOCHS[size_of(data)][gpu]


def _trial_s(
    data: DataFacts, chosen: Sequence[AtHand], depth: int, epochs: int, budget: Budget, *, augmented: bool
) -> float:
    """Seconds of a whole trial, roughly: forward and backward of what trains; augmented images pass the rest, too."""
    gmacs = sum(one.candidate.gmacs for one in chosen) / len(chosen)
    gmacs *= ((image_size(data, chosen) or 224) / 224) ** 2
    part = _WORK[depth]
    work = data.num_train * ((1 + 2 * part) if augmented else 3 * part) + data.images["val"] * part
    return epochs * work * gmacs / budget.gmacs_s + _TRIAL_S


def num_trials(
    data: DataFacts, chosen: Sequence[AtHand], deepest: int, epochs: int, budget: Budget, *, augmented: bool
) -> tuple[int, float]:
    """How many trials fit, and the seconds that the least useful number of them would take."""
    gmacs = sum(one.candidate.gmacs for one in chosen) * ((image_size(data, chosen) or 224) / 224) ** 2
    fixed = _START_S + (data.num_train + data.images["val"]) * gmacs / (budget.gmacs_s * budget.slots)
    kinds = [(depth, some) for depth in range(deepest + 1) for some in ((False, True) if augmented else (False,))]
    mean = sum(_trial_s(data, chosen, depth, epochs, budget, augmented=some) for depth, some in kinds) / len(kinds)
    one = mean * _CUT / budget.slots
    fitting = int(max(0.0, budget.search_s - fixed) / one)
    # The best of many trials on few validation images is mostly the luckiest.
    told_apart = max(_FEW_TRIALS, data.images["val"] // 4)
    return max(_MIN_TRIALS, min(_MAX_TRIALS, told_apart, fitting)), fixed + _MIN_TRIALS * one


def budget_warning(needed_s: float, budget: Budget) -> str:
    """Where the time is too short for a search that says anything."""
    if needed_s <= budget.search_s:
        return ""
    fitting = max(1, round(needed_s / 60 / SEARCH_SHARE + 0.5))
    return (
        f"{budget.minutes:g} minutes are short for these images on this machine: {_MIN_TRIALS} trials take "
        f"{about_s(needed_s)} by a rough estimate; --minutes {fitting} fits them"
    )

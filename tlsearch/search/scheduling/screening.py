"""Which backbones a search goes on with, by what solved heads reach on their frozen features.

A backbone's score is the accuracy of its head on the validation images, as log-odds (Kornblith et al. 2019). What its
best trial will reach is taken for the score, plus a gain that all backbones share, plus a deviation of its own, drawn
from Student's t. The accuracies are those of validation images drawn again with replacement, the same ones for all
backbones. The chance that the best backbone is in a set is the fraction of draws in which it is. Backbones are pruned
from the worst on, as long as the chance of having pruned the best stays small.

B backbones; N validation images; D draws.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tlsearch.core.types import ProbedBackbone, Screen
from tlsearch.search.scheduling.stopping_rules import complaint

SPREAD = 0.25  # scale of the deviations, in log-odds; docs/benchmarks.md has what it was measured on
_FREEDOM = 3  # their tails: one in 20 is beyond 0.8, as pretraining without labels differs from supervised pretraining
MOST_CHANCE = 0.05  # of having pruned the best
NUM_DRAWS = 4000  # to choose by, and as many others to say the chance by
_AT_ONCE = 250


def decide(screen: Screen, *, limits: Mapping[str, float], always: Mapping[str, str]) -> Screen:
    """Chooses which backbones are kept, once all passes have been made.

    A backbone that breaks a limit of the search is pruned, and the others are not compared with it. One that could not
    be screened is kept.

    Args:
        screen: With a pass of each of its backbones.
        limits: The largest allowed value of each constraint.
        always: Backbones that are kept whatever they reach, and why.
    """
    broken = {one.backbone: text for one in screen.passes if (text := complaint(one.measured, limits))}
    unknown = {one.backbone: f"not screened: {one.error}" for one in screen.passes if one.error}
    compared = [one for one in screen.ranked if one.accuracy is not None and one.backbone not in broken]
    pruned, chance = far_off(compared, always)
    kept = tuple(name for name in screen.backbones if name in always or (name not in broken and name not in pruned))
    reasons = {**unknown, **broken, **always}
    return replace(
        screen,
        kept=kept or screen.backbones,
        reasons={name: text for name, text in reasons.items() if name in screen.backbones},
        chance=chance,
        num_draws=NUM_DRAWS,
        spread=SPREAD,
    )


def far_off(ranked: Sequence[ProbedBackbone], always: Mapping[str, str]) -> tuple[frozenset[str], float]:
    """The backbones that are not worth a trial, and the chance that the best is one of them.

    Args:
        ranked: By accuracy, the best first; all of the same validation images.
        always: Names that are not pruned.
    """
    if len(ranked) < 2:
        return frozenset(), 0.0
    hits, rng = np.stack([_hits(one) for one in ranked]), np.random.default_rng(0)
    best = np.bincount(_best_of_draws(hits, rng), minlength=len(ranked)) / NUM_DRAWS
    pruned, total = [], 0.0
    for place in range(len(ranked) - 1, 0, -1):
        if ranked[place].backbone in always:
            continue
        total += best[place]
        if total > MOST_CHANCE:
            break
        pruned.append(place)
    # the chance of a set that was chosen by some draws is said by others
    again = np.bincount(_best_of_draws(hits, rng), minlength=len(ranked)) / NUM_DRAWS
    return frozenset(ranked[place].backbone for place in pruned), float(again[pruned].sum())


def _hits(one: ProbedBackbone) -> NDArray[np.float32]:
    packed = np.frombuffer(bytes.fromhex(one.hits), dtype=np.uint8)
    return np.unpackbits(packed, count=one.num_val).astype(np.float32)


def _best_of_draws(hits: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.int64]:
    """The row of the best backbone in each draw: int (D,).

    Args:
        hits: float32 (B, N), 1 where the image is right.
    """
    num_images = hits.shape[1]
    equal = np.full(num_images, 1 / num_images)
    best = []
    for _ in range(NUM_DRAWS // _AT_ONCE):
        times = rng.multinomial(num_images, equal, size=_AT_ONCE).astype(np.float32)
        right = (times @ hits.T).astype(np.float64)
        odds = np.log((right + 0.5) / (num_images - right + 0.5))
        best.append((odds + SPREAD * rng.standard_t(_FREEDOM, size=odds.shape)).argmax(1))
    return np.concatenate(best)

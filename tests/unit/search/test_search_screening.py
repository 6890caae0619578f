"""Which backbones a screen keeps: those that training could still make the best, and those that may not go."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from tlsearch.core.types import ProbedBackbone, Screen
from tlsearch.search.scheduling import screening
from tlsearch.search.scheduling.screening import decide, far_off

N = 348


def probed(name: str, accuracy: float, *, seed: int = 0, images: int = N, **more: object) -> ProbedBackbone:
    """A backbone that gets this fraction of the images right; which of them follows from the seed."""
    hits = np.zeros(images, dtype=bool)
    hits[np.random.default_rng(seed).permutation(images)[: round(accuracy * images)]] = True
    packed = np.packbits(hits).tobytes().hex()
    return ProbedBackbone(backbone=name, hits=packed, num_val=images, num_train=996, **more)  # type: ignore[arg-type]


def decided(
    *passes: ProbedBackbone, limits: Mapping[str, float] | None = None, always: Mapping[str, str] | None = None
) -> Screen:
    names = tuple(one.backbone for one in passes)
    return decide(Screen(backbones=names, passes=passes), limits=limits or {}, always=always or {})


def test_the_accuracy_is_the_fraction_of_the_bits() -> None:
    one = probed("a", 0.25, images=100)
    assert one.accuracy == 0.25
    assert screening._hits(one).sum() == 25 and len(screening._hits(one)) == 100
    assert ProbedBackbone(backbone="b", error="too large").accuracy is None


def test_only_what_is_far_off_is_pruned() -> None:
    near = [probed(f"near {n}", 0.65 - 0.03 * n, seed=n) for n in range(4)]
    far = [probed(f"far {n}", 0.12 + 0.01 * n, seed=n) for n in range(4)]
    found = decided(*near, *far)
    assert found.kept == tuple(one.backbone for one in near) and len(found.pruned) == 4
    assert 0 < found.chance <= screening.MOST_CHANCE
    assert found.decided and found.num_draws == screening.NUM_DRAWS
    assert decided(*near).pruned == ()


def test_more_backbones_that_are_off_are_more_chances_to_be_wrong() -> None:
    best = probed("best", 0.65)
    few, many = ([probed(f"off {n}", 0.33, seed=n) for n in range(count)] for count in (2, 60))
    pruned = [len(decided(best, *others).pruned) / len(others) for others in (few, many)]
    assert pruned[0] == 1 and pruned[1] < 1


def test_the_chance_is_that_of_a_world_like_the_assumed_one() -> None:
    """Truths are drawn as the rule assumes; how often the best was pruned is what it says, over many screens."""
    rng, missed, said = np.random.default_rng(3), 0, 0.0
    worlds = 40
    for _ in range(worlds):
        odds = rng.normal(0.0, 1.0, 8)
        ability = 1 / (1 + np.exp(-odds))
        passes = [probed(str(n), float(rng.binomial(N, p) / N), seed=n) for n, p in enumerate(ability)]
        best = int(np.argmax(odds + screening.SPREAD * rng.standard_t(3, 8)))
        found = decided(*passes)
        missed += str(best) in found.pruned
        said += found.chance
    assert 0 < said / worlds <= screening.MOST_CHANCE
    assert missed <= 6  # of 40, where 2 are expected


def test_equal_input_is_decided_equally() -> None:
    passes = [probed(str(n), 0.2 + 0.06 * n, seed=n) for n in range(8)]
    assert decided(*passes) == decided(*passes)


def test_what_breaks_a_limit_is_pruned_and_nothing_is_compared_with_it() -> None:
    large = probed("large", 0.95, measured={"params_millions": 300.0})
    small = [probed(f"small {n}", 0.5, seed=n, measured={"params_millions": 3.0}) for n in range(2)]
    found = decided(large, *small, limits={"params_millions": 30.0})
    assert found.kept == ("small 0", "small 1") and "300 million parameters" in found.reasons["large"]
    assert decided(large, *small).pruned == ("small 0", "small 1")


def test_some_are_kept_whatever_they_reach() -> None:
    best, off, failed = (
        probed("best", 0.9),
        probed("off", 0.1),
        ProbedBackbone(backbone="failed", error="out of memory"),
    )
    found = decided(best, off, failed)
    assert found.kept == ("best", "failed") and found.reasons == {"failed": "not screened: out of memory"}
    wanted = decided(best, off, failed, always={"off": "in search.start_with", "another": "it has trials"})
    assert wanted.kept == ("best", "off", "failed") and wanted.reasons["off"] == "in search.start_with"
    assert wanted.chance == 0 and "another" not in wanted.reasons


@pytest.mark.parametrize("count", [0, 1])
def test_there_is_nothing_to_compare(count: int) -> None:
    assert far_off([probed("a", 0.5)][:count], {}) == (frozenset(), 0.0)


def test_all_are_kept_where_all_break_a_limit() -> None:
    both = [probed(name, 0.5, measured={"latency_ms": 50.0}) for name in ("a", "b")]
    assert decided(*both, limits={"latency_ms": 1.0}).kept == ("a", "b")

"""One pass over the images fills every boundary that the search needs, whichever depth comes first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from tlsearch.core.types import CacheSpec, TrialAssignment
from tlsearch.features import NotStored
from tlsearch.model import PART_NAMES, StagedModel
from tlsearch.trial import FineTuning, release_held
from tlsearch.trial import inputs as sources

Assign = Callable[..., TrialAssignment]
IMAGES = 30 + 21
DEPTHS = (0, 1, 2, 3)


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counter[str]]:
    """Images that went through each part in passes that store features."""
    images: Counter[str] = Counter()
    whole = StagedModel.forward_prefix

    def counted(model: StagedModel, rows: Tensor, depth: int, *, behind: int = 5) -> Tensor:
        for name in PART_NAMES[5 - behind : 5 - depth]:
            images[name] += len(rows)
        return whole(model, rows, depth, behind=behind)

    monkeypatch.setattr(StagedModel, "forward_prefix", counted)
    monkeypatch.setattr(sources, "_not_worth", lambda model, context, depth: None)  # of so small a backbone nothing is
    yield images


def opened_rows(assignment: TrialAssignment) -> tuple[Tensor, Tensor]:
    trial = FineTuning(assignment)
    rows = [torch.as_tensor(source.rows).clone() for source in (trial._parts.train, trial._parts.val)]
    trial.close()
    return rows[0], rows[1]


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (3, 1, 0, 2), (2, 0, 3, 1)])
def test_no_part_sees_an_image_twice(assign: Assign, seen: Counter[str], order: tuple[int, ...]) -> None:
    for depth in order:
        opened_rows(assign(f"trial{depth}", depth=depth, setup={"depths": DEPTHS}))
        release_held()
    assert seen == dict.fromkeys(PART_NAMES[:5], IMAGES)


def test_without_the_searchs_depths_each_boundary_is_a_pass_of_its_own(assign: Assign, seen: Counter[str]) -> None:
    for depth in (0, 2):
        opened_rows(assign(f"trial{depth}", depth=depth))
    assert seen["stem"] == 2 * IMAGES


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_stage_by_stage_gives_the_bits_of_one_pass(assign: Assign, seen: Counter[str], depth: int) -> None:
    trial = FineTuning(assign(depth=depth, setup={"depths": DEPTHS}))
    parts = trial._parts
    for split, source in (("train", parts.train), ("val", parts.val)):
        assert source.kind == "features"
        whole = torch.cat(list(sources.prefix_pass(parts.trainer.model, parts.context, parts.phase, split)))
        assert torch.equal(torch.as_tensor(source.rows), whole)
    trial.close()


def test_a_boundary_that_does_not_pay_is_passed_over(
    assign: Assign, seen: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "_not_worth", lambda model, context, depth: "no" if depth in (1, 2) else None)
    opened_rows(assign(depth=0, setup={"depths": DEPTHS}))
    assert seen == dict.fromkeys(PART_NAMES[:5], IMAGES)
    trial = FineTuning(assign("other", depth=1, setup={"depths": DEPTHS}))
    assert trial._parts.train.kind == "pixels"
    trial.close()


def test_a_boundary_without_room_does_not_stop_those_behind_it(
    assign: Assign, seen: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sources.open_features

    def full(key, **rest):  # type: ignore[no-untyped-def]
        return NotStored(reason="full") if key.depth == 3 else whole(key, **rest)

    monkeypatch.setattr(sources, "open_features", full)
    train, _ = opened_rows(assign(depth=0, setup={"depths": DEPTHS}))
    assert train.dim() == 2
    assert seen == dict.fromkeys(PART_NAMES[:5], IMAGES)


def test_half_precision_is_rounded_once(assign: Assign, seen: Counter[str]) -> None:
    cache = CacheSpec(feature_precision="half")
    opened_rows(assign(depth=0, setup={"depths": DEPTHS, "cache": cache}))
    opened_rows(assign("other", depth=2, setup={"depths": DEPTHS, "cache": cache}))
    assert seen["stem"] == 2 * IMAGES

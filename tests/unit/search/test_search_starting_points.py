"""Starting points and cheap points: what is tried before the sampler proposes."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_doubles import QuickTrial, drive, make_plan
from test_search_migrate import space as real_space

from tlsearch.config import ConstraintsSpec, Limit
from tlsearch.search import read_search
from tlsearch.search.sampling import proposals as proposals_module
from tlsearch.search.sampling.points import draw, first_look, nearest
from tlsearch.search.sampling.proposals import STARTING_POINTS, Proposals, _passes, starting_point
from tlsearch.search.sampling.tpe import make_sampler
from tlsearch.space import Choice, Fixed, FloatRange, IntRange

WIDE = real_space(
    backbone=Choice(values=("resnet18", "mobilenet_v2")),
    unfreeze_depth=IntRange(low=0, high=5),
    head_lr=FloatRange(low=1e-4, high=1e-1, log=True),
    backbone_lr=FloatRange(low=1e-6, high=1e-3, log=True),
)


def proposals(root: Path, starts: tuple[int, ...], slots: int = 1, **search: Any) -> list[dict[str, Any]]:
    for trials in starts:
        plan = replace(make_plan(root, max_epochs=3, trials=trials, **search), space=WIDE)
        assert drive(plan, slots=slots, factory=QuickTrial) == "finished"
    return [dict(trial.params) for trial in read_search(root).trials]


def test_first_the_default_then_every_backbone_then_starting_points(tmp_path: Path) -> None:
    points = proposals(tmp_path / "a", (3 + len(STARTING_POINTS),))
    assert points[0].items() >= WIDE.default_point().items()
    assert (points[1]["backbone"], points[1]["unfreeze_depth"]) == ("mobilenet_v2", 0)
    depths = [one["unfreeze_depth"] for one in STARTING_POINTS]
    assert [point["unfreeze_depth"] for point in points[2:]] == [depths[0], *depths], "the first on both backbones"


def test_starting_points_are_on_the_backbone_that_is_best(tmp_path: Path) -> None:
    class Lopsided(QuickTrial):
        def step(self) -> Any:
            report = super().step()
            good = self._assignment.config.backbone == "mobilenet_v2"
            return type(report)(epoch=report.epoch, metrics={"val_accuracy": 0.9 if good else 0.1}, timestamp=0.0)

    plan = replace(make_plan(tmp_path / "a", max_epochs=3, trials=6, starting_points="auto"), space=WIDE)
    assert drive(plan, factory=Lopsided) == "finished"
    backbones = [one.config.backbone for one in read_search(tmp_path / "a").trials]
    assert backbones[2:] == ["mobilenet_v2", "resnet18", "mobilenet_v2", "mobilenet_v2"]


def test_the_first_ten_points_are_cheap_ones_where_costs_count(tmp_path: Path) -> None:
    def depths(counts: bool) -> list[list[int]]:
        return [
            [
                point["unfreeze_depth"]
                for point in proposals(
                    tmp_path / f"{counts}{seed}",
                    (14,),
                    seed=seed,
                    starting_points="none",
                    cost_aware=counts,
                )
            ]
            for seed in range(12)
        ]

    aware, free = depths(True), depths(False)
    lowest = 1.62  # what the lowest of three draws from 0 to 5 that lean to the middle is on average
    assert np.mean([row[2:10] for row in aware]) == pytest.approx(lowest, abs=0.4)
    assert np.mean([row[2:10] for row in free]) > lowest + 0.5
    assert np.mean([row[10:] for row in aware]) > lowest + 0.2, "then TPE proposes, at any cost"


def test_a_cheap_point_is_a_new_one(tmp_path: Path) -> None:
    few = real_space(backbone=Fixed(value="resnet18"), unfreeze_depth=IntRange(low=0, high=1))
    plan = replace(make_plan(tmp_path / "a", max_epochs=1, trials=2, starting_points="none"), space=few)
    assert drive(plan, factory=QuickTrial) == "finished"
    assert len({str(trial.config) for trial in read_search(tmp_path / "a").trials}) == 2


BOUNDED = ConstraintsSpec(params_millions=Limit(max=1e6))


@pytest.mark.parametrize(
    ("options", "random_ones"),
    [({}, {7, 9, 11}), ({"starting_points": "none"}, set()), ({"constraints": BOUNDED}, set())],
)
def test_after_the_starting_points_every_other_trial_is_drawn_at_random(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], random_ones: set[int]
) -> None:
    names: dict[int, str] = {}

    def noted(name: str, *, seed: int, number: int, attempt: int = 0) -> Any:
        names[number] = name
        return make_sampler(name, seed=seed, number=number, attempt=attempt)

    monkeypatch.setattr(proposals_module, "make_sampler", noted)
    proposals(tmp_path / "a", (12,), **options)
    assert {number for number, name in names.items() if name == "random"} == random_ones


def test_starting_points_train_batch_norm_where_the_backbone_has_it(tmp_path: Path) -> None:
    space = real_space(
        backbone=Choice(values=("resnet18", "vit_b_16")),
        unfreeze_depth=IntRange(low=0, high=5),
        bn_policy=Choice(values=("frozen", "train")),
        augmentation=Choice(values=("none", "light")),
    )
    first = [starting_point(space, 0, backbone) for backbone in ("resnet18", "vit_b_16")]
    configs = [space.to_config(point) for point in first if point is not None]
    assert [config.bn_policy for config in configs] == ["train", None]
    assert [config.augmentation for config in configs] == ["light", "light"]
    rates = [config.backbone_lr for config in configs]
    assert rates == pytest.approx([1e-4, 1e-5]), "a tenth where no batch norm takes up the change"


@pytest.mark.parametrize(("adapt", "rate"), [("none", 1e-5), ("lora", 1e-4)])
def test_a_transformer_begins_at_a_tenth_of_the_rates_unless_adapters_train(adapt: str, rate: float) -> None:
    depths = IntRange(low=0, high=5)
    space = real_space(backbone=Fixed(value="vit_b_16"), unfreeze_depth=depths, adapt=Fixed(value=adapt))
    assert space.to_config(starting_point(space, 0, "vit_b_16") or {}).backbone_lr == pytest.approx(rate)


@pytest.mark.parametrize("sampler", ["random", "fixed"])
def test_other_samplers_propose_for_themselves(tmp_path: Path, sampler: str) -> None:
    start = {"sampler": sampler, "start_with": tuple({"unfreeze_depth": depth} for depth in range(4))}
    mine = proposals(tmp_path / "a", (6,), **start, starting_points="auto", cost_aware=True)
    off = {"starting_points": "none"}
    assert mine == proposals(tmp_path / "b", (6,), **start, **off)


def test_starting_points_are_moved_into_the_space() -> None:
    narrow = real_space(
        backbone=Choice(values=("resnet18", "mobilenet_v2")),
        unfreeze_depth=IntRange(low=0, high=2),
        head_lr=FloatRange(low=1e-4, high=2e-3, log=True),
        backbone_lr=FloatRange(low=1e-6, high=5e-5, log=True),
    )
    assert starting_point(narrow, 3, "resnet18") is None  # depth 5
    point = starting_point(narrow, 0, "mobilenet_v2")
    assert point is not None and point["backbone"] == "mobilenet_v2"
    assert (point["head_lr"], point["backbone_lr"]) == pytest.approx((1e-3, 5e-5))
    assert [first_look(narrow, one)["backbone"] for one in narrow.backbones()] == ["resnet18", "mobilenet_v2"]


def test_points_are_drawn_inside_the_space() -> None:
    rng = random.Random(0)
    for _ in range(200):
        point = draw(WIDE, rng)
        config = WIDE.to_config(point)  # raises where it is outside
        assert (config.backbone_lr is None) == (config.unfreeze_depth == 0)
        assert nearest(WIDE, point) == point


def test_central_points_lean_to_the_middle_of_every_range_of_numbers() -> None:
    rng = random.Random(0)
    points = [draw(WIDE, rng, central=True) for _ in range(400)]
    rates = [math.log10(float(point["head_lr"])) for point in points]
    depths = [point["unfreeze_depth"] for point in points]
    assert np.mean([-3.25 <= rate <= -1.75 for rate in rates]) == pytest.approx(0.75, abs=0.07), "the inner half"
    assert np.mean([depth in (2, 3) for depth in depths]) == pytest.approx(0.64, abs=0.07)
    assert len({point["backbone"] for point in points}) == len(WIDE.backbones()), "choices have no middle"


def test_first_looks_and_starting_points_have_the_size_nearest_to_that_of_the_weights(tmp_path: Path) -> None:
    patches = "timm/vit_small_patch14_dinov2"  # 518 px, in multiples of 14
    space = real_space(
        backbone=Choice(values=("resnet18", patches)),
        image_size=IntRange(low=64, high=256, step=32),
        unfreeze_depth=IntRange(low=0, high=5),
    )
    for backbone, size in (("resnet18", 224), (patches, 238)):
        assert space.to_config(first_look(space, backbone)).image_size == size
        for index in range(len(STARTING_POINTS)):
            point = starting_point(space, index, backbone)
            assert point is not None and space.to_config(point).image_size == size
    plan = replace(make_plan(tmp_path / "a", trials=8), space=space)
    assert drive(plan, factory=QuickTrial) == "finished"
    sizes = {trial.config.backbone: set[int]() for trial in read_search(tmp_path / "a").trials}
    for trial in read_search(tmp_path / "a").trials:
        assert trial.config.image_size == trial.params["image_size"]
        sizes[trial.config.backbone].add(trial.config.image_size or 0)
    assert all(size % 14 == 0 for size in sizes[patches]) and all(size % 32 == 0 for size in sizes["resnet18"])


def test_small_images_are_cheap() -> None:
    deep = WIDE.to_config(WIDE.complete({"unfreeze_depth": 5}))
    whole, half, own = (_passes(replace(deep, image_size=size), 1) for size in (224, 112, None))
    assert whole == own == 4 * half


def test_a_long_search_does_not_look_for_starting_points_that_are_behind_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each proposal would read the configuration of every trial again."""
    read: list[int] = []
    looked = Proposals._is_look
    monkeypatch.setattr(Proposals, "_is_look", lambda own, trial: read.append(trial.number) or looked(own, trial))
    proposals(tmp_path / "s", (40,))
    assert read and max(read) < 15

"""image_size as a dimension: lists, ranges moved to a backbone's multiples, where trials begin, what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from test_space_ratio import Draws

from tlsearch.core.errors import SpaceError
from tlsearch.core.types import DataSpec, ModelSpec, TrialConfig
from tlsearch.space import Space, image_sizes_of, load
from tlsearch.space.conditions import dimension_of

RANGE = {"int": [64, 160], "step": 32}
PATCHES = "timm/vit_small_patch14_dinov2"
ONE_SIZE = "timm/halonet26t"


def write(folder: Path, image_size: Any, backbones: Any = ("resnet18", "vit_b_16"), **more: Any) -> Path:
    data = {"source": "digits", **more.pop("data", {})}
    weights = {name: "none" for name in backbones if "@" not in name}
    space = {"backbone": list(backbones), "head_lr": {"log": [1e-4, 1e-1]}, **more}
    if image_size is not None:
        space["image_size"] = image_size
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({"name": "a", "data": data, "weights": weights, "space": space}))
    return path


def read(folder: Path, image_size: Any, backbones: Any = ("resnet18", "vit_b_16"), **more: Any) -> Space:
    return load(write(folder, image_size, backbones, **more))[1]


def messages(folder: Path, image_size: Any, backbones: Any = ("resnet18", "vit_b_16"), **more: Any) -> list[str]:
    with pytest.raises(SpaceError) as caught:
        load(write(folder, image_size, backbones, **more))
    return [f"{one.dotted}: {one.message}" for one in caught.value.faults]


def drawn(space: Space, backbone: str) -> dict[tuple[str, ...], set[int]]:
    """By the names that were asked for, the sizes of a backbone's trials."""
    found: dict[tuple[str, ...], set[int]] = {}
    for seed in range(200):
        draws = Draws(seed)
        config = space.to_config(space.suggest(draws))
        assert config.image_size is not None
        if config.backbone == backbone:
            names = tuple(name for name in draws.params if "size" in name)
            found.setdefault(names, set()).add(config.image_size)
            assert space.to_config(space.values_of(config)) == config
    return found


def test_a_list_is_a_choice_for_every_backbone(tmp_path: Path) -> None:
    space = read(tmp_path, [64, 96, 128])
    assert drawn(space, "resnet18") == drawn(space, "vit_b_16") == {("image_size",): {64, 96, 128}}
    config = space.to_config({"backbone": "vit_b_16", "head_lr": 1e-3, "image_size": 96})
    assert config.model == "vit_b_16 at 96 px" and config.short.startswith(config.model)
    assert space.to_params({"backbone": "vit_b_16", "head_lr": 1e-3, "image_size": 96})["image_size"] == 96


def test_without_it_a_trial_has_no_size_of_its_own(tmp_path: Path) -> None:
    space = read(tmp_path, None)
    config = space.to_config(space.complete({}))
    assert config.image_size is None and config.model == "resnet18"
    assert "image_size" not in space.to_params(space.complete({}))
    data = DataSpec(source="digits", image_size=80)
    assert data.size_of(config) == 80 and data.size_of(TrialConfig(backbone="resnet18", image_size=96)) == 96
    assert ModelSpec.of(config, data, 3) == ModelSpec(backbone="resnet18", num_classes=3, image_size=80)
    older = Space.from_json(space.to_json().replace('"image_size"', '"taken_out"', 1))
    assert image_sizes_of(older, "resnet18") == (None,)


def test_a_range_is_moved_to_the_multiples_of_a_backbone(tmp_path: Path) -> None:
    space = read(tmp_path, RANGE, ["resnet18", "vit_b_16", PATCHES])
    assert drawn(space, "resnet18") == drawn(space, "vit_b_16") == {("image_size",): {64, 96, 128, 160}}
    moved = "image_size_70_to_154_by_28"
    assert drawn(space, PATCHES) == {(moved,): {70, 98, 126, 154}} and dimension_of(moved) == "image_size"
    assert image_sizes_of(space, PATCHES) == (70, 98, 126, 154)
    with pytest.raises(ValueError, match=r"image_size 96 is outside the space at backbone .*70 to 154 in steps of 28"):
        space.complete({"backbone": PATCHES, "image_size": 96})
    assert dimension_of("image_size") == "image_size" and dimension_of("backbone_lr_ratio") == "backbone_lr_ratio"


@pytest.mark.parametrize(
    ("low", "high", "step", "backbone", "sizes"),
    [
        (64, 160, 1, PATCHES, [70, 84, 98, 112, 126, 140, 154]),
        (60, 75, 5, PATCHES, [70]),
        (32, 128, 32, "efficientnet_v2_s", [64, 96, 128]),  # it takes 33 px and more
        (10, 90, 40, "vit_b_16", [16, 48, 80]),
    ],
)
def test_the_moved_range(low: int, high: int, step: int, backbone: str, sizes: list[int], tmp_path: Path) -> None:
    space = read(tmp_path, {"int": [low, high], "step": step}, [backbone])
    assert list(image_sizes_of(space, backbone)) == sizes
    assert set.union(*drawn(space, backbone).values()) <= set(sizes)


def test_trials_begin_at_the_size_nearest_to_that_of_the_weights(tmp_path: Path) -> None:
    space = read(tmp_path, [64, 224, 384], ["resnet18", "vit_b_16@IMAGENET1K_SWAG_E2E_V1"])
    assert space.to_config(space.default_point()).image_size == 224
    of_swag = space.complete({"backbone": "vit_b_16@IMAGENET1K_SWAG_E2E_V1"})
    assert space.to_config(of_swag).image_size == 384
    small = read(tmp_path, RANGE, [PATCHES])
    assert small.to_config(small.default_point()).image_size == 154  # of 518
    assert small.to_config(small.complete({"image_size": 98})).image_size == 98


def test_a_size_that_a_backbone_cannot_take_is_an_error_with_those_it_can(tmp_path: Path) -> None:
    (found,) = messages(tmp_path, [96, 100, 150, 160])
    assert found.startswith("space.image_size: images of 100, 150 px do not suit every backbone of the space: ")
    assert "vit_b_16 takes multiples of 16 px" in found and "when: {backbone: [...]}" in found
    (found,) = messages(tmp_path, 100)
    assert "images of 100 px" in found
    (found,) = messages(tmp_path, {"int": [65, 69]}, ["resnet18", PATCHES])
    assert "images of 65 to 69 px" in found and f"{PATCHES} takes multiples of 14 px" in found


def test_a_backbone_of_one_size_takes_no_range_unless_a_condition_leaves_it_out(tmp_path: Path) -> None:
    (found,) = messages(tmp_path, RANGE, ["resnet18", ONE_SIZE])
    assert f"{ONE_SIZE} takes exactly 256 px" in found
    space = read(tmp_path, {**RANGE, "when": {"backbone": "resnet18"}}, ["resnet18", ONE_SIZE])
    assert image_sizes_of(space, ONE_SIZE) == (None,) and image_sizes_of(space, "resnet18") == (64, 96, 128, 160)
    assert space.to_config(space.complete({"backbone": ONE_SIZE})).image_size is None
    only = read(tmp_path, 256, ["resnet18", ONE_SIZE])
    assert only.to_config({"backbone": ONE_SIZE, "head_lr": 1e-3}).image_size == 256
    deep = read(tmp_path, {"choice": [64, 96], "when": {"unfreeze_depth": 1}}, unfreeze_depth=[0, 1])
    assert image_sizes_of(deep, "resnet18") == (None, 64, 96)  # at depth 0 that of data.image_size


def test_the_size_stands_in_one_place(tmp_path: Path) -> None:
    (found,) = messages(tmp_path, [64, 96], data={"image_size": 96})
    assert found.startswith("data.image_size: must be auto where the space has image_size, not 96")
    assert image_sizes_of(read(tmp_path, [64, 96], data={"image_size": "auto"}), "vit_b_16") == (64, 96)
    (found,) = messages(tmp_path, [0, 96])
    assert "image_size takes whole numbers from 1 to 4096" in found

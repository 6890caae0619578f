"""``backbone: {from: [...], screen: true}``: what it may say, and what a screen leaves of a space."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_space_build import problems, read

from tlsearch.space import Choice, Fixed, is_screened, with_backbones

LISTED = ["resnet18", "mobilenet_v2", "vit_b_16"]
SCREENED: dict[str, Any] = {"backbone": {"from": LISTED, "screen": True}}


def test_a_screened_list_is_the_same_list_with_a_mark(tmp_path: Path) -> None:
    space = read(tmp_path, SCREENED)
    assert is_screened(space) and space.backbones() == tuple(LISTED)
    plain = read(tmp_path, {"backbone": LISTED})
    assert not is_screened(plain) and plain.dimensions["backbone"].domain == space.dimensions["backbone"].domain
    assert not is_screened(read(tmp_path, {"backbone": {"from": LISTED}}))
    assert not is_screened(read(tmp_path, {"backbone": {"from": LISTED, "screen": False}}))


def test_what_is_kept_stands_in_the_order_of_the_space(tmp_path: Path) -> None:
    space = read(tmp_path, SCREENED)
    narrowed = with_backbones(space, ("vit_b_16", "resnet18", "of another list"))
    assert narrowed.dimensions["backbone"].domain == Choice(values=("resnet18", "vit_b_16"))
    assert not is_screened(narrowed) and is_screened(space)
    assert with_backbones(space, ["vit_b_16"]).dimensions["backbone"].domain == Fixed(value="vit_b_16")
    assert narrowed.complete({})["backbone"] == "resnet18"
    with pytest.raises(ValueError, match="backbone mobilenet_v2 is outside the space"):
        narrowed.complete({"backbone": "mobilenet_v2"})


@pytest.mark.parametrize(
    ("space", "path", "words"),
    [
        ({"backbone": {"from": ["resnet18", "resnet81"], "screen": True}}, "backbone.from[1]", "not known"),
        ({"backbone": {"from": LISTED, "screen": 3}}, "backbone.screen", "screen is true or false, not 3"),
        ({"backbone": {"choice": LISTED, "screen": True}}, "backbone.screen", "screen goes with backbone: {from:"),
        ({"backbone": {"from": "resnet18", "screen": True}}, "backbone.from", "must be a list"),
        ({"head_lr": {"from": [0.1, 0.2]}}, "head_lr.from", "write head_lr as a list"),
        ({"head_lr": {"choice": [0.1, 0.2], "screen": True}}, "head_lr.screen", "screen goes with backbone"),
        ({"backbone": {"from": LISTED, "sceen": True}}, "backbone.sceen", "did you mean 'screen'"),
    ],
)
def test_each_wrong_form_is_one_error_with_its_place(
    tmp_path: Path, space: dict[str, Any], path: str, words: str
) -> None:
    (found,) = problems(tmp_path, space)
    assert found.dotted == f"space.{path}" and found.line > 0
    assert words in found.message


def test_a_screen_without_effect_is_an_error(tmp_path: Path) -> None:
    (alone,) = problems(tmp_path, {"backbone": {"from": ["resnet18"], "screen": True}})
    assert alone.dotted == "space.backbone.screen" and "a single backbone" in alone.message
    listed = {"sampler": "fixed", "start_with": [{"backbone": "resnet18"}]}
    (fixed,) = problems(tmp_path, SCREENED, search=listed)
    assert fixed.dotted == "space.backbone.screen" and "sampler fixed (line" in fixed.message


def test_a_screen_by_accuracy_does_not_go_with_a_front(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, SCREENED, search={"objectives": ["val_accuracy", "params_millions"]})
    assert found.dotted == "space.backbone.screen" and "objectives (line" in found.message


def test_errors_of_a_listed_backbone_stand_at_its_place(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, {"backbone": {"from": ["resnet18", "vit_b_16"], "screen": True}, "image_size": [100]})
    assert found.dotted == "space.image_size" and "vit_b_16 takes" in found.message and "(line" in found.message

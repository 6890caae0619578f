"""Augmentation: determined by its generator, with the statistics it promises."""

from __future__ import annotations

import pytest
import torch
from torchvision.transforms import v2

from tlsearch.core.types import TransformSpec
from tlsearch.data import AUGMENTATIONS, augment
from tlsearch.data.images.augmentation import apply_drawn, crop_and_flip, draw, draw_boxes, draw_view, resize_batch
from tlsearch.data.images.preprocessing import normalise
from tlsearch.data.images.trivial_augment import distort


def batch(count: int = 8, side: int = 40) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (count, side, side, 3), dtype=torch.uint8, generator=generator).permute(0, 3, 1, 2)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_the_seed_determines_everything(kind):
    images = batch()
    before = images.clone()
    first = augment(images, kind, 32, seeded(0))
    torch.manual_seed(99)
    state = torch.get_rng_state()
    assert torch.equal(augment(images, kind, 32, seeded(0)), first)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, before)
    assert not torch.equal(augment(images, kind, 32, seeded(1)), first)


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_shape_type_and_layout(kind):
    result = augment(batch(), kind, 32, seeded(0))
    assert result.shape == (8, 3, 32, 32)
    assert result.dtype == torch.uint8
    assert result.is_contiguous(memory_format=torch.channels_last)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="must be one of light, strong, not 'wild'"):
        augment(batch(), "wild", 32, seeded(0))


def test_boxes_lie_inside_and_keep_to_scale_and_ratio():
    side = 256
    boxes = draw_boxes(4000, side, (0.7, 1.0), (3 / 4, 4 / 3), seeded(0)).double()
    top, left, height, width = boxes.unbind(1)
    assert (top >= 0).all() and (left >= 0).all()
    assert (top + height <= side).all() and (left + width <= side).all()
    area = height * width / side**2
    assert 0.69 < area.min() < 0.72
    assert 0.97 < area.max() <= 1.0
    assert 0.77 < area.mean() < 0.85  # wide boxes of a large area do not fit, so below 0.85
    ratio = width / height
    assert 0.74 < ratio.min() < 0.8
    assert 1.25 < ratio.max() < 1.35
    assert abs(ratio.log().mean()) < 0.01
    free = (side - height) > 10
    assert abs((top / (side - height))[free].mean() - 0.5) < 0.02
    assert (top == side - height)[free].any()


def test_boxes_that_never_fit_become_the_whole_square():
    boxes = draw_boxes(5, 10, (1.0, 1.0), (2.0, 3.0), seeded(0))
    assert boxes.tolist() == [[0, 0, 10, 10]] * 5


def test_an_images_crop_does_not_depend_on_those_after_it():
    images = batch(8)
    boxes = draw_boxes(8, 40, (0.7, 1.0), (0.75, 1.33), seeded(0))
    assert torch.equal(draw_boxes(3, 40, (0.7, 1.0), (0.75, 1.33), seeded(0)), boxes[:3])
    flips = torch.zeros(8, dtype=torch.bool)
    assert torch.equal(crop_and_flip(images[:3], boxes[:3], flips[:3], 32), crop_and_flip(images, boxes, flips, 32)[:3])


def test_half_of_the_images_are_mirrored():
    left = torch.zeros(2000, 3, 16, 16, dtype=torch.uint8)
    left[..., :8] = 255
    result = augment(left, "light", 16, seeded(0)).float()
    mirrored = result[..., :4].mean((1, 2, 3)) < result[..., -4:].mean((1, 2, 3))
    assert abs(mirrored.float().mean() - 0.5) < 0.04


def test_the_whole_square_at_its_own_size_is_the_identity():
    images = batch()
    whole = torch.tensor([[0, 0, 40, 40]]).repeat(8, 1)
    flips = torch.tensor([False, True] * 4)
    result = crop_and_flip(images, whole, flips, 40)
    assert torch.equal(result[::2], images[::2])
    assert torch.equal(result[1::2], images[1::2].flip(3))


def test_a_crop_takes_the_pixels_of_its_box():
    images = batch()
    boxes = torch.tensor([[i, 2 * i, 24, 24] for i in range(8)])
    result = crop_and_flip(images, boxes, torch.zeros(8, dtype=torch.bool), 24)
    for i in range(8):
        assert torch.equal(result[i], images[i, :, i : i + 24, 2 * i : 2 * i + 24])


def test_the_resize_agrees_with_torchvision():
    from torchvision.transforms import functional as F

    images = batch()
    boxes = draw_boxes(8, 40, (0.7, 1.0), (0.75, 1.33), seeded(0))
    result = crop_and_flip(images, boxes, torch.zeros(8, dtype=torch.bool), 32)
    for image, (top, left, height, width), got in zip(images, boxes.tolist(), result, strict=True):
        want = F.resized_crop(image.contiguous().float(), top, left, height, width, [32, 32], antialias=True)
        assert (got.float() - want).abs().max() < 1.01  # two passes, each rounded


def smooth(count: int, side: int) -> torch.Tensor:
    """Images whose neighbours are alike, as photographs': channels_last."""
    coarse = torch.rand(count, 3, side // 4, side // 4, generator=seeded(2)) * 255
    fine = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 255)
    return fine.to(torch.uint8).contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("size", [24, 64])
def test_the_resize_of_other_devices_agrees_with_the_cpus(size):
    images = smooth(16, 48)
    drawn = draw("light", 16, 48, seeded(4))
    want = crop_and_flip(images, drawn.boxes, drawn.flips, size)
    got = resize_batch(images, drawn.boxes, drawn.flips, size)
    assert got.is_contiguous(memory_format=torch.channels_last)
    gap = (got.int() - want.int()).abs()
    assert gap.max() <= 2 and gap.float().mean() < 0.3


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_other_devices_are_never_waited_for(kind):
    """``meta`` has no values: reading one, or copying from it, raises."""
    images = torch.empty(64, 3, 40, 40, dtype=torch.uint8, device="meta", memory_format=torch.channels_last)
    transform = TransformSpec(resize_size=40, crop_size=32, interpolation="bilinear", crop_mode="center")
    rows = normalise(augment(images, kind, 32, seeded(0)), transform)
    assert rows.shape == (64, 3, 32, 32) and rows.device.type == "meta"
    assert rows.is_contiguous(memory_format=torch.channels_last)


# --- strong ------------------------------------------------------------------------------


def flat(count: int, side: int = 24, level: int = 200) -> torch.Tensor:
    return torch.full((count, 3, side, side), level, dtype=torch.uint8)


def test_strong_comes_on_top_of_light():
    images = batch(200)
    light, strong = (augment(images, kind, 32, seeded(3)) for kind in ("light", "strong"))
    same = (light == strong).flatten(1).all(1)
    # One operation of 14 does nothing, others do nothing at their weakest.
    assert 0.05 < same.float().mean() < 0.35


def test_each_image_has_its_own_chances():
    result = augment(batch(1).repeat(64, 1, 1, 1), "strong", 40, seeded(0))
    assert len({image.numpy().tobytes() for image in result}) > 60


def test_an_images_chances_do_not_depend_on_the_others():
    images = batch(8)
    changed = images.clone()
    changed[0] = 7
    first, other = (augment(some, "strong", 32, seeded(5)) for some in (images, changed))
    assert torch.equal(first[1:], other[1:])


def test_one_image_in_ten_loses_a_rectangle_to_the_mean_colour():
    mean = (0.1, 0.5, 0.9)
    result = augment(flat(1000), "strong", 24, seeded(0), mean=mean)
    colour = torch.tensor([round(255 * value) for value in mean], dtype=torch.uint8).view(1, 3, 1, 1)
    painted = (result == colour).all(1).float().mean((1, 2))
    corners = (result[:, :, [0, 0, -1, -1], [0, -1, 0, -1]] == colour[..., 0]).all(1).any(1)
    erased = (painted > 0.01) & ~corners  # turned and shifted images show the colour at their corners
    assert 0.04 < erased.float().mean() < 0.12
    assert painted[erased].max() < 0.4
    assert corners.float().mean() > 0.2


def distort_by_torchvision(images: torch.Tensor, seeds: torch.Tensor, mean: tuple[float, ...]) -> torch.Tensor:
    """Image by image, each with the global generator seeded for it."""
    colour = [round(255 * value) for value in mean]
    transform = v2.Compose([v2.TrivialAugmentWide(fill=colour), v2.RandomErasing(p=0.1, value=colour)])
    results = []
    with torch.random.fork_rng(devices=[]):
        for image, seed in zip(images, seeds.tolist(), strict=True):
            torch.default_generator.manual_seed(seed)
            results.append(transform(image))
    return torch.stack(results)


def test_the_distortions_are_torchvisions_from_the_same_seeds():
    mean, count = (0.1, 0.5, 0.9), 420  # 30 images for each operation
    images = smooth(count, 48)
    images[::50] = 77  # one level: autocontrast and equalize leave it as it is
    seeds = torch.randint(2**62, (count,), generator=seeded(8))
    got, want = distort(images, seeds, mean), distort_by_torchvision(images, seeds, mean)
    gap = (got.int() - want.int()).abs().amax(1).flatten(1)
    assert (gap > 1).float().mean() < 1e-3  # a turned place between two pixels may take the other
    assert (gap > 1).any(1).float().mean() < 0.2
    assert (gap > 0).float().mean() < 2e-3


def test_another_source_of_chance_is_not_touched():
    generator = seeded(0)
    augment(batch(4), "strong", 32, generator)
    after = torch.rand(1, generator=generator)
    generator = seeded(0)
    augment(batch(4) // 2, "strong", 32, generator)
    assert torch.equal(torch.rand(1, generator=generator), after)


# --- fixed views -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_batch_is_augmented_by_what_was_drawn_for_it(kind):
    images = batch()
    drawn = draw(kind, 8, 40, seeded(0))
    whole = apply_drawn(images, drawn, 32)
    assert torch.equal(whole, augment(images, kind, 32, seeded(0)))
    order = torch.tensor([5, 0, 7])
    assert torch.equal(apply_drawn(images[order], drawn[order], 32), whole[order])
    assert torch.equal(apply_drawn(images[2:4], drawn[2:4], 32), whole[2:4])


@pytest.mark.parametrize("kind", AUGMENTATIONS)
def test_a_view_depends_on_its_arguments_alone(kind):
    def view(kind=kind, number=1, digest="d", count=50):
        return draw_view(kind, number, data_digest=digest, num_images=count, side=40)

    torch.manual_seed(7)
    first = view()
    torch.manual_seed(8)
    again = view()
    assert len(first) == 50
    assert torch.equal(first.boxes, again.boxes) and torch.equal(first.flips, again.flips)
    assert (first.seeds is None) == (kind == "light")
    assert kind == "light" or torch.equal(first.seeds, again.seeds)
    for other in (view(number=2), view(digest="e"), view(kind="strong" if kind == "light" else "light")):
        assert not torch.equal(other.boxes, first.boxes)


def test_a_view_of_many_images_is_drawn_in_blocks(monkeypatch):
    from tlsearch.data.images import augmentation

    monkeypatch.setattr(augmentation, "_BLOCK", 8)
    view = draw_view("strong", 1, data_digest="d", num_images=20, side=40)
    assert len(view) == 20 and len(view.flips) == 20 and len(set(view.seeds.tolist())) == 20
    assert len({tuple(box) for box in view.boxes.tolist()}) > 15
    shorter = draw_view("strong", 1, data_digest="d", num_images=16, side=40)
    assert torch.equal(view.boxes[:16], shorter.boxes)


def test_views_are_as_varied_as_fresh_augmentation():
    view = draw_view("light", 3, data_digest="d", num_images=2000, side=256)
    assert abs(view.flips.float().mean() - 0.5) < 0.04
    area = (view.boxes[:, 2] * view.boxes[:, 3]).double() / 256**2
    assert 0.77 < area.mean() < 0.85

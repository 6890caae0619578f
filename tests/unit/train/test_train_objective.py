"""Targets, class balance and mixing; averaged weights."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn import functional as F

from tlsearch.core.errors import StorageError
from tlsearch.model import StagedModel
from tlsearch.train import holds_soft_targets, mixed_with_labels, moving_state, read_soft_targets, write_soft_targets
from tlsearch.train.loop.ema import WeightAverage
from tlsearch.train.loop.loss import CrossEntropy, Mixer, balanced_order

Build = Callable[..., StagedModel]


def long_tail(num_classes: int = 60, most: int = 200) -> torch.Tensor:
    """Class c has most * 0.93^c images: 200 down to 3."""
    counts = [max(3, round(most * 0.93**c)) for c in range(num_classes)]
    return torch.repeat_interleave(torch.arange(num_classes), torch.tensor(counts))


def test_balanced_weights_are_scikit_learns() -> None:
    labels = long_tail()
    expected = compute_class_weight("balanced", classes=np.arange(60), y=labels.numpy())
    assert CrossEntropy.balanced(labels, 60).tolist() == pytest.approx(expected.tolist())
    assert float(CrossEntropy.balanced(labels, 60)[labels].mean()) == pytest.approx(1.0)
    present = CrossEntropy.balanced(torch.tensor([0, 0, 2]), 4)
    assert present.tolist() == [0.75, 0.0, 1.5, 0.0]


def test_the_sampler_gives_every_class_the_same_places() -> None:
    labels = long_tail()
    order = balanced_order(labels, torch.Generator().manual_seed(0))
    assert len(order) == len(labels)
    drawn = torch.bincount(labels[order], minlength=60)
    assert set(drawn.tolist()) <= {len(labels) // 60, len(labels) // 60 + 1}
    times = torch.bincount(order, minlength=len(labels))
    for label in range(60):  # within a class, no image comes twice before all have come once
        own = times[labels == label]
        assert int(own.max()) - int(own.min()) <= 1
    assert torch.equal(order, balanced_order(labels, torch.Generator().manual_seed(0)))
    assert not torch.equal(order, balanced_order(labels, torch.Generator().manual_seed(1)))
    first_half = torch.bincount(labels[order[: len(order) // 2]], minlength=60)
    assert int((first_half > 0).sum()) >= 55, "shuffled, not class by class"


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weighted", [False, True])
def test_target_rows_give_the_loss_and_its_gradient(smoothing: float, weighted: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    logits = torch.randn(9, 5, generator=generator, requires_grad=True)
    labels = torch.arange(9) % 5
    weights = torch.rand(5, generator=generator) + 0.1 if weighted else None
    objective = CrossEntropy(label_smoothing=smoothing, class_weights=weights)
    loss = objective.total(logits, labels)
    torch.autograd.backward(loss)
    rows = objective.target_rows(labels, 5)
    log_probs = torch.log_softmax(logits.detach(), 1)
    assert float(-(rows * log_probs).sum()) == pytest.approx(loss.item(), rel=1e-5)
    torch.testing.assert_close(log_probs.exp() * rows.sum(1, keepdim=True) - rows, logits.grad)
    if not weighted:
        expected = F.cross_entropy(logits.double(), labels, label_smoothing=smoothing, reduction="sum")
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def mixer(seed: int = 1, epoch: int = 1, mixup: float = 0.0, cutmix: float = 0.0) -> Mixer:
    return Mixer(mixup=mixup, cutmix=cutmix, num_classes=4, seed=seed, epoch=epoch)


def test_mixup_mixes_images_and_targets_by_the_same_share() -> None:
    rows, labels = torch.randn(4, 3, 8, 8), torch.arange(4)
    kept = rows.clone()
    mixed, targets = mixer(mixup=0.4).mix(rows, labels)
    share = float(targets[0, 0])
    assert 0 < share < 1
    torch.testing.assert_close(mixed, share * rows + (1 - share) * rows.roll(-1, 0))
    torch.testing.assert_close(targets, share * torch.eye(4) + (1 - share) * torch.eye(4).roll(1, 1))
    assert torch.equal(rows, kept)


def test_cutmix_pastes_a_patch_and_counts_its_pixels() -> None:
    labels = torch.arange(4)
    rows = labels.float().view(4, 1, 1, 1).expand(4, 3, 16, 16).contiguous(memory_format=torch.channels_last)
    patches = set()
    for epoch in range(1, 9):
        mixed, targets = mixer(cutmix=1.0, epoch=epoch).mix(rows, labels)
        assert mixed.is_contiguous(memory_format=torch.channels_last)
        for image, target, label in zip(mixed, targets, labels, strict=True):
            partner = (int(label) + 1) % 4
            assert set(image.unique().tolist()) <= {float(label), float(partner)}
            assert float((image == label).float().mean()) == pytest.approx(float(target[label]), abs=1e-6)
            patches.add(round(float(target[label]), 3))
    assert len(patches) > 4


def test_mixing_repeats_itself_and_takes_one_of_both() -> None:
    rows, labels = torch.randn(6, 3, 8, 8), torch.arange(6) % 4
    first, again, other = (
        mixer(seed, epoch, mixup=0.3).mix(rows, labels)[0] for seed, epoch in ((1, 1), (1, 1), (1, 2))
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    both = mixer(mixup=1.0, cutmix=1.0)
    kinds = set()
    for _ in range(20):
        mixed, _ = both.mix(rows, labels)
        kinds.add("cutmix" if torch.isin(mixed, rows).all() else "mixup")
    assert kinds == {"mixup", "cutmix"}


def test_the_average_follows_the_weights_and_steps_aside(tiny_model: Build) -> None:
    model = tiny_model()
    model.freeze(1, "train")
    average = WeightAverage(model, 0.9)
    live = moving_state(model)
    assert set(average.averages) == {name for name, tensor in live.items() if tensor.is_floating_point()}
    assert any(name.endswith("running_mean") for name in average.averages)
    expected = {name: tensor.clone().double() for name, tensor in live.items()}
    for update in range(30):
        with torch.no_grad():
            for tensor in live.values():
                if tensor.is_floating_point():
                    tensor += torch.randn(tensor.shape)
        average.update(update)
        decay = min(0.9, (1 + update) / (10 + update))
        expected = {name: decay * expected[name] + (1 - decay) * live[name].double() for name in expected}
    for name, tensor in average.averages.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-4, atol=1e-5)
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with average.applied():
        assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in average.averages.items())
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())


def test_the_average_takes_up_what_begins_to_train(tiny_model: Build) -> None:
    model = tiny_model()
    model.freeze(0, "train")
    average = WeightAverage(model, 0.9)
    with torch.no_grad():
        model.head[1].weight += 1
    average.update(50)
    head = {name: tensor.clone() for name, tensor in average.averages.items()}
    model.freeze(2, "train")
    average.extend(model)
    assert all(torch.equal(average.averages[name], tensor) for name, tensor in head.items())
    state = model.state_dict()
    joined = average.averages.keys() - head.keys()
    assert joined and all(torch.equal(average.averages[name], state[name]) for name in joined)


def test_mixing_takes_probabilities_as_it_takes_labels() -> None:
    rows = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.tensor([0, 1, 2, 0, 1, 2])
    for kind in ("mixup", "cutmix"):
        shares = {"mixup": 0.0, "cutmix": 0.0} | {kind: 1.0}
        mixed = [
            Mixer(**shares, num_classes=3, seed=4, epoch=1).mix(rows, targets)
            for targets in (labels, F.one_hot(labels, 3).float())
        ]
        for one, other in zip(*mixed, strict=True):
            assert torch.equal(one, other)


def test_soft_targets_are_found_by_view_and_refused_for_other_data(tmp_path: Path) -> None:
    path = tmp_path / "targets.safetensors"
    labels = torch.tensor([0, 2])
    teacher = torch.tensor([[0.5, 0.25, 0.25], [0.0, 0.5, 0.5]])
    targets = mixed_with_labels(teacher, labels)
    assert targets.tolist() == [[0.75, 0.125, 0.125], [0.0, 0.25, 0.75]]
    assert not holds_soft_targets(path, "a teacher")
    write_soft_targets(path, {1: targets, 2: teacher}, made_from="a teacher")
    assert holds_soft_targets(path, "a teacher") and not holds_soft_targets(path, "another teacher")
    assert torch.equal(read_soft_targets(path, 2, (2, 3)), teacher)
    for view, shape in ((3, (2, 3)), (1, (5, 3))):
        with pytest.raises(StorageError, match="soft targets must be"):
            read_soft_targets(path, view, shape)
    path.write_bytes(b"no tensors")
    assert not holds_soft_targets(path, "a teacher")
    with pytest.raises(StorageError, match="soft targets must be safetensors"):
        read_soft_targets(path, 1, (2, 3))

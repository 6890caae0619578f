"""The common mistakes of transfer learning: one check each, and proof that it fails where its guard is taken out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from pydantic import TypeAdapter
from scoring import accuracy_on
from torch import Tensor, nn
from torchvision.transforms import functional as TF

from tlsearch.config import checkpoint_meta
from tlsearch.core.errors import DataError, Diverged, FrozenMoved, StorageError
from tlsearch.core.types import Decision, EpochReport, TransformSpec, TrialAssignment, TrialState
from tlsearch.data import load_index, normalise
from tlsearch.model import PART_NAMES, Part, StagedModel
from tlsearch.results import load_model, predict
from tlsearch.results.inference import predictor
from tlsearch.train import PixelSource, evaluate
from tlsearch.train.loop import batches
from tlsearch.train.optim import optimizer as optimizer_module
from tlsearch.trial import FineTuning, feature_collapse, run_trial
from tlsearch.trial import setup as trial_setup
from tlsearch.trial.process_cache import held_index

Assign = Callable[..., TrialAssignment]
Checks = Callable[[TrialAssignment], None]
BACKBONE = "mobilenet_v3_small"


@contextmanager
def seen_by_the_model(model: StagedModel) -> Iterator[list[Tensor]]:
    """The batches that enter the stem while the block runs."""
    batches: list[Tensor] = []
    handle = model.stem.register_forward_pre_hook(lambda _, inputs: batches.append(inputs[0].clone()))
    try:
        yield batches
    finally:
        handle.remove()


def snapshot(model: StagedModel) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def changed_since(model: StagedModel, before: dict[str, Tensor]) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


# --- wrong normalisation -----------------------------------------------------------------


def check_normalisation(assignment: TrialAssignment) -> None:
    """Training, validation and prediction give the model what the weights' own transform makes of the files."""
    index = held_index(assignment.setup.data)
    expected = {}
    for split in ("train", "val"):
        for key in index.splits[split].keys:
            image = Image.open(Path(index.root) / key).convert("RGB")
            resized = TF.center_crop(TF.resize(image, [37], TF.InterpolationMode.BICUBIC, antialias=True), [32, 32])
            pixels = TF.convert_image_dtype(TF.pil_to_tensor(resized), torch.float32)
            expected[key] = TF.normalize(pixels, [0.5] * 3, [0.5] * 3)
    trial = FineTuning(assignment)
    with seen_by_the_model(trial.model) as batches:
        trial.step()
    trial.close()
    train, val = index.splits["train"].keys, index.splits["val"].keys
    entered = torch.cat(batches)[: len(train) + len(val)]
    wanted = torch.stack([expected[key] for key in train])
    for image in entered[: len(train)]:
        assert (wanted == image).flatten(1).all(1).any(), "a training image is not normalised as the weights say"
    assert torch.equal(entered[len(train) :], torch.stack([expected[key] for key in val]))
    model = load_model(Path(assignment.directory) / "best")
    with seen_by_the_model(model.model) as batches:
        predict(model, [Path(index.root) / key for key in val])
    assert torch.equal(torch.cat(batches), torch.stack([expected[key] for key in val]))


def test_wrong_normalisation(pretrained: Assign) -> None:
    check_normalisation(pretrained(stored=False, setup={"max_epochs": 1}))


def test_wrong_normalisation_would_be_noticed(pretrained: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    imagenet = TransformSpec(resize_size=37, crop_size=32)
    monkeypatch.setattr(batches, "normalise", lambda images, _: normalise(images, imagenet))
    with pytest.raises(AssertionError, match="not normalised"):
        check_normalisation(pretrained(stored=False, setup={"max_epochs": 1}))


# --- head not replaced -------------------------------------------------------------------


def check_new_head(assignment: TrialAssignment, weights_file: Path) -> None:
    """The head is new even where the weights have one that would fit, and nothing of theirs is left in it."""
    trial = FineTuning(assignment)
    pretrained = torch.load(weights_file, weights_only=True)["classifier.3.weight"]
    (layer,) = [module for module in trial.model.head.modules() if isinstance(module, nn.Linear)]
    assert layer.out_features == 3 and layer.weight.shape == pretrained.shape
    assert not torch.equal(layer.weight.detach(), pretrained), "the pretrained classifier is still there"
    assert layer.weight.abs().max().item() <= layer.in_features**-0.5, "a new layer is initialised as torch does"
    assert not any(torch.equal(tensor, pretrained) for tensor in trial.model.state_dict().values())
    trial.close()


def test_head_not_replaced(pretrained: Assign, weights_file: Path) -> None:
    check_new_head(pretrained(), weights_file)


def test_head_not_replaced_would_be_noticed(
    pretrained: Assign, weights_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_setup, "replace_head", lambda *_, **__: None)
    with pytest.raises(AssertionError):
        check_new_head(pretrained(), weights_file)


# --- frozen parameters trained, or held by the optimizer -----------------------------------


def check_frozen(assignment: TrialAssignment) -> None:
    """Parts below the depth, told by their names, neither move nor are in the optimiser, weight decay or not."""
    trial = FineTuning(assignment)
    frozen = PART_NAMES[: 5 - assignment.config.unfreeze_depth]
    before = snapshot(trial.model)
    names = {id(parameter): name for name, parameter in trial.model.named_parameters()}
    groups = trial._parts.trainer.optimizer.param_groups
    assert not {names[id(p)] for group in groups for p in group["params"] if names[id(p)].split(".")[0] in frozen}
    for _ in range(2):
        trial.step()
    assert not {name for name in changed_since(trial.model, before) if name.split(".")[0] in frozen}
    trial.close()


@pytest.mark.parametrize("depth", [0, 2, 4])
def test_frozen_parameters_trained_or_held(pretrained: Assign, depth: int) -> None:
    check_frozen(pretrained(depth=depth, policy="train", weight_decay=0.5))


@pytest.mark.parametrize("guard", ["requires_grad", "groups", "eval mode"])
def test_frozen_parameters_trained_or_held_would_be_noticed(
    pretrained: Assign, monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    if guard == "requires_grad":
        freeze = Part.set_frozen
        monkeypatch.setattr(Part, "set_frozen", lambda part, _, *more: freeze(part, False, *more))
    elif guard == "groups":
        every = lambda model, **_: [{"name": "head", "params": list(model.parameters()), "lr": 0.1}]  # noqa: E731
        monkeypatch.setattr(optimizer_module, "parameter_groups", every)
    else:
        monkeypatch.setattr(Part, "train", nn.Sequential.train)
    with pytest.raises((AssertionError, FrozenMoved)):
        check_frozen(pretrained(depth=2, policy="train", weight_decay=0.5, stored=False))


# --- the new head frozen -------------------------------------------------------------------


def check_head_trains(assignment: TrialAssignment) -> None:
    """The head moves in every epoch, at its own rate."""
    trial = FineTuning(assignment)
    for _ in range(2):
        before = snapshot(trial.model)
        report = trial.step()
        head = {name for name in before if name.startswith("head.")}
        assert head and head <= changed_since(trial.model, before)
        assert report.metrics["lr_head"] == assignment.config.head_lr
    trial.close()


@pytest.mark.parametrize(("depth", "policy"), [(0, "frozen"), (0, "stats"), (2, "adapt"), (5, "train")])
def test_new_head_frozen(pretrained: Assign, depth: int, policy: str) -> None:
    check_head_trains(pretrained(depth=depth, policy=policy))


def test_new_head_frozen_would_be_noticed(pretrained: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    freeze = StagedModel.freeze

    def freeze_all(model: StagedModel, depth: int, policy: str | None) -> None:
        freeze(model, depth, policy)
        model.head.requires_grad_(False)

    monkeypatch.setattr(StagedModel, "freeze", freeze_all)
    with pytest.raises(AssertionError, match="the new head must train"):
        check_head_trains(pretrained(depth=2))


# --- a learning rate so high that the pretrained features are distorted ----------------------


class Silent:
    """A reporter that never stops a trial."""

    def report(self, report: EpochReport) -> Decision:
        return Decision.CONTINUE


def check_distorted(assignment: TrialAssignment) -> None:
    """The first epoch ends the trial, and the reason says what happened."""
    outcome = run_trial(assignment, Silent())
    assert (outcome.state, outcome.reason, outcome.epochs_run) == (TrialState.PRUNED, "diverged", 0)
    assert "the pretrained features are distorted" in outcome.error and "learning rate is too high" in outcome.error
    assert "after epoch 1" in outcome.error and "drift" in outcome.error and "training loss" in outcome.error


@pytest.mark.parametrize(("optimizer", "backbone_lr"), [("adamw", 1.0), ("sgd", 100.0)])
def test_features_distorted(pretrained: Assign, optimizer: str, backbone_lr: float) -> None:
    check_distorted(pretrained(depth=2, policy="frozen", optimizer=optimizer, backbone_lr=backbone_lr))


def test_features_distorted_would_be_noticed(pretrained: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feature_collapse, "_DISTORTED_DRIFT", 2.0)
    with pytest.raises(AssertionError):
        check_distorted(pretrained(depth=2, policy="frozen", backbone_lr=1.0))


@pytest.mark.parametrize("policy", ["frozen", "train", "stats"])
def test_a_low_rate_destroys_nothing_and_its_drift_is_told(pretrained: Assign, policy: str) -> None:
    trial = FineTuning(pretrained(depth=2, policy=policy, backbone_lr=1e-5, head_lr=1e-5))
    first, second = trial.step(), trial.step()
    trial.close()
    assert 0 <= first.metrics["feature_drift"] < 0.2 and "feature_drift" not in second.metrics


def test_random_weights_and_heads_alone_have_no_features_to_destroy(assign: Assign, pretrained: Assign) -> None:
    for assignment in (assign("a", depth=2, backbone_lr=1.0), pretrained("b", depth=0, head_lr=10.0)):
        trial = FineTuning(assignment)
        assert "feature_drift" not in trial.step().metrics
        trial.close()


def test_a_progressive_trial_is_watched_from_where_its_backbone_begins(pretrained: Assign) -> None:
    more = {"depth": 2, "policy": "frozen", "unfreeze_schedule": "progressive"}
    trial = FineTuning(pretrained("low", backbone_lr=1e-5, **more))
    drifts = ["feature_drift" in trial.step().metrics for _ in range(3)]
    trial.close()
    assert drifts == [False, True, False]
    trial = FineTuning(pretrained("high", optimizer="sgd", backbone_lr=3000.0, **more))  # 300 is near the limit
    trial.step()
    with pytest.raises(Diverged, match="after epoch 2"):
        trial.step()
    trial.close()


# --- class order changed at inference --------------------------------------------------------


def check_class_order(assignment: TrialAssignment) -> None:
    """Labels are the checkpoint's own, data in another order are refused, and so is a reordered checkpoint."""
    outcome = run_trial(assignment, Silent())
    folder = Path(assignment.directory) / "best"
    model, index = load_model(folder), load_index(assignment.setup.data)
    assert model.classes == index.classes == ("blue", "green", "red")
    assert accuracy_on(model, index, "val") == outcome.best_value
    labels = [index.classes[label] for label in index.splits["val"].labels]
    found = predict(model, [Path(index.root) / key for key in index.splits["val"].keys])
    hits = [prediction.label == label for prediction, label in zip(found, labels, strict=True)]
    assert sum(hits) / len(hits) == outcome.best_value

    for other in (("red", "green", "blue"), ("blue", "green", "yellow"), ("blue", "green")):
        with pytest.raises(DataError, match="its own classes in its own order"):
            accuracy_on(model, replace(index, classes=other), "val")
    content = json.loads((folder / "checkpoint.json").read_text())
    (folder / "checkpoint.json").write_text(json.dumps(content | {"classes": content["classes"][::-1]}))
    with pytest.raises(StorageError, match="class_to_idx"):
        load_model(folder)


def test_class_order_changed_at_inference(pretrained: Assign) -> None:
    check_class_order(pretrained())


@pytest.mark.parametrize("guard", ["data", "checkpoint"])
def test_class_order_changed_at_inference_would_be_noticed(
    pretrained: Assign, monkeypatch: pytest.MonkeyPatch, guard: str
) -> None:
    if guard == "data":
        monkeypatch.setattr(predictor, "check_classes", lambda *_: None)
    else:
        monkeypatch.setattr(checkpoint_meta, "_adapter", lambda: TypeAdapter(checkpoint_meta._Form))
    with pytest.raises(pytest.fail.Exception, match="DID NOT RAISE"):
        check_class_order(pretrained())


# --- random validation transforms ------------------------------------------------------------


def check_validation(assignment: TrialAssignment) -> None:
    """Two evaluations of one model are equal to the bit, and a trial's equals a plain one's."""
    trial = FineTuning(assignment)
    parts = trial._parts
    with seen_by_the_model(trial.model) as batches:
        first, second = (evaluate(trial.model, parts.val, parts.runtime, depth=parts.trainer.depth) for _ in range(2))
    trial.close()
    assert first.metrics == second.metrics
    if batches:  # else it reads features, which stand still by themselves
        assert torch.equal(batches[0], batches[1])


@pytest.mark.parametrize("depth", [0, 5])
@pytest.mark.parametrize("stored", [True, False])
def test_random_validation_transforms(pretrained: Assign, depth: int, stored: bool) -> None:
    policy = "train" if depth else "frozen"
    check_validation(pretrained(depth=depth, policy=policy, augmentation="strong", mixup=0.5, stored=stored))


def test_random_validation_transforms_would_be_noticed(pretrained: Assign, monkeypatch: pytest.MonkeyPatch) -> None:
    ready = PixelSource.ready

    def shaken(self: PixelSource, rows: Tensor, index: Tensor, generator: torch.Generator | None) -> Tensor:
        calls.append(1)
        chance = generator or torch.Generator().manual_seed(len(calls))
        return ready(replace(self, augmentation="light"), rows, index, chance)

    calls: list[int] = []
    monkeypatch.setattr(PixelSource, "ready", shaken)
    with pytest.raises(AssertionError):
        check_validation(pretrained(depth=5, policy="train"))


# --- batch norm ignored ------------------------------------------------------------------------


def check_batch_norm(assignment: TrialAssignment) -> None:
    """What moves in batch norm is what the policy says, in trainable and in frozen stages."""
    depth, policy = assignment.config.unfreeze_depth, assignment.config.bn_policy
    trial = FineTuning(assignment)
    before = snapshot(trial.model)
    layers = [name for name, module in trial.model.named_modules() if isinstance(module, nn.BatchNorm2d)]
    trainable = {name for name in layers if name.split(".")[0] in PART_NAMES[5 - depth :]}
    moving = {"frozen": set(), "adapt": set(), "train": trainable, "stats": set(layers)}[str(policy)]
    affine = trainable if policy in ("train", "stats") else set()
    expected = {f"{name}.{key}" for name in moving for key in ("running_mean", "running_var", "num_batches_tracked")}
    expected |= {f"{name}.{key}" for name in affine for key in ("weight", "bias")}
    trial.step()
    found = {name for name in changed_since(trial.model, before) if name.rpartition(".")[0] in layers}
    assert found == expected
    groups = trial._parts.trainer.optimizer.param_groups
    parameters = dict(trial.model.named_parameters())
    decayed = {id(p) for group in groups if group["weight_decay"] > 0 for p in group["params"]}
    assert not {f"{name}.weight" for name in layers if id(parameters[f"{name}.weight"]) in decayed}
    trial.close()


@pytest.mark.parametrize("policy", ["frozen", "train", "adapt", "stats"])
@pytest.mark.parametrize("depth", [2, 5])
def test_batch_norm_ignored(pretrained: Assign, depth: int, policy: str) -> None:
    check_batch_norm(pretrained(depth=depth, policy=policy, stored=False))


@pytest.mark.parametrize("policy", ["frozen", "train", "adapt", "stats"])
def test_batch_norm_ignored_would_be_noticed(pretrained: Assign, monkeypatch: pytest.MonkeyPatch, policy: str) -> None:
    if policy == "stats":  # frozen stages in eval mode as a whole, as if statistics were ordinary buffers
        monkeypatch.setattr(Part, "train", lambda part, mode=True: nn.Sequential.train(part, mode and not part.frozen))
    else:
        monkeypatch.setattr(Part, "train", nn.Sequential.train)
    monkeypatch.setattr("tlsearch.trial.feature_collapse._DISTORTED_DRIFT", math.inf)  # the mistake distorts features
    with pytest.raises((AssertionError, FrozenMoved)):
        check_batch_norm(pretrained(depth=2, policy=policy, stored=False))

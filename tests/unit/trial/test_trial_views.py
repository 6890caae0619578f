"""Fixed augmented views: the same images for every trial, from stored features or from pixels."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tlsearch.core.types import CacheSpec, EpochReport, TrialAssignment, repeatable
from tlsearch.model import PART_NAMES, StagedModel
from tlsearch.train import FeatureSource, PixelSource, ViewSource, write_soft_targets
from tlsearch.train.loop.evaluation import predict_logits
from tlsearch.trial import FineTuning, finetuning, release_held
from tlsearch.trial import inputs as sources
from tlsearch.trial.context import Phase, TrialContext

Assign = Callable[..., TrialAssignment]
TRAIN, VAL = 30, 21


@pytest.fixture(autouse=True)
def _maps_pay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "_not_worth", lambda model, context, depth: None)  # of so small a backbone nothing is


@pytest.fixture
def viewed(assign: Assign) -> Assign:
    """Builds assignments with two views, three epochs and light augmentation unless told otherwise."""

    def build(directory: str = "trial", *, views: int = 2, stored: bool = True, **more: Any) -> TrialAssignment:
        cache = CacheSpec(features_gb=None if stored else 0, views=views)
        setup = {"max_epochs": 3, "cache": cache} | more.pop("setup", {})
        return assign(directory, setup=setup, **({"augmentation": "light"} | more))

    return build


def run(assignment: TrialAssignment) -> tuple[tuple[EpochReport, ...], Tensor]:
    """The reports of all epochs, and the logits of the validation images after them."""
    trial = FineTuning(assignment)
    while trial.epochs_done < assignment.setup.max_epochs:
        trial.step()
    parts = trial._parts
    logits = predict_logits(trial.model, parts.val, parts.runtime, depth=parts.trainer.depth)
    trial.close()
    return tuple(trial.reports), logits


def curve(reports: tuple[EpochReport, ...]) -> list[dict[str, float]]:
    return [{name: v for name, v in report.metrics.items() if repeatable(name)} for report in reports]


def stored_views(tmp_path: Path) -> list[tuple[int, int]]:
    """(depth, view) of the entries of the training images."""
    sidecars = [json.loads(path.read_text())["key"] for path in (tmp_path / "cache/features").glob("*.json")]
    return sorted((key["depth"], key["view"]) for key in sidecars if key["split"] == "train")


@pytest.mark.parametrize(
    ("depth", "policy", "backbone", "more"),
    [
        (0, "frozen", "mobilenet_v3_small", {"augmentation": "strong"}),
        (2, "frozen", "mobilenet_v3_small", {"unfreeze_schedule": "progressive"}),
        pytest.param(1, "frozen", "mobilenet_v2", {}, marks=pytest.mark.slow),
        pytest.param(2, "adapt", "shufflenet_v2_x0_5", {"augmentation": "strong"}, marks=pytest.mark.slow),
        pytest.param(4, "train", "mobilenet_v3_small", {}, marks=pytest.mark.slow),
    ],
)
def test_stored_views_give_what_their_pixels_give(
    viewed: Assign, depth: int, policy: str, backbone: str, more: dict[str, Any]
) -> None:
    found = []
    for stored in (True, False):
        reports, logits = run(viewed(f"{stored}", depth=depth, policy=policy, backbone=backbone, stored=stored, **more))
        assert {report.source for report in reports} == {"features" if stored else "pixels"}
        found.append((curve(reports), logits))
    (with_store, features), (without, pixels) = found
    for one, other in zip(with_store, without, strict=True):
        assert one == pytest.approx(other, abs=1e-3)
    assert (features.argmax(1) == pixels.argmax(1)).float().mean() >= 0.995


def test_epochs_rotate_through_the_views_and_say_so(viewed: Assign) -> None:
    reports, _ = run(viewed(views=3, setup={"max_epochs": 4}))
    frozen = "frozen below depth 0: view {} of 3 of augmentation light, computed by this trial"
    assert [report.source_reason for report in reports] == [frozen.format(view) for view in (1, 2, 3, 1)]
    reports, _ = run(viewed("pixels", views=3, stored=False, setup={"max_epochs": 4}))
    why = "cache.features_gb is 0; view {} of 3 of augmentation light"
    assert [report.source_reason for report in reports] == [why.format(view) for view in (1, 2, 3, 1)]


@pytest.mark.parametrize("depth", [0, 5])
def test_soft_targets_belong_to_the_view_that_the_epoch_reads(viewed: Assign, tmp_path: Path, depth: int) -> None:
    file = tmp_path / "targets.safetensors"
    targets = {view: torch.full((TRAIN, 3), 1 / 3) + view * torch.tensor([0.1, 0.0, -0.1]) for view in (1, 2)}
    write_soft_targets(file, targets, made_from="a test")
    trial = FineTuning(viewed(depth=depth, setup={"soft_targets": str(file)}))
    for view in (1, 2, 1):  # at depth 5, too, where every epoch draws its own view otherwise
        trial.step()
        learned = trial._parts.train.targets
        assert learned is not None and torch.equal(learned, targets[view])
    assert trial._parts.val.targets is None
    trial.close()


def test_each_view_shows_other_images(viewed: Assign) -> None:
    trial = FineTuning(viewed(views=3, setup={"max_epochs": 4}))
    rows = []
    for _ in range(3):
        trial.step()
        rows.append(torch.as_tensor(trial._parts.train.rows).clone())
    trial.close()
    assert not torch.equal(rows[0], rows[1]) and not torch.equal(rows[0], rows[2]) and not torch.equal(rows[1], rows[2])


@pytest.mark.slow
def test_another_seed_batch_size_and_number_of_views_share_them(
    viewed: Assign, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    weights = {"state": None}  # random weights follow the seed: the second trial takes those of the first
    real = sources._key

    def key(context: TrialContext, phase: Phase, split: str) -> object:
        found = real(context, phase, split)
        weights["state"] = weights["state"] or found.state_digest
        return sources.replace(found, state_digest=weights["state"])

    monkeypatch.setattr(sources, "_key", key)
    run(viewed("first", views=4))
    release_held()

    def fail(*_: object, **__: object) -> None:
        pytest.fail("computed twice")

    monkeypatch.setattr(sources, "_pass", fail)
    for views in (4, 3):
        reports, _ = run(viewed(f"{views}", views=views, seed=2, batch_size=16, head_lr=1e-3))
        assert all(report.source_reason.endswith("of augmentation light, shared") for report in reports)
    assert stored_views(tmp_path) == [(0, 1), (0, 2), (0, 3)]


def test_pixels_of_a_view_do_not_depend_on_the_seed(viewed: Assign) -> None:
    drawn = []
    for seed in (1, 2):
        trial = FineTuning(viewed(f"{seed}", stored=False, seed=seed))
        assert isinstance(trial._parts.train, ViewSource)
        drawn.append(trial._parts.train.drawn)
        trial.close()
    first, second = drawn
    assert torch.equal(first.boxes, second.boxes) and torch.equal(first.flips, second.flips)


def test_only_the_views_that_epochs_need_are_built(viewed: Assign, tmp_path: Path) -> None:
    trial = FineTuning(viewed(views=3, setup={"max_epochs": 4}))
    assert stored_views(tmp_path) == [(0, 1)]
    trial.step()
    trial.step()
    assert stored_views(tmp_path) == [(0, 1), (0, 2)]
    trial.close()
    release_held()
    run(viewed("short", views=3, setup={"max_epochs": 2}))
    assert stored_views(tmp_path) == [(0, 1), (0, 2)]


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
    yield images


@pytest.mark.parametrize("order", [(0, 2, 1), pytest.param((2, 0, 1), marks=pytest.mark.slow)])
def test_no_part_sees_a_view_of_an_image_twice(viewed: Assign, seen: Counter[str], order: tuple[int, ...]) -> None:
    for depth in order:
        run(viewed(f"trial{depth}", depth=depth, setup={"depths": (0, 1, 2)}))
        release_held()
    assert seen == dict.fromkeys(PART_NAMES[:5], 2 * TRAIN + VAL)


@pytest.mark.parametrize(
    ("depth", "more", "stored"),
    [
        (0, {}, True),
        pytest.param(1, {"augmentation": "strong"}, False, marks=pytest.mark.slow),
        pytest.param(2, {"unfreeze_schedule": "progressive"}, True, marks=pytest.mark.slow),
    ],
)
def test_going_on_repeats_the_curve_to_the_bit(
    viewed: Assign, monkeypatch: pytest.MonkeyPatch, depth: int, more: dict[str, Any], stored: bool
) -> None:
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)

    def assignment(name: str) -> TrialAssignment:
        return viewed(name, views=3, depth=depth, policy="frozen", stored=stored, **more)

    expected = curve(run(assignment("straight"))[0])
    for done in range(3):
        interrupted = FineTuning(assignment("interrupted"))
        assert interrupted.epochs_done == done
        interrupted.step()
        del interrupted  # as a killed worker: never closed
        release_held()
    resumed = FineTuning(assignment("interrupted"))
    assert curve(tuple(resumed.reports)) == expected
    resumed.close()


def test_a_trial_that_goes_on_elsewhere_builds_no_view_of_the_past(
    viewed: Assign, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)
    trial = FineTuning(viewed(views=4))
    trial.step()
    trial.step()
    del trial
    release_held()
    for path in (tmp_path / "cache/features").iterdir():
        path.unlink()  # as on another node
    resumed = FineTuning(viewed(views=4))
    assert resumed.epochs_done == 2
    assert stored_views(tmp_path) == [(0, 3)]
    resumed.close()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"mixup": 0.2}, "mixup: images are mixed before they enter"),
        pytest.param({"cutmix": 1.0}, "cutmix: images are mixed before they enter", marks=pytest.mark.slow),
        pytest.param({"depth": 5, "policy": "train"}, "depth 5: everything trains", marks=pytest.mark.slow),
        ({"policy": "stats"}, "bn_policy stats"),
    ],
)
def test_where_features_could_never_be_stored_every_epoch_is_augmented_anew(
    viewed: Assign, changes: dict[str, Any], reason: str
) -> None:
    reports = []
    for views in (1, 2):
        trial = FineTuning(viewed(f"{views}", views=views, **changes))
        report = trial.step()
        assert type(trial._parts.train) is PixelSource
        assert report.source == "pixels"
        reports.append(report)
        trial.close()
    assert curve((reports[0],)) == curve((reports[1],))
    assert reports[1].source_reason.startswith(reason)


@pytest.mark.slow
def test_a_progressive_trial_to_the_bottom_leaves_the_views_with_its_last_phase(viewed: Assign) -> None:
    more = {"depth": 5, "policy": "train", "unfreeze_schedule": "progressive", "setup": {"max_epochs": 6}}
    reports, _ = run(viewed(**more))
    assert [report.source for report in reports] == ["features"] * 5 + ["pixels"]
    views = [report.source_reason.split("view ")[1][0] for report in reports[:5]]
    assert views == ["1", "2", "1", "2", "1"]
    assert reports[5].source_reason == "depth 5: everything trains, nothing is frozen"


def test_without_augmentation_there_are_no_views(viewed: Assign, tmp_path: Path) -> None:
    reports, _ = run(viewed(augmentation="none"))
    assert {report.source_reason for report in reports} == {"frozen below depth 0: computed by this trial"}
    assert stored_views(tmp_path) == [(0, 0)]


def test_views_that_do_not_fit_together_are_not_stored_at_all(viewed: Assign, tmp_path: Path) -> None:
    one = TRAIN * 1024 * 4  # bytes of the pooled features of a view, of which three epochs need three at most
    # The 21 validation images take 0.7 more, and are in use all the time.
    for views, room, source in ((2, 2.8, "features"), (4, 2.8, "pixels")):
        cache = CacheSpec(directory=str(tmp_path / f"cache-{views}"), features_gb=room * one / 1e9, views=views)
        reports, _ = run(viewed(f"{views}", setup={"cache": cache}))
        assert {report.source for report in reports[:views]} == {source}
    assert "the features need 0.000369 GB; the feature store may hold 0.000344 GB; view 1 of 4" in (
        reports[0].source_reason
    )


@pytest.mark.slow
def test_images_decoded_on_the_fly_show_the_same_views(viewed: Assign, tmp_path: Path) -> None:
    curves = []
    for name, images_gb in (("packed", None), ("streamed", 0.0)):
        cache = CacheSpec(directory=str(tmp_path / f"cache-{name}"), images_gb=images_gb, features_gb=0, views=2)
        curves.append(curve(run(viewed(name, depth=1, augmentation="strong", setup={"cache": cache}))[0]))
        release_held()
    assert curves[0] == curves[1]


@pytest.mark.slow
def test_the_probe_and_adapted_statistics_are_those_of_the_plain_images(viewed: Assign, tmp_path: Path) -> None:
    for views in (1, 3):
        run(viewed(f"{views}", views=views, depth=1, policy="adapt", head_init="probe"))
    keys = [json.loads(path.read_text())["key"] for path in (tmp_path / "cache/solutions").glob("*.json")]
    assert len(keys) == 2, "one of each kind, whatever the views"
    assert {(key["of"]["augmentation"], key["of"]["view"]) for key in keys} == {("none", 0)}


def test_features_have_no_drawing(viewed: Assign) -> None:
    trial = FineTuning(viewed())
    assert type(trial._parts.train) is FeatureSource
    trial.close()

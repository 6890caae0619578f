"""What the search relies on in a trial: the real fine-tuning and the replayed one behave the same."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from search_doubles import drive
from twice import prepared_plan, told

from tlsearch.core.errors import Diverged, UserError
from tlsearch.core.types import EpochReport, RunningTrial, TrialAssignment, TrialConfig, TrialFactory, repeatable
from tlsearch.search import SearchPlan, read_search
from tlsearch.testing.replay import Curve, Curves, Replay, ReplayedTrial, read_curves, write_curves
from tlsearch.trial import FineTuning, finetuning, release_held

CONFIGS = (
    TrialConfig(backbone="mobilenet_v3_small", unfreeze_depth=0, head_lr=1e-2, bn_policy="frozen"),
    TrialConfig(
        backbone="mobilenet_v3_small",
        unfreeze_depth=1,
        head_lr=1e-2,
        backbone_lr=1e-3,
        bn_policy="train",
        unfreeze_schedule="at_once",
    ),
)
SEEDS = (7, 8)


def record(trial: RunningTrial, config: TrialConfig, seed: int, max_epochs: int) -> Curve:
    while trial.epochs_done < max_epochs:
        trial.step()
    names = trial.reports[0].metrics
    columns = {name: tuple(report.metrics[name] for report in trial.reports) for name in names}
    trial.close()
    sources = tuple(report.source for report in trial.reports)
    return Curve(config=config, seed=seed, max_epochs=max_epochs, columns=columns, sources=sources)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> SearchPlan:
    with pytest.MonkeyPatch.context() as patch:
        root = tmp_path_factory.mktemp("contract")
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))
        plan = prepared_plan(root, "one")
        return replace(plan, setup=replace(plan.setup, cache=replace(plan.setup.cache, directory=str(root / "cache"))))


@pytest.fixture(scope="module")
def curves_path(plan: SearchPlan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The curves of real trials of these configurations and seeds."""
    root = tmp_path_factory.mktemp("recorded")
    curves = []
    for config in CONFIGS:
        for seed in SEEDS:
            directory = str(root / f"{config.unfreeze_depth}-{seed}")
            trial = FineTuning(
                TrialAssignment(number=0, seed=seed, config=config, setup=plan.setup, directory=directory)
            )
            curves.append(record(trial, config, seed, plan.setup.max_epochs))
    write_curves(root / "curves.json", Curves(curves=tuple(curves), about={"data": "shapes"}))
    return root / "curves.json"


@pytest.fixture(params=["real", "replayed"])
def factory(
    request: pytest.FixtureRequest, curves_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TrialFactory]:
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 0.0)
    yield FineTuning if request.param == "real" else Replay(path=str(curves_path))
    release_held()


@pytest.fixture(params=CONFIGS, ids=["head", "deeper"])
def assign(request: pytest.FixtureRequest, plan: SearchPlan, tmp_path: Path) -> Callable[..., TrialAssignment]:
    def build(folder: str = "trial", seed: int = SEEDS[0]) -> TrialAssignment:
        return TrialAssignment(
            number=3, seed=seed, config=request.param, setup=plan.setup, directory=str(tmp_path / folder)
        )

    return build


def figures(report: EpochReport) -> dict[str, float]:
    return {name: value for name, value in report.metrics.items() if repeatable(name)}


def finish(trial: RunningTrial, max_epochs: int = 3) -> list[dict[str, float]]:
    while trial.epochs_done < max_epochs:
        trial.step()
    found = [figures(report) for report in trial.reports]
    trial.close()
    return found


Assign = Callable[..., TrialAssignment]


def test_a_fresh_trial_counts_its_epochs(factory: TrialFactory, assign: Assign) -> None:
    trial = factory(assign())
    assert trial.epochs_done == 0 and len(trial.reports) == 0
    for epoch in (1, 2, 3):
        report = trial.step()
        assert report.epoch == epoch == trial.epochs_done
        assert trial.reports[-1] == report and [r.epoch for r in trial.reports] == list(range(1, epoch + 1))
        assert all(math.isfinite(value) for value in report.metrics.values())
        assert {"train_loss", "train_accuracy", "val_loss", "val_accuracy"} <= report.metrics.keys()
        assert report.source in ("features", "pixels") and report.timestamp > 1e9
    with pytest.raises(AssertionError, match="a trial of 3 epochs has no epoch 4"):
        trial.step()
    trial.close()
    trial.close()


def test_the_seed_decides_all(factory: TrialFactory, assign: Assign) -> None:
    first, again, other = (finish(factory(assign(folder, seed))) for folder, seed in (("a", 7), ("b", 7), ("c", 8)))
    assert first == again and first != other


def test_real_and_replayed_curves_are_equal(assign: Assign, curves_path: Path) -> None:
    for seed in SEEDS:
        assert finish(FineTuning(assign("real", seed))) == finish(Replay(path=str(curves_path))(assign("told", seed)))


@pytest.mark.parametrize("epochs", [1, 2])
def test_a_trial_goes_on_from_its_checkpoint(factory: TrialFactory, assign: Assign, epochs: int) -> None:
    whole = finish(factory(assign("whole")))
    trial = factory(assign())
    for _ in range(epochs):
        last = trial.step()
    trial.close()
    resumed = factory(assign())
    assert resumed.epochs_done == epochs and resumed.reports[-1] == last
    assert resumed.step().epoch == epochs + 1
    assert finish(resumed) == whole


def test_a_worker_that_died_left_a_checkpoint_of_its_last_report(factory: TrialFactory, assign: Assign) -> None:
    trial = factory(assign())
    last = trial.step()  # never closed
    assert list((Path(assign().directory) / "running").iterdir())
    assert factory(assign()).reports[-1] == last


def test_a_trial_that_is_told_to_save_loses_no_epoch(
    factory: TrialFactory, assign: Assign, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = finish(factory(assign("whole")))
    monkeypatch.setattr(finetuning, "RUNNING_INTERVAL_S", 1e9)
    trial = factory(assign())
    trial.save()  # no epoch is done: nothing to write
    assert factory(assign()).epochs_done == 0
    for epoch in (1, 2):
        last = trial.step()
        trial.save()
        trial.save()
        assert factory(assign()).epochs_done == epoch
    again = factory(assign())
    assert again.reports[-1] == last
    assert finish(again) == whole


def test_a_checkpoint_of_another_trial_is_not_taken(factory: TrialFactory, assign: Assign) -> None:
    trial = factory(assign())
    trial.step()
    trial.close()
    assert factory(assign(seed=8)).epochs_done == 0
    longer = assign()
    shorter = replace(longer, setup=replace(longer.setup, max_epochs=2))
    assert factory(shorter).epochs_done == 0


def test_a_damaged_checkpoint_costs_time_only(factory: TrialFactory, assign: Assign) -> None:
    trial = factory(assign())
    trial.step()
    trial.close()
    for path in (Path(assign().directory) / "running").glob("*.json"):
        path.write_text(path.read_text()[:-20])
    again = factory(assign())
    assert again.epochs_done == 0 and again.step().epoch == 1


def test_a_closed_trial_takes_no_step(factory: TrialFactory, assign: Assign) -> None:
    trial = factory(assign())
    trial.close()
    with pytest.raises(AssertionError, match="closed"):
        trial.step()


def test_a_search_of_replayed_trials_is_the_recorded_search(plan: SearchPlan, tmp_path: Path) -> None:
    """The same study, whichever factory: every proposal, report, decision and end."""
    real = replace(plan, directory=str(tmp_path / "real"))
    assert drive(real, factory=FineTuning) == "finished"
    trials = read_search(tmp_path / "real").trials
    curves = []
    for trial in trials:
        columns = {name: tuple(r.metrics[name] for r in trial.reports) for name in trial.reports[0].metrics}
        sources = tuple(report.source for report in trial.reports)
        curves.append(Curve(config=trial.config, seed=trial.seed, max_epochs=3, columns=columns, sources=sources))
    write_curves(tmp_path / "curves.json", Curves(curves=tuple(curves)))
    replayed = replace(plan, directory=str(tmp_path / "replayed"))
    assert drive(replayed, factory=Replay(path=str(tmp_path / "curves.json"))) == "finished"
    assert told(read_search(tmp_path / "replayed")) == told(read_search(tmp_path / "real"))


def test_curves_are_written_and_read_to_the_bit(curves_path: Path, tmp_path: Path) -> None:
    curves = read_curves(curves_path)
    assert len(curves.curves) == 4 and curves.about == {"data": "shapes"}
    write_curves(tmp_path / "again.json", curves)
    assert read_curves(tmp_path / "again.json") == curves
    assert len((tmp_path / "again.json").read_text().splitlines()) == 6  # a line for each curve
    (tmp_path / "again.json").write_text('{"format": 9}')
    with pytest.raises(UserError, match="must hold recorded curves: its format is 9"):
        read_curves(tmp_path / "again.json")


def test_the_nearest_configuration_is_replayed(curves_path: Path, plan: SearchPlan, tmp_path: Path) -> None:
    curves = read_curves(curves_path)
    head, deeper = CONFIGS
    assert curves.nearest(replace(head, head_lr=3e-2), 8) == curves.curves[1]
    assert curves.nearest(replace(deeper, unfreeze_depth=4, backbone_lr=1e-2)).config == deeper
    assert curves.nearest(head, 1234).config == head
    with pytest.raises(UserError, match="no curve of resnet18"):
        curves.nearest(replace(head, backbone="resnet18"))
    longer = TrialAssignment(
        number=0, seed=7, config=head, setup=replace(plan.setup, max_epochs=4), directory=str(tmp_path)
    )
    with pytest.raises(UserError, match="trials of 4 epochs cannot be replayed from curves of 3"):
        Replay(path=str(curves_path))(longer)


def test_a_curve_that_diverged_diverges_again(plan: SearchPlan, tmp_path: Path) -> None:
    columns = {"val_accuracy": (0.4, 0.2), "val_loss": (1.0, 2.0)}
    curve = Curve(config=CONFIGS[0], seed=1, max_epochs=5, columns=columns, diverged_s=0.5)
    assignment = TrialAssignment(number=0, seed=1, config=CONFIGS[0], setup=plan.setup, directory=str(tmp_path))
    trial = ReplayedTrial(assignment, curve)
    assert [trial.step().epoch, trial.step().epoch] == [1, 2]
    with pytest.raises(Diverged, match="epoch 3"):
        trial.step()


def test_a_replayed_search_in_a_study_agrees_with_its_log(plan: SearchPlan, curves_path: Path, tmp_path: Path) -> None:
    replayed: Any = replace(plan, directory=str(tmp_path / "s"), search=replace(plan.search, trials=30))
    config = json.loads(curves_path.read_text())["curves"][0]["config"]
    assert config["backbone"] == "mobilenet_v3_small"
    curves = read_curves(curves_path)
    both = curves.curves + tuple(replace(c, config=replace(c.config, backbone="squeezenet1_1")) for c in curves.curves)
    write_curves(tmp_path / "both.json", Curves(curves=both))
    assert drive(replayed, slots=4, factory=Replay(path=str(tmp_path / "both.json"))) == "finished"
    assert len(read_search(tmp_path / "s").trials) == 30

"""What ``plan`` says of a small search on this machine, and what it refuses."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from small_search import SPACE, write_shapes

from tlsearch.app.checks import unstarted_search
from tlsearch.app.checks.planning import ForecastBeside, plan_file
from tlsearch.app.checks.unstarted_search import local_slots, unstarted_plan
from tlsearch.cli.tables.plan_lines import plan_lines
from tlsearch.config import ResourcesSpec
from tlsearch.core.errors import SpaceError, UserError
from tlsearch.core.types import ModelSpec
from tlsearch.data import load_index
from tlsearch.forecast.stored_entries import stored_entries
from tlsearch.forecast.trial_costs import screen_cost
from tlsearch.space import load
from tlsearch.trial import FineTuning

SEARCHED = """
name: shapes
data: {source: folder, path: ./images, image_size: 32}
weights: {mobilenet_v3_small: none}
space:
  backbone: mobilenet_v3_small
  unfreeze_depth: {int: [0, 1]}
  bn_policy: [frozen, train]
  augmentation: [none, light]
  head_init: probe
search: {trials: 3, max_epochs: 2}
"""


def _spec(backbone: str, image_size: int = 32) -> ModelSpec:
    return ModelSpec(backbone=backbone, num_classes=3, image_size=image_size)


@pytest.fixture
def space(tmp_path: Path) -> Path:
    write_shapes(tmp_path / "images")
    (tmp_path / "space.yaml").write_text(SEARCHED)
    return tmp_path / "space.yaml"


@pytest.mark.parametrize(
    ("objectives", "num_kept"), [("", 3), (", objectives: [val_accuracy, params_millions]", 3 + 4)]
)
def test_the_disk_holds_the_models_of_the_front(
    space: Path, monkeypatch: pytest.MonkeyPatch, objectives: str, num_kept: int
) -> None:
    """One trial at most of each of five models is on the front, and the best trial is among the others, too."""
    seen: dict[str, int] = {}
    monkeypatch.setattr(unstarted_search, "measure", lambda *_, **options: seen.update(options))
    text = SEARCHED.replace("max_epochs: 2", f"max_epochs: 2{objectives}").replace(", image_size: 32", "")
    space.write_text(text.replace("space:\n", "space:\n  image_size: [32, 40, 48, 56, 64]\n"))
    file, parsed = load(space)
    index, slots = load_index(file.data), local_slots(file.resources)
    plan = unstarted_plan(file, parsed, index, slots)
    unstarted_search.measure_search(file, plan, index, slots)
    assert seen["num_kept"] == num_kept


def test_the_report_has_what_is_published(space: Path, tmp_path: Path) -> None:
    report = plan_file(space)
    plain = report.as_json()
    assert plain["wall_s"]["low"] <= plain["wall_s"]["median"] <= plain["wall_s"]["high"]
    assert plain["without_features_s"]["median"] > 0 and plain["trials"] == 3 and plain["rungs"].keys() == {"1", "2"}
    assert plain["gpu_hours"] == 0 < plain["core_hours"]
    sides = 18 * (32**2 + 37**2) + 24 * 32**2  # train with and without room for crops, val
    assert plain["disk_bytes"]["images"] == 3 * sides and plain["cached_entries"] == 0
    times = report.measured.costs.models[_spec("mobilenet_v3_small")]
    assert times.train_s[1] > times.train_s[0] > 0 and times.moving_factor > 0.3
    assert times.activation_bytes[1] > times.activation_bytes[0]
    lines = list(plan_lines(report))
    assert lines[0].startswith("expected time: ") and any(line.startswith("without cached") for line in lines)
    assert not (tmp_path / "cache").exists()

    largest = max(report.measured.trial_bytes.values())
    assert not any("search.stop" in line for line in lines) and not plain["may_stop"]
    assert any("search.stop: auto may end the search" in line for line in plan_lines(replace(report, may_stop=True)))
    packed = replace(report, slots=replace(report.slots, gpus=1.0, packed_bytes=6 * largest + 3_000_000_000))
    assert packed.as_json()["trials_per_gpu"] == 4 and plain["trials_per_gpu"] == 1  # with what CUDA takes of each
    assert any("holds 4 such trials by its memory" in line for line in plan_lines(packed))


def test_entries_of_an_earlier_search_are_counted(space: Path, tmp_path: Path) -> None:
    from tlsearch.core.types import TrialAssignment

    file, searched = load(space)
    config = searched.to_config(searched.complete({}))
    setup = file.trial_setup()
    FineTuning(TrialAssignment(number=0, seed=0, config=config, setup=setup, directory=str(tmp_path / "t"))).close()
    costs = plan_file(space).measured.costs
    node = stored_entries(setup.cache, load_index(file.data), costs)
    kinds = [key[0] for key in node.stored]  # type: ignore[index]
    assert sorted(kinds) == ["features", "features", "images", "images", "linear"]
    assert costs.opened(config, node, 0.0) < costs.opened(config, type(node)(), 0.0)


def test_a_listed_search_is_planned_as_it_is_listed(tmp_path: Path) -> None:
    write_shapes(tmp_path / "images")
    (tmp_path / "space.yaml").write_text(SPACE.format(more=""))
    report = plan_file(tmp_path / "space.yaml", overrides=["cache.features_gb=0"])
    assert report.without_cache is None and report.with_cache.trials == 3 and report.with_cache.mean_epochs == 2
    assert report.measured.costs.models.keys() == {_spec("mobilenet_v3_small"), _spec("resnet18")}


def test_a_limit_that_no_backbone_keeps_is_an_error_with_its_place(space: Path) -> None:
    with pytest.raises(SpaceError, match="no backbone of the space"):
        plan_file(space, overrides=["search.constraints.params_millions.max=0.1"])


def test_slots_follow_the_machine_and_the_file() -> None:
    assert local_slots(ResourcesSpec(max_concurrent=1)).count == 1
    with pytest.raises(UserError, match="resources.cpus_per_trial"):
        local_slots(ResourcesSpec(cpus_per_trial=4096))


def test_a_run_has_its_forecast_beside_it(space: Path) -> None:
    file, searched = load(space)
    index = load_index(file.data)
    begun = ForecastBeside(file, lambda: searched, index)
    stopped = ForecastBeside(file, lambda: searched, index)
    begun.begin()
    begun.begin()
    stopped.stop()
    stopped.begin()
    assert sum(thread.name == "forecast" for thread in threading.enumerate()) == 1
    for thread in threading.enumerate():
        if thread.name == "forecast":
            thread.join()
    made = begun()
    assert made is not None and made.trials == 3 and made.work_left_s(0, 3) > 0 and stopped() is None


def test_each_image_size_is_timed_and_stored(space: Path) -> None:
    text = SEARCHED.replace(", image_size: 32", "")
    text = text.replace("unfreeze_depth: {int: [0, 1]}", "image_size: [32, 64, 128]")
    space.write_text(text.replace("[frozen, train]", "frozen").replace("[none, light]", "none"))
    report = plan_file(space)
    costs = report.measured.costs
    specs = [_spec("mobilenet_v3_small", size) for size in (32, 64, 128)]
    assert costs.models.keys() == set(specs)
    least, middle, most = (costs.models[spec].passed_s(5, 0) for spec in specs)
    assert middle == pytest.approx(least + (most - least) / 5)  # of the pixels between
    assert report.as_json()["disk_bytes"]["images"] == 3 * (18 + 24) * (32**2 + 64**2 + 128**2)
    assert report.as_json()["trial_bytes"].keys() == {"mobilenet_v3_small"}


def test_a_screen_is_part_of_the_forecast(space: Path) -> None:
    text = SEARCHED.replace("backbone: mobilenet_v3_small", "backbone: [mobilenet_v3_small, squeezenet1_1]")
    text = text.replace("{mobilenet_v3_small: none}", "{mobilenet_v3_small: none, squeezenet1_1: none}")
    space.write_text(text)
    plain = plan_file(space)
    assert plain.screen is None and plain.as_json()["screen"] is None
    listed = "[mobilenet_v3_small, squeezenet1_1]"
    space.write_text(text.replace(listed, f"{{from: {listed}, screen: true}}"))
    report = plan_file(space)
    shown = report.as_json()["screen"]
    assert (shown["backbones"], shown["images"]) == (2, 18 + 24) and shown["seconds"] > 10
    assert report.with_cache.start_s > shown["seconds"]
    assert any(line.startswith("2 backbones are screened first") for line in plan_lines(report))
    cost, after = screen_cost(
        unstarted_plan(*load(space), load_index(load(space)[0].data), local_slots(ResourcesSpec())),
        report.measured.costs,
        report.measured.stored,
        load_index(load(space)[0].data),
        slots=1,
    )
    assert cost is not None and [key[0] for key in after.stored] == ["features"] * 4  # type: ignore[index]

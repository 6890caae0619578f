"""A search over image sizes, from its space to its models: each trial has its own size wherever it goes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_search import small_search
from soup_search import BACKBONE, write_weights

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.gather_facts import complete_facts
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.app.checks.check_file import check_file
from tlsearch.app.combined import make_ensemble as ensembles
from tlsearch.app.combined.ensemble_costs import EnsembleCosts, Limits
from tlsearch.app.combined.make_ensemble import make_ensemble
from tlsearch.app.combined.make_soup import _candidates
from tlsearch.app.production import choice
from tlsearch.app.production.choice import choose
from tlsearch.app.production.confirm import best_candidates
from tlsearch.app.views.report import write_search_report
from tlsearch.cli.tables.data_tables import backbone_table
from tlsearch.core.types import ModelSpec
from tlsearch.data import load_index
from tlsearch.results import load_model, predict
from tlsearch.results.combine.combination import Member, combined_model
from tlsearch.results.combine.selection import Selected

SPACE = """
name: sizes
data: {source: folder, path: ./images}
weights: {mobilenet_v3_small: ./weights.pth}
space:
  backbone: mobilenet_v3_small
  image_size: [32, 48]
  unfreeze_depth: [0, 1]
  head_lr: {log: [1.0e-5, 1.0e-1]}
  head_init: probe
search:
  trials: 4
  max_epochs: 2
  scheduler: none
  sampler: fixed
  start_with:
    - {image_size: 48, head_lr: 1.0e-5}
    - {image_size: 32, head_lr: 1.0e-5}
    - {image_size: 32, head_lr: 1.0e-2, unfreeze_depth: 1}
    - {image_size: 48, head_lr: 1.0e-2, unfreeze_depth: 1}
"""
SIZES = {0: 48, 1: 32, 2: 32, 3: 48}


@pytest.fixture(scope="module")
def entry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SearchEntry]:
    root = tmp_path_factory.mktemp("sizes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TLSEARCH_STATE_DIR", str(root / "state"))
        patch.setenv("TLSEARCH_CACHE_DIR", str(root / "cache"))
        write_weights(root / "weights.pth")
        yield small_search(root, name="sizes", counts={"train": 8, "val": 12, "test": 4}, space=SPACE)


def test_every_kept_model_has_its_trial_s_size(entry: SearchEntry) -> None:
    record = read_record(entry)
    assert {trial.number: trial.config.image_size for trial in record.trials} == SIZES
    for number, size in SIZES.items():
        model = load_model(entry.path / "trials" / str(number), device="cpu")
        assert model.meta.image_size == model.meta.transform.crop_size == size
    facts = complete_facts(entry, [trial.config for trial in record.trials])
    assert facts.parameters.keys() == {f"{BACKBONE} at {size} px" for size in (32, 48)}


def test_soups_average_one_size_and_equal_heads_of_two_sizes_are_two_models(entry: SearchEntry) -> None:
    record, file = read_record(entry), stored_file(entry, "")[0]
    found = _candidates(record, file, 8)
    assert len(found.trials) > 1 and len({trial.config.image_size for trial in found.trials}) == 1
    kept = best_candidates(record, 8)
    started = [trial.config.image_size for trial in kept if trial.best_epoch == 0]
    assert len(started) == len(set(started))


def test_members_of_an_ensemble_share_parts_at_one_size_alone(
    entry: SearchEntry, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = EnsembleCosts(stored_file(entry, "")[0], 3, read_record(entry).trials)
    alone = costs.parameters([0])
    assert costs.parameters([0, 1]) == 2 * alone and costs.parameters([0, 3]) < 2 * alone
    members = (Member(trial=0, count=1), Member(trial=1, count=1))
    selected = Selected(
        members=members,
        temperatures=(1.0, 1.0),
        value=0.7,
        cross_fitted=0.7,
        best_trial=0,
        best_value=0.6,
        best_cross_fitted=0.6,
        helps=True,
    )
    monkeypatch.setattr(ensembles, "select_ensemble", lambda *_, **__: selected)
    made = make_ensemble(entry)
    assert made.parameters == 2 * alone
    model = load_model(combined_model(entry.path, "ensemble"), device="cpu")
    assert [network.meta.image_size for network in model.networks] == [48, 32]
    image = next((entry.path.parents[1] / "images/test").rglob("*.png"))
    assert sum(one.score for one in predict(model, [image])[0].top) == pytest.approx(1.0, abs=1e-4)


def test_a_limit_on_latency_takes_a_smaller_size(entry: SearchEntry, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[ModelSpec] = []

    def measured(spec: ModelSpec) -> float:
        asked.append(spec)
        return float(spec.image_size or 0)

    monkeypatch.setattr(choice, "measure_latency", measured)
    file = stored_file(entry, "")[0]
    found = choose(entry, file, num_classes=3, trial=None, limits=Limits(latency_ms=40.0), num_val=36)
    assert found.trial.config.image_size == 32 and found.latency.startswith("32.0 ms")
    assert {spec.image_size for spec in asked} <= {32, 48} and len(asked) == len(set(asked))


def test_the_report_has_the_metric_by_size(entry: SearchEntry, tmp_path: Path) -> None:
    found = write_search_report(entry, directory=tmp_path, with_importance=False, with_latency=True, log=False)
    page = found.page.read_text()
    table = page.split("By image size")[1].split("</table>")[0]
    assert re.findall(r"<td[^>]*>(32|48)</td>", table) == ["32", "48"]
    assert ">image_size</text>" in page


def test_check_shows_the_sizes_that_are_searched(entry: SearchEntry) -> None:
    report = check_file(entry.path.parents[1] / "space.yaml")
    (backbone,) = report.backbones
    assert report.ok and backbone.searched_sizes == (32, 48) and backbone.described.image_size == 48
    title = str(backbone_table(backbone).title)
    assert "32, 48 px images (it takes at least 32 px)" in title


def test_the_data_are_the_same_for_all_sizes(entry: SearchEntry) -> None:
    file = stored_file(entry, "")[0]
    assert file.data.image_size is None and len(load_index(file.data).splits["val"]) == 36

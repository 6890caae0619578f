"""Real trials of three tiny backbones in Ray's workers: each is seen in full before any trial goes deeper."""

from __future__ import annotations

from pathlib import Path

import pytest
from preparing import prepare
from search_checks import check_decisions, study_trials
from small_search import write_shapes

from tlsearch.app.searches.execute import search_plan
from tlsearch.app.searches.prepare import RunOptions
from tlsearch.search import read_search, run_search
from tlsearch.search.study.stored_reports import stored_reports

BACKBONES = ("mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5")
SPACE = """
name: shapes
data: {source: folder, path: ./images, image_size: 32}
weights: {mobilenet_v3_small: none, squeezenet1_1: none, shufflenet_v2_x0_5: none}
space:
  backbone: [mobilenet_v3_small, squeezenet1_1, shufflenet_v2_x0_5]
  unfreeze_depth: {int: [0, 5]}
  head_lr: {log: [1.0e-4, 1.0e-1]}
search: {trials: 6, max_epochs: 3}
"""


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_backbone_is_seen_in_full_before_any_deep_trial(tmp_path: Path, local_ray: None, seed: int) -> None:
    write_shapes(tmp_path / "images")
    (tmp_path / "space.yaml").write_text(SPACE)
    options = RunOptions(file=tmp_path / "space.yaml", overrides=(f"search.seed={seed}",), name="looks")
    plan = search_plan(prepare(options))
    assert run_search(plan) == "finished"
    check_decisions(plan)
    looks, others = read_search(Path(plan.directory)).trials[:3], study_trials(Path(plan.directory))[3:]
    assert {trial.config.backbone for trial in looks} == set(BACKBONES)
    assert all((one.config.unfreeze_depth, one.reason, one.epochs_run) == (0, "completed", 3) for one in looks)
    last = max(stored_reports(trial)[-1].seq for trial in study_trials(Path(plan.directory))[:3])
    assert all(stored_reports(trial)[0].seq > last for trial in others if stored_reports(trial))

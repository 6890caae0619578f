"""A small search with MLflow, in a process of its own that a test may kill: ``crashing.py ROOT [ray|replay [SLOTS]]``.

Trains real trials in this process, one at a time (the default), the same in Ray's workers (``ray``), or replays the
curves in ROOT/curves.json in Ray's workers (``replay``), as many at a time as Ray is told to have CPUs. Begins the
search, or goes on with it.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from pathlib import Path

from small_search import write_shapes
from soup_search import write_weights

SPACE = """
name: crashing
data: {source: folder, path: ./images, image_size: 32}
weights: {mobilenet_v3_small: ./weights.pth}
space:
  backbone: mobilenet_v3_small
  unfreeze_depth: {int: [0, 2]}
  head_lr: {log: [1.0e-4, 1.0e-1]}
  backbone_lr: {log: [1.0e-5, 1.0e-2]}
  head_init: random
search: {trials: TRIALS, max_epochs: 3, scheduler: {asha: {reduction_factor: 2}}, metric: val_loss}
tracking: {keep_best: 2}
resources: {max_concurrent: 1}
"""
REPLAYED = """
name: crashing
data: {source: folder, path: ./images, image_size: 32}
weights: {mobilenet_v2: none, timm/tf_efficientnet_lite0: none}
space:
  backbone: [mobilenet_v2, timm/tf_efficientnet_lite0]
  unfreeze_depth: {int: [0, 5]}
  head_lr: {log: [1.0e-3, 1.0e-2]}
  backbone_lr: {log: [1.0e-4, 2.0e-3]}
search: {trials: TRIALS, max_epochs: 6}
"""
NAME = "killed"
TRIALS = 4


def prepare_root(root: Path, trials: int = TRIALS, space: str = SPACE) -> None:
    """Writes images and space file."""
    write_shapes(root / "images")
    if "weights.pth" in space:
        write_weights(root / "weights.pth")
    (root / "space.yaml").write_text(space.replace("TRIALS", str(trials)))


def main(root: Path, how: str) -> str:
    """Runs or goes on with the search; gives its reason."""
    from preparing import starting
    from search_doubles import drive, with_factory

    from tlsearch.app.searches import execute, prepare
    from tlsearch.search import run_search
    from tlsearch.testing.replay import Replay
    from tlsearch.trial import finetuning

    finetuning.RUNNING_INTERVAL_S = 0.0  # a checkpoint at every epoch
    if how == "here":
        execute.run_search = with_factory(drive, finetuning.FineTuning)  # type: ignore[assignment]
    elif how == "replay":
        factory = Replay(path=str(root / "curves.json"), speed=10.0)
        execute.run_search = with_factory(run_search, factory)  # type: ignore[assignment]
    with starting(prepare.RunOptions(file=root / "space.yaml", name=NAME)) as prepared:
        return execute.execute(prepared, stop=threading.Event()).reason


def check_mlflow(root: Path, *, models: bool = True) -> None:
    """MLflow and study agree: a run for each trial, each point once, no run open, the best models and no others."""
    from mlflow import MlflowClient

    from tlsearch.app.catalog import catalog
    from tlsearch.app.catalog.stored import read_record

    entry = catalog.find(NAME, root / "tlsearch_runs")
    record = read_record(entry)
    client = MlflowClient(tracking_uri=entry.tracking_uri)
    experiment = client.get_experiment_by_name(entry.experiment)
    assert experiment is not None
    runs = client.search_runs([experiment.experiment_id], max_results=50_000)
    kinds = Counter(run.data.tags["tlsearch.kind"] for run in runs)
    assert kinds == {"search": 1, "trial": len(record.trials)}
    assert {run.info.status for run in runs} == {"FINISHED"}
    by_number = {int(r.data.tags["tlsearch.trial"]): r for r in runs if r.data.tags["tlsearch.kind"] == "trial"}
    for trial in record.trials:
        run = by_number[trial.number]
        assert run.data.tags["tlsearch.state"] == trial.state.value
        assert run.data.params["unfreeze_depth"] == str(trial.params["unfreeze_depth"])
        for metric in ("train_loss", record.metric):
            points = client.get_metric_history(run.info.run_id, metric)
            assert [(p.step, p.value) for p in points] == [(r.epoch, r.metrics[metric]) for r in trial.reports]
    (parent,) = (run for run in runs if run.data.tags["tlsearch.kind"] == "search")
    for key in ("trials_complete", "trials_running"):
        steps = sorted(point.step for point in client.get_metric_history(parent.info.run_id, key))
        assert steps == list(range(1, len(record.trials) + 1))  # each end of a trial once
    assert record.best is not None
    shown = parent.data.metrics
    assert (shown["best_trial"], shown[f"best_{record.metric}"]) == (record.best.number, record.best.best_value)
    assert shown["trials_running"] == 0
    if not models:
        return
    ranked = sorted((t for t in record.trials if t.best_value is not None), key=lambda t: (t.best_value, t.number))
    best = {trial.number for trial in ranked[:2]}
    found = client.search_logged_models([experiment.experiment_id])
    assert sorted(int(model.tags["tlsearch.trial"]) for model in found) == sorted(best)
    assert {str(model.status) for model in found} == {"READY"}
    for model in found:
        run = client.get_run(model.source_run_id)
        assert [one.model_id for one in run.outputs.model_outputs] == [model.model_id]
        if int(model.tags["tlsearch.trial"]) == record.best.number:
            assert [one.model_id for one in parent.outputs.model_outputs] == [model.model_id]
            assert parent.data.tags["tlsearch.best_model"] == f"models:/{model.model_id}"
    weights = list(root.rglob("mlartifacts/**/weights-*.safetensors"))
    assert len(weights) == len(best)  # nothing of a half-made model is left


def main_with_slots(root: Path, how: str, slots: int) -> str:
    """As ``main``, on a Ray of its own with so many CPUs, whatever the machine has."""
    from tlsearch.search.cluster.connect import connected

    with connected("local", num_cpus=slots):
        return main(root, how)


if __name__ == "__main__":
    where, *rest = sys.argv[1:]
    if len(rest) == 2:
        print(main_with_slots(Path(where), rest[0], int(rest[1])), flush=True)
    else:
        print(main(Path(where), *rest or ["here"]), flush=True)

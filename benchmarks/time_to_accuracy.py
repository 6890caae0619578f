#!/usr/bin/env python3
"""A free search on both sides: how long tlsearch takes to plain's final best accuracy.

    time_to_accuracy.py --data EMOJI --weights mobilenet_v2.pth [--seeds 3] [--trials 16] [--epochs 5] [--augment]

Plain is the search of the Ray Tune guides (plain_ray_tune.py: OptunaSearch, ASHA, MLflow). tlsearch searches the same
space with its own sampler and ASHA, default settings, empty caches, a fresh process; `start_with` is empty and the
portfolio is off. Plain's time is that of its whole run; tlsearch's runs from the start of its process to the first
report that is as good as plain's best trial. Where it never is, the ratio is given as none and counts as 0 in the
median.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from same_trials import PLAIN, epoch_sources, opaque_copy, timed


def run_plain(options: argparse.Namespace, seed: int) -> dict[str, Any]:
    """The yardstick in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(PLAIN), "--data", str(options.data), "--weights", str(options.weights)]
        command += ["--trials", str(options.trials), "--epochs", str(options.epochs), "--seed", str(seed)]
        command += ["--augment"] if options.augment else []
        environment = {**os.environ, "HOME": folder, "RAY_ADDRESS": "local"}
        wall_s, _, text = timed([*command, "--out", "out"], cwd=Path(folder), environment=environment)
    return {"wall_s": wall_s, "best": json.loads(text.splitlines()[-1])["best_val_accuracy"]}


def run_tlsearch(options: argparse.Namespace, seed: int, goal: float) -> dict[str, Any]:
    """`tlsearch run` in a fresh folder; when it reached the goal, and its end."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "space.yaml").write_text(space_file(options, seed))
        environment = {
            **os.environ,
            "HOME": folder,
            "TLSEARCH_STATE_DIR": folder,
            "TLSEARCH_CACHE_DIR": f"{folder}/cache",
        }
        started = time.time()
        command = [sys.executable, "-m", "tlsearch", "run", "space.yaml", "--name", "bench", "--json"]
        wall_s, _, text = timed(command, cwd=root, environment=environment)
        journal = root / "tlsearch_runs" / "bench" / "study.journal"
        reached = [timestamp - started for timestamp, value in reports(journal) if value >= goal]
        sources = epoch_sources(journal)
    values = [trial["best_value"] or 0.0 for trial in json.loads(text[text.index("{") :])["trials"]]
    return {"wall_s": wall_s, "best": max(values), "reached_s": min(reached, default=None), "sources": sources}


def reports(journal: Path) -> Iterator[tuple[float, float]]:
    """Time and validation accuracy of every report."""
    for line in journal.read_text().splitlines():
        for name, value in json.loads(line).get("user_attr", {}).items():
            if name.startswith("report:"):
                yield value["timestamp"], value["metrics"]["val_accuracy"]


def space_file(options: argparse.Namespace, seed: int) -> str:
    """The yardstick's space."""
    return f"""name: time-to-accuracy
data: {{source: folder, path: {json.dumps(str(options.data))}, image_size: 96}}
weights: {{mobilenet_v2: {json.dumps(str(options.weights))}}}
space:
  backbone: mobilenet_v2
  unfreeze_depth: {{int: [0, 5]}}
  head_lr: {{log: [1.0e-4, 1.0e-1]}}
  backbone_lr: {{log: [1.0e-6, 1.0e-2]}}
  bn_policy: [frozen, train]
  augmentation: {"[none, light]" if options.augment else "none"}
search:
  trials: {options.trials}
  max_epochs: {options.epochs}
  seed: {seed}
  portfolio: false
"""


def main() -> None:
    """Prints a line for each seed and, last, one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--weights", type=Path, required=True, help="mobilenet_v2's state dict")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--augment", action="store_true", help="augmentation none and light are searched too")
    parser.add_argument("--quick", action="store_true", help="one seed, 6 trials of 2 epochs: no figure")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.trials, options.epochs = 1, 6, 2
    options.weights = options.weights.resolve()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        options.data = opaque_copy(options.data, Path(folder))
        for seed in range(options.seeds):
            plain = run_plain(options, seed)
            ours = run_tlsearch(options, seed, plain["best"])
            ratio = plain["wall_s"] / ours["reached_s"] if ours["reached_s"] else None
            rows.append({"seed": seed, "plain": plain, "tlsearch": ours, "ratio": ratio})
            told = f"{ratio:.2f}" if ratio else "never reached"
            print(
                f"seed {seed}: plain {plain['best']:.4f} in {plain['wall_s']:.0f} s; tlsearch {ours['best']:.4f} in "
                f"{ours['wall_s']:.0f} s; ratio {told}",
                flush=True,
            )
    median = statistics.median(row["ratio"] or 0.0 for row in rows)
    print(f"median ratio {median:.2f}")
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "time_to_accuracy", "machine": machine, "median_ratio": median, "rows": rows}))


if __name__ == "__main__":
    main()

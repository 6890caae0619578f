#!/usr/bin/env python3
"""Best trial, soup, ensemble and distilled model of the same searches: validation, the sealed test split, latency.

    package_sets.py --packages PACKAGES --out SETS     # makes icons, clipart, digits-10 and digits-50
    combinations.py --sets SETS/* EMOJI --weights WEIGHTS --work FOLDER [--seeds 3] [--only emoji-0] [--no-distill]

WEIGHTS holds mobilenet_v2.pth, tf_efficientnet_lite0.pth and vit_small_patch14_dinov2.safetensors. For each set and
seed a search of 16 trials of 6 epochs over these three backbones at 98 px, then `tlsearch ensemble`, `tlsearch soup`
and `tlsearch promote --distill`, as a user calls them; what FOLDER holds already is not run again. The test images are
scored here and not by `promote`, which looks at them once. A combination that does not help by its own cross-fitted
figure counts as the best trial, as `promote` refuses it. Latency: one image, one CPU thread, by the commands.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from tlsearch.app.catalog.catalog import SearchEntry, find
from tlsearch.app.catalog.stored import read_record, stored_file
from tlsearch.core.errors import StorageError
from tlsearch.core.types import ModelSpec
from tlsearch.data import ImageIndex, load_index
from tlsearch.results import load_model, logits_on
from tlsearch.results.combine.combination import NAMES, combined_model, read_combination
from tlsearch.results.leaderboard.search_facts import measure_latency

SPACE = """name: {name}
data: {{source: folder, path: {data}, image_size: 98}}
weights:
  mobilenet_v2: {weights}/mobilenet_v2.pth
  timm/tf_efficientnet_lite0: {weights}/tf_efficientnet_lite0.pth
  timm/vit_small_patch14_dinov2: {weights}/vit_small_patch14_dinov2.safetensors
space:
  backbone: [mobilenet_v2, timm/tf_efficientnet_lite0, timm/vit_small_patch14_dinov2]
  unfreeze_depth: {{when: {{backbone: [mobilenet_v2, timm/tf_efficientnet_lite0]}}, int: [0, 2]}}
  head_lr: {{log: [1.0e-4, 1.0e-1]}}
  backbone_lr: {{log: [1.0e-5, 1.0e-3]}}
  bn_policy: [frozen, train]
search: {{trials: 16, max_epochs: 6, seed: {seed}}}
storage: ./runs
"""


def command(work: Path, *words: str) -> int:
    """Runs tlsearch in the folder; its output goes to a log there."""
    tool = str(Path(sys.executable).with_name("tlsearch"))
    home = {"TLSEARCH_STATE_DIR": str(work / "state"), "TLSEARCH_CACHE_DIR": str(work / "cache")}
    with (work / "log.txt").open("a", encoding="utf-8") as log:
        return subprocess.run([tool, *words], cwd=work, env=os.environ | home, stdout=log, stderr=log).returncode


def search(name: str, data: Path, seed: int, arguments: argparse.Namespace) -> SearchEntry:
    """The search of that name; run if FOLDER does not hold it."""
    work = arguments.work
    try:
        return find(name, work / "runs")
    except StorageError:
        text = SPACE.format(name=name, data=data.resolve(), weights=arguments.weights.resolve(), seed=seed)
        (work / f"{name}.yaml").write_text(text, encoding="utf-8")
        if command(work, "run", f"{name}.yaml", "--name", name) != 0:
            raise SystemExit(f"the search {name} failed: {work / 'log.txt'}") from None
        return find(name, work / "runs")


def accuracy(folder: Path, index: ImageIndex, split: str) -> float:
    """The share of right predictions."""
    logits = logits_on(load_model(folder, device="cpu"), index, split).numpy()
    return float((logits.argmax(1) == np.array(index.splits[split].labels)).mean())


def rows_of(entry: SearchEntry, *, distil: bool) -> dict[str, dict[str, Any]]:
    """The figures of each kind of model."""
    work = entry.path.parents[1]
    for kind, words in (("ensemble", ["ensemble"]), ("soup", ["soup"]), ("distilled", ["promote"])):
        if read_combination(entry.path, kind) is None and (distil or kind != "distilled"):  # type: ignore[arg-type]
            more = ["--distill", "--without-test"] if kind == "distilled" else []
            command(work, *words, entry.search_id, "--storage", str(work / "runs"), *more)
    file, _ = stored_file(entry, "")
    index, record = load_index(file.data), read_record(entry)
    best = record.best
    assert best is not None
    spec = ModelSpec.of(best.config, file.data, len(index.classes))
    single = {
        "val": best.best_value,
        "test": accuracy(entry.path / "trials" / str(best.number) / "best", index, "test"),
        "ms": round(measure_latency(spec), 1),
        "trial": best.number,
    }
    rows = {"trial": single}
    for kind in NAMES:
        made = read_combination(entry.path, kind)
        if made is None:
            continue
        own = accuracy(combined_model(entry.path, kind), index, "test")
        rows[kind] = {
            "val": made.cross_fitted,
            "val_single": made.best_cross_fitted,
            "test": own if made.helps else single["test"],
            "test_of_model": own,
            "ms": None if made.latency_ms is None else round(made.latency_ms, 1),
            "members": len(made.members),
            "helps": made.helps,
        }
    return rows


def show(results: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> None:
    """Prints a row for each search and the means."""
    print("search | kind | members | validation | test | test - best trial | ms | helps")
    gains: dict[str, list[float]] = {}
    for name, rows in results.items():
        for kind, row in rows.items():
            gain = row["test"] - rows["trial"]["test"]
            if kind != "trial":
                gains.setdefault(kind, []).append(gain)
            print(
                f"{name} | {kind} | {row.get('members', 1)} | {row['val']:.4f} | {row['test']:.4f} | {gain:+.4f} | "
                f"{row['ms']} | {row.get('helps', '')}"
            )
    for kind, each in gains.items():
        print(f"mean | {kind} | {len(each)} searches | test - best trial {fmean(each):+.4f}, lowest {min(each):+.4f}")


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, nargs="+", required=True, help="folders with train/, val/ and test/")
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="searches by their names, SET-SEED")
    parser.add_argument("--no-distill", action="store_true")
    arguments = parser.parse_args(words)
    arguments.work = arguments.work.resolve()
    arguments.work.mkdir(parents=True, exist_ok=True)
    results = {}
    for seed in range(arguments.seeds):
        for data in arguments.sets:
            name = f"{data.name}-{seed}"
            if arguments.only is None or name in arguments.only:
                entry = search(name, data, seed, arguments)
                results[name] = rows_of(entry, distil=not arguments.no_distill)
                print(name, json.dumps(results[name]), flush=True)
    show(results)
    print(json.dumps({"benchmark": "combinations", "results": results}))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""The same trials twice: a search as a competent user writes it from the Ray Tune guides, and tlsearch.

    same_trials.py --data EMOJI --weights mobilenet_v2.pth [--sets head mix full] [--quick]

Both sides train exactly the same list of configurations of mobilenet_v2, on the same images and weights, in a
fresh process with empty caches; tlsearch runs as a user runs it: `tlsearch run`, with its study and MLflow. For
each set: wall seconds, CPU seconds of the whole machine (keep it quiet otherwise), their ratios, the means of the
best validation accuracies, which share of tlsearch's epochs read stored features, and the ratio that the share of
frozen work allows (naive step 1 + 2s, cached 3s, with s the share of the forward work above the boundary).

Both sides read an opaque copy of the images: the yardstick's ImageFolder turns transparency black where tlsearch lays
it on white, which alone moves the accuracies of drawings by several points.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

PLAIN = Path(__file__).with_name("plain_ray_tune.py")
EPOCHS = {"head": 10, "mix": 5, "full": 3}
TRIALS = {"head": 24, "mix": 12, "full": 4}
QUICK_EPOCHS = 2
# Share of mobilenet_v2's forward work above the boundary of each depth, at 96 px, by torch's flop counter.
WORK_ABOVE = {0: 0.0, 1: 0.2995, 2: 0.622, 3: 0.7469, 4: 0.9303, 5: 1.0}


def configurations(name: str, count: int) -> list[dict[str, Any]]:
    """A seeded list: head-only, an even mix of depths 0..5, or full fine-tuning."""
    rng = random.Random(name)
    found = []
    for number in range(count):
        depth = {"head": 0, "mix": number % 6, "full": 5}[name]
        found.append(
            {
                "unfreeze_depth": depth,
                "head_lr": 10 ** rng.uniform(-3, -1.7),
                "backbone_lr": 10 ** rng.uniform(-5, -4) if depth else 0.0,  # above, features may be destroyed
                "bn_policy": rng.choice(["frozen", "train"]) if depth else "frozen",
            }
        )
    return found


def formula_limit(configs: Sequence[Mapping[str, Any]]) -> float:
    """Naive over cached training work, without the build of the store."""
    naive = sum(1 + 2 * WORK_ABOVE[c["unfreeze_depth"]] for c in configs)
    return naive / max(sum(3 * WORK_ABOVE[c["unfreeze_depth"]] for c in configs), 1e-9)


def busy_cpu_s() -> float:
    """CPU seconds that this machine has worked since it started, all processes together."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:]
    user, nice, system = (int(value) for value in fields[:3])
    return (user + nice + system) / os.sysconf("SC_CLK_TCK")


def timed(command: Sequence[str], *, cwd: Path, environment: Mapping[str, str]) -> tuple[float, float, str]:
    """Wall seconds, CPU seconds and standard output of a command."""
    start, busy = time.monotonic(), busy_cpu_s()
    done = subprocess.run(command, cwd=cwd, env=dict(environment), capture_output=True, text=True, check=False)
    wall_s, cpu_s = time.monotonic() - start, busy_cpu_s() - busy
    if done.returncode != 0:
        raise SystemExit(f"{command[:3]} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
    return wall_s, cpu_s, done.stdout


def run_plain(configs: Sequence[Mapping[str, Any]], arguments: argparse.Namespace, epochs: int) -> dict[str, Any]:
    """The yardstick in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "configs.json").write_text(json.dumps(configs))
        command = [sys.executable, str(PLAIN), "--data", str(arguments.data), "--weights", str(arguments.weights)]
        command += ["--configs", "configs.json", "--epochs", str(epochs), "--out", "out"]
        command += ["--cpus", str(arguments.cpus), "--gpus-per-trial", str(arguments.gpus_per_trial)]
        wall_s, cpu_s, text = timed(
            command, cwd=root, environment={**os.environ, "HOME": folder, "RAY_ADDRESS": "local"}
        )
    rows = json.loads(text.splitlines()[-1])["rows"]
    return {"wall_s": wall_s, "cpu_s": cpu_s, "accuracies": [row["val_accuracy"] for row in rows]}


def run_tlsearch(configs: Sequence[Mapping[str, Any]], arguments: argparse.Namespace, epochs: int) -> dict[str, Any]:
    """`tlsearch run` with empty caches, its study and MLflow, in a fresh folder."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "space.yaml").write_text(space_file(configs, arguments, epochs))
        environment = {
            **os.environ,
            "HOME": folder,
            "TLSEARCH_STATE_DIR": folder,
            "TLSEARCH_CACHE_DIR": f"{folder}/cache",
        }
        command = [sys.executable, "-m", "tlsearch", "run", "space.yaml", "--name", "bench", "--json"]
        wall_s, cpu_s, text = timed(command, cwd=root, environment=environment)
        sources = epoch_sources(root / "tlsearch_runs" / "bench" / "study.journal")
    trials = json.loads(text[text.index("{") :])["trials"]
    return {
        "wall_s": wall_s,
        "cpu_s": cpu_s,
        "accuracies": [trial["best_value"] for trial in sorted(trials, key=lambda t: t["trial"])],
        "sources": sources,
    }


def space_file(configs: Sequence[Mapping[str, Any]], arguments: argparse.Namespace, epochs: int) -> str:
    """A space whose fixed sampler runs exactly the configurations."""
    entries = []
    for config in configs:
        names = ("unfreeze_depth", "head_lr", "backbone_lr", "bn_policy")
        entries.append(
            {n: config[n] for n in names if config["unfreeze_depth"] or n not in ("backbone_lr", "bn_policy")}
        )
    return f"""name: same-trials
data: {{source: folder, path: {json.dumps(str(arguments.data))}, image_size: 96}}
weights: {{mobilenet_v2: {json.dumps(str(arguments.weights))}}}
space:
  backbone: mobilenet_v2
  unfreeze_depth: {{int: [0, 5]}}
  head_lr: {{log: [1.0e-4, 1.0e-1]}}
  backbone_lr: {{log: [1.0e-6, 1.0e-2]}}
  bn_policy: [frozen, train]
  head_init: random  # as the yardstick's
  batch_size: 32
search:
  trials: {len(configs)}
  max_epochs: {epochs}
  sampler: fixed
  scheduler: none
  start_with: {json.dumps(entries)}
"""


def epoch_sources(journal: Path) -> dict[str, int]:
    """How many epochs read features and how many pixels, each with the reason."""
    counts: dict[str, int] = {}
    for line in journal.read_text().splitlines():
        for name, value in json.loads(line).get("user_attr", {}).items():
            if name.startswith("report:"):
                key = f"{value['source']}: {value['source_reason']}"
                counts[key] = counts.get(key, 0) + 1
    return counts


def opaque_copy(source: Path, target: Path) -> Path:
    """train/ and val/ as RGB images, transparency laid on white."""
    for path in sorted(source.glob("*/*/*")):
        split, label = path.parts[-3:-1]
        if split in ("train", "val") and path.is_file():
            with Image.open(path) as image:
                rgba = image.convert("RGBA")
            rgb = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")
            (target / split / label).mkdir(parents=True, exist_ok=True)
            rgb.save((target / split / label / path.name).with_suffix(".png"))
    return target


def compare(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One set on both sides, one after the other."""
    epochs = QUICK_EPOCHS if arguments.quick else EPOCHS[name]
    configs = configurations(name, 6 if arguments.quick else TRIALS[name])
    plain = run_plain(configs, arguments, epochs)
    ours = run_tlsearch(configs, arguments, epochs)
    if None in ours["accuracies"]:
        raise SystemExit(f"a trial of {name} ended before its first report: the two sides did not do the same work")
    means = [sum(side["accuracies"]) / len(configs) for side in (plain, ours)]
    return {
        "set": name,
        "trials": len(configs),
        "epochs": epochs,
        "plain_wall_s": round(plain["wall_s"], 1),
        "tlsearch_wall_s": round(ours["wall_s"], 1),
        "wall_ratio": round(plain["wall_s"] / ours["wall_s"], 2),
        "cpu_ratio": round(plain["cpu_s"] / ours["cpu_s"], 2),
        "formula_limit": round(formula_limit(configs), 2) if name != "head" else None,
        "plain_accuracy": round(means[0], 4),
        "tlsearch_accuracy": round(means[1], 4),
        "sources": ours["sources"],
    }


def main() -> None:
    """Runs the sets, prints a table and, last, one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/")
    parser.add_argument("--weights", type=Path, required=True, help="mobilenet_v2's state dict")
    parser.add_argument("--sets", nargs="+", choices=sorted(TRIALS), default=["head", "mix", "full"])
    parser.add_argument("--cpus", type=int, default=2, help="of the yardstick's Ray")
    parser.add_argument("--gpus-per-trial", type=float, default=0.0, help="of the yardstick's trials")
    parser.add_argument("--quick", action="store_true", help="6 trials of 2 epochs: the harness, not a figure")
    arguments = parser.parse_args()
    arguments.weights = arguments.weights.resolve()
    with tempfile.TemporaryDirectory() as folder:
        arguments.data = opaque_copy(arguments.data, Path(folder))
        rows = [compare(name, arguments) for name in arguments.sets]
    columns = [name for name in rows[0] if name != "sources"]
    print(" | ".join(columns))
    for row in rows:
        print(" | ".join(str(row[name]) for name in columns))
    for row in rows:
        for source, count in sorted(row["sources"].items()):
            print(f"{row['set']}: {count} of {sum(row['sources'].values())} epochs read {source}")
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    print(json.dumps({"benchmark": "same_trials", "machine": machine, "rows": rows}))


if __name__ == "__main__":
    main()

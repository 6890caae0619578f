#!/usr/bin/env python3
"""What a trial costs beside its training: a search of trials that do nothing, against bare Ray Tune.

    overhead.py [--trials 1000] [--slots 16] [--epochs 2] [--sampler tpe] [--quick]

Both sides run the same class of trial on a local Ray with the same logical slots, in a fresh process each. Bare Ray
Tune: a class Trainable with `reuse_actors=True`, random search, no scheduler, with the result files that come by
default and without them. tlsearch: as `tlsearch run` goes, with its study (a journal), its sampler and MLflow (SQLite).
By each hundred of trials in the order of their ends: milliseconds a trial; the first hundred holds the start of the
workers on all sides, so growth is told from the second on. Last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SPACE = """
name: overhead
data: {{source: digits}}
weights: {{mobilenet_v2: none, resnet18: none}}
space:
  backbone: [mobilenet_v2, resnet18]
  unfreeze_depth: {{int: [0, 5]}}
  head_lr: {{log: [1.0e-4, 1.0e-1]}}
  backbone_lr: {{log: [1.0e-6, 1.0e-2]}}
  bn_policy: [frozen, train]
search: {{trials: {trials}, max_epochs: {epochs}, scheduler: none, sampler: {sampler}}}
"""
SIDES = ("bare", "bare_without_files", "tlsearch")


class StubTrial:
    """Reports a number at once."""

    def __init__(self, assignment: Any) -> None:
        self._seed = assignment.seed
        self.reports: list[Any] = []

    @property
    def epochs_done(self) -> int:
        return len(self.reports)

    def step(self) -> Any:
        from tlsearch.core.types import EpochReport

        epoch = self.epochs_done + 1
        metrics = {"val_accuracy": (self._seed % 1000) / 2000 * (1 - 0.5**epoch), "train_loss": 1.0 / epoch}
        self.reports.append(EpochReport(epoch=epoch, metrics=metrics, timestamp=time.time()))
        return self.reports[-1]

    def save(self) -> None:
        """There is nothing to go on with."""

    def close(self) -> None:
        """Nothing is open."""


class Ends:
    """When each trial ended, on whichever side."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.memory_mb: list[float] = []

    def note(self) -> None:
        self.times.append(time.monotonic())
        if len(self.times) % 100 == 0:
            self.memory_mb.append(resident_mb())

    def trial_started(self, number: int, config: Any) -> None:
        """Not of interest."""

    def trial_reported(self, number: int, report: Any, decision: Any) -> None:
        """Not of interest."""

    def trial_ended(self, number: int, outcome: Any) -> None:
        self.note()


def resident_mb() -> float:
    """What this process holds in memory."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def run_tlsearch(arguments: argparse.Namespace, ends: Ends) -> None:
    """A search in the current folder."""
    from tlsearch.app.searches import execute, prepare
    from tlsearch.search import run_search

    path = Path("space.yaml")
    path.write_text(SPACE.format(trials=arguments.trials, epochs=arguments.epochs, sampler=arguments.sampler))
    execute.run_search = lambda plan, **options: run_search(plan, **{**options, "factory": StubTrial})
    with prepare.prepare(prepare.RunOptions(file=path)) as prepared:
        end = execute.execute(prepared, observers=[ends], stop=threading.Event())
    assert end.reason == "finished" and end.unsent == 0, end


def run_bare(arguments: argparse.Namespace, ends: Ends, *, files: bool) -> None:
    """Ray Tune alone in the current folder."""
    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "0" if files else "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    from ray import tune

    epochs = arguments.epochs

    class Stub(tune.Trainable):
        def setup(self, config: dict[str, Any]) -> None:
            self._level = config["head_lr"]

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self.setup(new_config)
            return True

        def step(self) -> dict[str, Any]:
            epoch = self.iteration + 1
            done = {"done": True} if epoch == epochs else {}
            return {"val_accuracy": self._level * (1 - 0.5**epoch), "train_loss": 1.0 / epoch, **done}

    class Note(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            ends.note()

    space = {
        "backbone": tune.choice(["mobilenet_v2", "resnet18"]),
        "unfreeze_depth": tune.randint(0, 6),
        "head_lr": tune.loguniform(1e-4, 1e-1),
        "backbone_lr": tune.loguniform(1e-6, 1e-2),
        "bn_policy": tune.choice(["frozen", "train"]),
    }
    tuner = tune.Tuner(
        tune.with_resources(Stub, {"cpu": 1}),
        param_space=space,
        tune_config=tune.TuneConfig(num_samples=arguments.trials, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=str(Path("out").absolute()),
            verbose=0,
            callbacks=[Note()],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    tuner.fit()


def child(arguments: argparse.Namespace) -> None:
    """One side in this process; prints one line of JSON."""
    ends = Ends()
    from tlsearch.search.cluster.connect import connected

    with connected("local", num_cpus=arguments.slots):
        memory_mb, start, cpu_s = resident_mb(), time.monotonic(), time.process_time()
        if arguments.side == "tlsearch":
            run_tlsearch(arguments, ends)
        else:
            run_bare(arguments, ends, files=arguments.side == "bare")
        wall_s, driver_s = time.monotonic() - start, time.process_time() - cpu_s
    assert len(ends.times) == arguments.trials, len(ends.times)
    print(
        json.dumps(
            {
                "side": arguments.side,
                "wall_s": round(wall_s, 1),
                "driver_cpu_s": round(driver_s, 1),
                "ms_by_hundred": by_hundred(start, ends.times),
                "memory_mb": [memory_mb, *ends.memory_mb],
            }
        )
    )


def by_hundred(start: float, times: Sequence[float]) -> list[float]:
    """Milliseconds between two ends, on average over each hundred."""
    borders = [start, *times[99::100]]
    return [round((late - early) * 10, 1) for early, late in zip(borders, borders[1:], strict=False)]


def run_side(side: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """A side in a fresh process and an empty folder."""
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        names = {"HOME": "", "TLSEARCH_STATE_DIR": "state", "TLSEARCH_CACHE_DIR": "cache"}
        environment = {**os.environ, **{name: str(Path(folder, place)) for name, place in names.items()}}
        environment |= {"OMP_NUM_THREADS": "1", "RAY_AUTH_MODE": "token"}
        command = [sys.executable, str(Path(__file__).resolve()), "--side", side, "--sampler", arguments.sampler]
        for name in ("trials", "slots", "epochs"):
            command += [f"--{name}", str(getattr(arguments, name))]
        with open(Path(folder, "errors"), "w+") as errors:  # a pipe would wait for all of Ray's processes
            with open(Path(folder, "answer"), "w+") as answer:
                done = subprocess.run(
                    command, cwd=folder, env=environment, stdout=answer, stderr=errors, check=False
                ).returncode
                answer.seek(0)
                errors.seek(0)
                if done != 0:
                    raise SystemExit(f"{side} ended with {done}\n{errors.read()[-4000:]}")
                return dict(json.loads(answer.read().splitlines()[-1]))


def figures(row: dict[str, Any], bare: dict[str, Any]) -> dict[str, Any]:
    """What is asked of a side."""
    costs, settled = row["ms_by_hundred"], row["ms_by_hundred"][1:] or row["ms_by_hundred"]
    plain = bare["ms_by_hundred"][1:] or bare["ms_by_hundred"]
    return {
        "side": row["side"],
        "wall_s": row["wall_s"],
        "driver_cpu_s": row["driver_cpu_s"],
        "ms_per_trial": round(sum(settled) / len(settled), 1),
        "against_bare": round((sum(settled) / len(settled)) / (sum(plain) / len(plain)), 2),
        "last_over_first": round(costs[-1] / costs[0], 2),
        "last_over_second": round(settled[-1] / settled[0], 2),
        "memory_growth_mb": round(row["memory_mb"][-1] - row["memory_mb"][min(1, len(row["memory_mb"]) - 1)], 1),
        "ms_by_hundred": costs,
    }


def main() -> None:
    """Runs the sides, prints a table and, last, one line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000, help="in hundreds")
    parser.add_argument("--slots", type=int, default=16, help="logical CPUs of the local Ray")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--sampler", choices=["tpe", "random"], default="tpe")
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=list(SIDES))
    parser.add_argument("--quick", action="store_true", help="200 trials on 2 slots: the harness, not a figure")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.trials, arguments.slots = 200, 2
    if arguments.side:
        child(arguments)
        return
    sides = [run_side(side, arguments) for side in arguments.sides]
    rows = [figures(row, sides[0]) for row in sides]
    print(" | ".join(rows[0]))
    for row in rows:
        print(" | ".join(str(value) for value in row.values()))
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    asked = {name: getattr(arguments, name) for name in ("trials", "slots", "epochs", "sampler")}
    print(json.dumps({"benchmark": "overhead", "machine": machine, **asked, "rows": rows}))


if __name__ == "__main__":
    main()

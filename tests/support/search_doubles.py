"""Doubles for tests of the search: a trial that replays made-up curves, and a small conditional space.

Importable by Ray's workers. What a trial does beyond its curve is read from ``behaviour.json`` in the
search's folder ({number or "all": {"kind": ..., ...}}); what happened is appended to ``happened.jsonl`` there,
so that tests can compare the study with it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tlsearch.config import AshaSpec, ResourcesSpec, SearchSpec
from tlsearch.core.errors import Diverged, Infeasible
from tlsearch.core.types import (
    DataSpec,
    Decision,
    EpochReport,
    Scalar,
    TrialAssignment,
    TrialConfig,
    TrialOutcome,
    TrialSetup,
)
from tlsearch.search import SearchLock, SearchPlan
from tlsearch.search.controller.controller import Controller
from tlsearch.search.study.storage import open_for_writing, study_attrs
from tlsearch.search.worker.messages import Job, pack, unpack_job, unpack_message
from tlsearch.search.worker.trial_runner import Runner


class TinySpace:
    """Backbone, depth, and a learning rate that exists only where depth > 0."""

    def backbones(self) -> tuple[str, ...]:
        return "resnet18", "mobilenet_v2"

    def suggest(self, trial: Any) -> dict[str, Scalar]:
        values: dict[str, Scalar] = {
            "backbone": trial.suggest_categorical("backbone", ["resnet18", "mobilenet_v2"]),
            "unfreeze_depth": trial.suggest_int("unfreeze_depth", 0, 5),
            "head_lr": trial.suggest_float("head_lr", 1e-4, 1e-1, log=True),
        }
        if int(values["unfreeze_depth"] or 0) > 0:
            values["backbone_lr"] = trial.suggest_float("backbone_lr", 1e-6, 1e-3, log=True)
        return values

    def to_params(self, values: Mapping[str, Scalar]) -> dict[str, Scalar]:
        return dict(values)

    def to_config(self, values: Mapping[str, Scalar]) -> TrialConfig:
        return TrialConfig(**dict(values))  # type: ignore[arg-type]

    def values_of(self, config: TrialConfig) -> dict[str, Scalar]:
        values: dict[str, Scalar] = {name: getattr(config, name) for name in ("backbone", "unfreeze_depth", "head_lr")}
        return values | ({"backbone_lr": config.backbone_lr} if config.unfreeze_depth else {})

    def default_point(self) -> dict[str, Scalar]:
        return {"backbone": "resnet18", "unfreeze_depth": 0, "head_lr": 1e-3}

    def complete(self, partial: Mapping[str, Scalar]) -> dict[str, Scalar]:
        point = {**self.default_point(), **partial}
        if int(point["unfreeze_depth"] or 0) > 0:
            point.setdefault("backbone_lr", 1e-5)
        return point

    def starting_points(self, start_with: Sequence[Mapping[str, Scalar]]) -> list[dict[str, Scalar]]:
        points = [self.complete(entry) for entry in start_with]
        return points + [point for point in [self.default_point()] if point not in points]


def curve(config: TrialConfig, seed: int, epoch: int) -> float:
    """A made-up validation accuracy in 0..1 that rises with the epoch; equal wherever it is computed."""
    level = 0.3 + 0.4 * (hash((round(config.head_lr, 9), config.unfreeze_depth)) % 1000) / 1000
    wobble = ((seed // (epoch + 1)) % 97) / 97 * 0.02
    return level * (1 - 0.5**epoch) + wobble


class StubTrial:
    """Replays ``curve``; its checkpoint is a JSON file, written before each report."""

    def __init__(self, assignment: TrialAssignment) -> None:
        self._assignment = assignment
        self._directory = Path(assignment.directory)
        self._root = self._directory.parents[1]
        self._checkpoint = self._directory / "running" / "state.json"
        self.reports: list[EpochReport] = []
        if self._checkpoint.exists():
            self.reports = [EpochReport(**plain) for plain in json.loads(self._checkpoint.read_text())]
        self._behaviour = self._read_behaviour()
        self._log("open", self.epochs_done)

    @property
    def epochs_done(self) -> int:
        return len(self.reports)

    def step(self) -> EpochReport:
        epoch = self.epochs_done + 1
        time.sleep(self._behaviour.get("sleep", 0.0))
        self._misbehave(epoch)
        config, seed = self._assignment.config, self._assignment.seed
        value = curve(config, seed, epoch)
        metrics = {"val_accuracy": value, "val_loss": 1 - value, "train_loss": 1.0 / epoch}
        report = EpochReport(epoch=epoch, metrics=metrics, timestamp=1000.0 * self._assignment.number + epoch)
        self.reports.append(report)
        if self._behaviour.get("checkpoint", True):
            self._write()
        self._log("epoch", epoch, value)
        return report

    def save(self) -> None:
        self._write()
        self._log("save", self.epochs_done)

    def close(self) -> None:
        self._log("close", self.epochs_done)

    def _write(self) -> None:
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._checkpoint.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps([vars_of(r) for r in self.reports]))
        os.replace(temporary, self._checkpoint)

    def _misbehave(self, epoch: int) -> None:
        kind, at = self._behaviour.get("kind"), self._behaviour.get("epoch", 1)
        if kind is None or epoch != at:
            return
        if kind.endswith("_once") and not self._mark(kind):
            return
        self._log(kind, epoch)
        if kind == "diverge":
            raise Diverged("the training loss is nan")
        if kind == "memory":
            raise Infeasible("out of memory with micro-batches of 1")
        if kind.startswith("error"):
            raise RuntimeError("no such thing")
        if kind.startswith("hang"):
            time.sleep(600.0)
        if kind.startswith("die"):
            os._exit(3)

    def _mark(self, name: str) -> bool:
        """True the first time."""
        self._directory.mkdir(parents=True, exist_ok=True)
        try:
            (self._directory / name).touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    def _read_behaviour(self) -> dict[str, Any]:
        path = self._root / "behaviour.json"
        rules = json.loads(path.read_text()) if path.exists() else {}
        return {**rules.get("all", {}), **rules.get(str(self._assignment.number), {})}

    def _log(self, what: str, epoch: int, value: float | None = None) -> None:
        line = {"what": what, "number": self._assignment.number, "epoch": epoch, "value": value, "pid": os.getpid()}
        with open(self._root / "happened.jsonl", "a") as file:
            file.write(json.dumps(line) + "\n")


def vars_of(report: EpochReport) -> dict[str, Any]:
    return {"epoch": report.epoch, "metrics": dict(report.metrics), "timestamp": report.timestamp}


def read_log(root: Path) -> list[dict[str, Any]]:
    """What the trials did, in order."""
    path = root / "happened.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def make_plan(root: Path, *, max_epochs: int = 4, **search: Any) -> SearchPlan:
    """A plan over TinySpace in the folder ``root``."""
    search.setdefault("scheduler", AshaSpec(grace_period=1, reduction_factor=3))
    return SearchPlan(
        search_id=root.name,
        experiment="stub",
        directory=str(root),
        space=TinySpace(),  # type: ignore[arg-type]
        setup=TrialSetup(data=DataSpec(source="digits"), max_epochs=max_epochs),
        search=SearchSpec(max_epochs=max_epochs, **search),
        resources=ResourcesSpec(),
    )


def drive(
    plan: SearchPlan,
    *,
    slots: int = 1,
    order: int = 0,
    factory: Any = StubTrial,
    retries: int = 0,
    lock: SearchLock | None = None,
    **options: Any,
) -> str:
    """Runs a search without Ray: ``slots`` trials at a time in this process, stepped in a random order."""
    url = plan.search.study
    study = open_for_writing(plan.folder, attrs=study_attrs(plan), url=url, lock=lock)
    try:
        controller = Controller(plan, study, **options)
        chance = random.Random(order)
        live: dict[int, Runner] = {}
        while True:
            while len(live) < slots and (handout := controller.next_trial()) is not None:
                live[handout.assignment.number] = start_trial(handout, factory, retries)
            if not live or controller.halting:
                break
            number = chance.choice(sorted(live))
            if not step_once(controller, number, live[number]):
                live.pop(number).close()
        if controller.failure is not None:
            raise controller.failure
        return controller.finish()
    finally:
        study.close()


def killed_at(point: str, search: Callable[[], object]) -> None:
    """Runs a search in a process of its own that is to be killed at a crash point, and fails if it is not."""
    child = os.fork()
    if child == 0:
        os.environ["TLSEARCH_CRASH_AT"] = point
        try:
            search()
        finally:
            os._exit(7)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, status


def with_factory(search: Callable[..., str], factory: Any, **options: Any) -> Callable[..., str]:
    """A way to search, with this factory whatever the app asks for."""
    return lambda plan, **rest: search(plan, **{**rest, **options, "factory": factory})


def start_trial(job: Job, factory: Any = StubTrial, max_failures: int = 0) -> Runner:
    """A trial as its worker runs it."""
    return Runner(unpack_job(pack(replace(job, max_failures=max_failures))), factory, gauge=stub_gauge)


def stub_gauge(assignment: TrialAssignment, names: Sequence[str]) -> Mapping[str, float]:
    """A made-up latency: 10 ms a level of the trial's depth."""
    return {"latency_ms": 10.0 * assignment.config.unfreeze_depth} if "latency_ms" in names else {}


def step_once(controller: Controller, number: int, runner: Runner) -> bool:
    """One message of a trial, taken as the scheduler takes it; True if the trial goes on."""
    message = unpack_message(pack(runner.step()))
    if message.report is not None:
        return controller.report(number, message.report, measured=message.measured)
    assert message.outcome is not None
    controller.fail(number, message.outcome, measured=message.measured)
    return False


class Recorder:
    """An observer that remembers all it hears."""

    def __init__(self) -> None:
        self.events: list[tuple[Any, ...]] = []

    def trial_started(self, number: int, config: TrialConfig) -> None:
        self.events.append(("started", number, config))

    def trial_reported(self, number: int, report: EpochReport, decision: Decision) -> None:
        self.events.append(("reported", number, report.epoch, decision))

    def trial_ended(self, number: int, outcome: TrialOutcome) -> None:
        self.events.append(("ended", number, outcome))

    def of(self, kind: str) -> list[tuple[Any, ...]]:
        return [event for event in self.events if event[0] == kind]


class QuickTrial:
    """Replays ``curve`` and does nothing else: for measuring what the search itself costs."""

    def __init__(self, assignment: TrialAssignment) -> None:
        self._assignment = assignment
        self.reports: list[EpochReport] = []

    @property
    def epochs_done(self) -> int:
        return len(self.reports)

    def step(self) -> EpochReport:
        epoch = self.epochs_done + 1
        value = curve(self._assignment.config, self._assignment.seed, epoch)
        report = EpochReport(epoch=epoch, metrics={"val_accuracy": value}, timestamp=time.time())
        self.reports.append(report)
        return report

    def save(self) -> None:
        """It is over before it would be missed."""

    def close(self) -> None:
        """Nothing is open."""

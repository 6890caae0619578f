"""``plan``: what a search will take on this machine, before anything is spent; writes nothing and starts no Ray."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tlsearch.app.checks.data_defaults import fitted_to_data
from tlsearch.app.checks.feasibility import constant_cost, data_problems
from tlsearch.app.checks.resolution import folds_advice
from tlsearch.app.checks.unstarted_search import Slots, Step, local_slots, measure_search, unstarted_plan
from tlsearch.config import SpaceFile
from tlsearch.core.errors import SpaceError
from tlsearch.data import ImageIndex, load_index, require_ready
from tlsearch.forecast.forecast import Forecast, forecast
from tlsearch.forecast.measured_costs import Measured, start_seconds
from tlsearch.forecast.savings import Saving, savings
from tlsearch.forecast.trial_costs import ScreenCost, screen_cost
from tlsearch.search.scheduling.packing import COUNTS, room
from tlsearch.space import Space, load

logger = logging.getLogger(__name__)

_NICE = 10
_BESIDE_S = 2.0  # of CPU for simulations while the search starts


@dataclass(frozen=True, kw_only=True)
class PlanReport:
    """What ``tlsearch plan`` found; ``as_json`` has the published shape.

    Attributes:
        with_cache: The search as the file says.
        without_cache: The same with ``cache.features_gb: 0``; None where the file says so.
        savings: Changes that would make it shorter.
        advice: On folds and on objectives, a line each; empty where there is none.
        unit: What a report of a trial is of: ``epoch`` or ``fold``.
        screen: What comes before the first trial; None where no backbone is screened.
        may_stop: Whether the search may end before its last trial, which the times do not count on.
    """

    slots: Slots
    measured: Measured
    with_cache: Forecast
    without_cache: Forecast | None
    savings: tuple[Saving, ...] = ()
    advice: str = ""
    unit: str = "epoch"
    screen: ScreenCost | None = None
    may_stop: bool = False

    @property
    def trials_per_gpu(self) -> int:
        """How many of its largest trials fit a GPU, by their memory; 1 where none is shared."""
        if not self.slots.packed_bytes:
            return 1
        peak_bytes = float(max(self.measured.trial_bytes.values()))
        return max(count for count in COUNTS if count == 1 or peak_bytes <= room(count, self.slots.packed_bytes))

    def as_json(self) -> dict[str, Any]:
        """{wall_s, without_features_s, start_s, slots, trials, rungs, ..., savings: [{change, fraction}]}."""
        first, measured = self.with_cache, self.measured
        return {
            "wall_s": _interval(first),
            "without_features_s": None if self.without_cache is None else _interval(self.without_cache),
            "start_s": first.start_s,
            "slots": self.slots.count,
            "cpus_per_trial": self.slots.cpus,
            "gpus_per_trial": self.slots.gpus,
            "trials_per_gpu": self.trials_per_gpu,
            "gpu_hours": first.busy_s * self.slots.gpus / 3600,
            "core_hours": first.busy_s * self.slots.cpus / 3600,
            "trials": first.trials,
            "mean_epochs": first.mean_epochs,
            "rungs": {str(epoch): count for epoch, count in first.rungs.items()},
            "disk_bytes": {
                "images": measured.image_bytes,
                "features": measured.feature_bytes,
                "checkpoints": measured.checkpoint_bytes,
            },
            "trial_bytes": dict(measured.trial_bytes),
            "cached_entries": len(measured.stored.stored),
            "savings": [{"change": one.change, "fraction": one.fraction} for one in self.savings],
            "advice": self.advice,
            "screen": None if self.screen is None else asdict(self.screen),
            "may_stop": self.may_stop,
        }


def _interval(one: Forecast) -> dict[str, float]:
    return {"low": one.wall_s.low, "median": one.wall_s.median, "high": one.wall_s.high}


def plan_file(
    path: Path, *, overrides: Sequence[str] = (), data_path: Path | None = None, step: Step = lambda text: None
) -> PlanReport:
    """Forecasts the search of a space file.

    Args:
        step: Hears what is done now.

    Raises:
        SpaceError: Every error of the file; a constraint that no backbone keeps.
        DataError: The images.
        UserError: This machine holds no trial.
    """
    file, space = load(path, overrides=overrides, data_path=data_path)
    step(f"listing the images of {file.data.path or file.data.name or file.data.source}")
    index = load_index(file.data)
    require_ready(index)
    file, space, index = fitted_to_data(file, space, index)
    if problems := data_problems(file, space, index):
        raise SpaceError(problems)
    return plan_search(file, space, index, step=step)


def plan_search(file: SpaceFile, space: Space, index: ImageIndex, *, step: Step = lambda text: None) -> PlanReport:
    """Forecasts a search whose file and data are known to be good.

    Raises:
        UserError: This machine holds no trial.
    """
    slots = local_slots(file.resources)
    plan = unstarted_plan(file, space, index, slots)
    measured = measure_search(file, plan, index, slots, step=step)
    screen, stored = screen_cost(plan, measured.costs, measured.stored, index, slots=slots.count)
    start_s = start_seconds() + (screen.seconds if screen else 0.0)
    step("simulating the search")
    simulated = partial(forecast, plan, slots=slots.count, start_s=start_s, stored=stored)
    with_cache, without_cache = simulated(measured.costs), None
    if file.cache.features_gb != 0:
        without_cache = simulated(measured.costs.without_features(), limit_s=2.0)
    found = savings(plan, measured.costs, slots=slots.count, start_s=start_s, stored=stored)
    return PlanReport(
        slots=slots,
        measured=measured,
        with_cache=with_cache,
        without_cache=without_cache,
        savings=tuple(found),
        advice="\n".join(filter(None, (folds_advice(index, file.search.num_folds), constant_cost(file, space)))),
        unit="fold" if file.search.num_folds else "epoch",
        screen=screen,
        may_stop=file.search.stop == "auto",
    )


class ForecastBeside:
    """Forecasts a search that runs, on a thread that gives way to others; it takes some 10 s of one core."""

    def __init__(self, file: SpaceFile, space: Callable[[], Space], index: ImageIndex) -> None:
        """Begins nothing yet.

        Args:
            space: Gives the space of the trials, once they have begun.
        """
        self._search = file, space, index
        self._made: Forecast | None = None
        self._begun = self._stopped = False

    def begin(self) -> None:
        """Begins, the first time that it is called."""
        if self._begun or self._stopped:
            return
        self._begun = True
        # Not a daemon: Python must not end while torch computes.
        threading.Thread(target=self._work, name="forecast").start()

    def __call__(self) -> Forecast | None:
        """The forecast once it is there; None before, and where it could not be made."""
        return self._made

    def stop(self) -> None:
        """Ends it at its next step; what is there stays."""
        self._stopped = True

    def _work(self) -> None:
        try:
            if sys.platform == "linux":
                os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)  # of this thread alone
            file, space_of, index = self._search
            slots = local_slots(file.resources)
            plan = unstarted_plan(file, space_of(), index, slots)
            measured = measure_search(file, plan, index, slots, step=self._step)
            self._step("simulating")
            self._made = forecast(
                plan,
                measured.costs,
                slots=slots.count,
                start_s=start_seconds(),
                stored=measured.stored,
                limit_s=_BESIDE_S,
            )
        except _Stopped:
            return
        except Exception as error:  # whatever it is, the search itself must go on
            logger.warning("the search could not be forecast and runs without: %r", error)

    def _step(self, text: str) -> None:
        if self._stopped:
            raise _Stopped


class _Stopped(Exception):
    """The search has ended before its forecast was there."""

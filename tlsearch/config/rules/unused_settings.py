"""Settings of a search that cannot have any effect beside its other settings."""

from __future__ import annotations

from tlsearch.config.document.positions import Checker, Keys
from tlsearch.config.samplers import SAMPLERS
from tlsearch.config.schema import SpaceFile
from tlsearch.config.search_section import SearchSpec
from tlsearch.core.errors import SpaceProblem
from tlsearch.core.text import one_of

_DEFAULTS = SearchSpec()


def unused_settings(file: SpaceFile) -> list[SpaceProblem]:
    """Values other than the defaults that nothing would ever read, with what decides it.

    What ``--set search.max_epochs`` makes unused is none of them: fewer epochs on the command line are a short try.
    """
    checker = Checker(file.document)
    search = file.search
    _epochs(search, checker)
    _budget(search, checker)
    _sampler(search, checker)
    _cache(file, checker)
    return checker.problems


def _epochs(search: SearchSpec, checker: Checker) -> None:
    last, unit = ("folds", "fold") if search.num_folds else ("max_epochs", "epoch")
    at_epochs: Keys = ("search", last)
    checker.require(
        search.patience is None or not search.num_folds,
        ("search", "patience"),
        f"patience counts epochs without improvement, and a search with folds{checker.document.place(at_epochs)} "
        "reports each fold once: leave it out",
        at_epochs,
    )
    if checker.document.origin(at_epochs):
        return
    epochs, place = search.num_reports, checker.document.place(at_epochs)
    checker.require(
        bool(search.num_folds) or search.patience is None or search.patience <= max(epochs - 2, 0),
        ("search", "patience"),
        f"patience {search.patience} can end no trial: one of max_epochs {epochs}{place} is over by then; "
        + (f"at most {epochs - 2}, or leave it out" if epochs > 2 else "leave it out"),
        at_epochs,
    )
    asha = search.scheduler
    if asha is None:
        return
    at: Keys = ("search", "scheduler", "asha")
    checker.require(
        asha.grace_period != epochs or asha.grace_period == 1,
        (*at, "grace_period"),
        f"ASHA can stop no trial where grace_period is {last}, {epochs}{place}: it has no rung before the last "
        f"{unit}; lower it, or write scheduler: none",
        at_epochs,
    )
    rungs = [asha.grace_period * asha.reduction_factor**bracket < epochs for bracket in range(min(asha.brackets, 64))]
    most = sum(rungs) + 1  # the last one without a rung, as Hyperband has it
    checker.require(
        asha.brackets <= most,
        (*at, "brackets"),
        f"of {asha.brackets} brackets those after the first {most} are equal: their first rung lies beyond {last}, "
        f"{epochs}{place}; at most {most}",
        at_epochs,
        (*at, "grace_period"),
        (*at, "reduction_factor"),
    )


def _budget(search: SearchSpec, checker: Checker) -> None:
    checker.require(
        search.on_budget == _DEFAULTS.on_budget or search.time_budget_s is not None,
        ("search", "on_budget"),
        f"on_budget {search.on_budget} has no effect without a time_budget: give one, or leave on_budget out",
        ("search", "time_budget"),
    )


def _sampler(search: SearchSpec, checker: Checker) -> None:
    """Options of other samplers, and one that starting points replace."""
    at: Keys = ("search", "sampler")
    place = checker.document.place(at)
    for name in dict.fromkeys(name for one in SAMPLERS.values() for name in one.options):
        right = [key for key, one in SAMPLERS.items() if name in one.options]
        checker.require(
            search.sampler in right or getattr(search, name) == getattr(_DEFAULTS, name),
            ("search", name),
            f"{name} has no effect with sampler {search.sampler}{place}: it goes with {one_of(right)}; leave it out",
            at,
        )
    checker.require(
        search.stop == "none" or not search.objectives,
        ("search", "stop"),
        "stop: auto looks at one metric, and a search with objectives has a front: leave it out",
        ("search", "objectives"),
    )
    checker.require(
        search.cost_aware or search.starting_points == "none" or search.sampler != "tpe",
        ("search", "cost_aware"),
        "cost_aware has no effect where starting_points is auto: leave it out",
        ("search", "starting_points"),
    )


def _cache(file: SpaceFile, checker: Checker) -> None:
    """Options of cached features where none are kept."""
    at: Keys = ("cache", "features_gb")
    if file.cache.features_gb != 0:
        return
    for name, default in (("feature_precision", "full"), ("views", 1)):
        checker.require(
            getattr(file.cache, name) == default,
            ("cache", name),
            f"{name} has no effect where features_gb is 0{checker.document.place(at)}: no features are kept; "
            f"change features_gb or leave {name} out",
            at,
        )

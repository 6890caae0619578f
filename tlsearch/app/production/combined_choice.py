"""An ensemble or a soup of a search as the model to promote: the one asked for, or the best within the limits."""

from __future__ import annotations

from dataclasses import replace

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.combined.ensemble_costs import Limits
from tlsearch.app.production.choice import Choice
from tlsearch.core.errors import UserError
from tlsearch.results.combine.combination import NAMES, Combination, Kind, flag_of, not_made, read_combination
from tlsearch.results.leaderboard.search_facts import this_cpu


def choose_combined(entry: SearchEntry, kind: Kind, limits: Limits) -> Choice:
    """The search's combination of a kind.

    Raises:
        UserError: None was made, it is not within the limits, or the best single trial is better.
        StorageError: Its file is damaged.
    """
    found = read_combination(entry.path, kind)
    if found is None:
        raise UserError(not_made(kind, entry.search_id))
    if not found.helps:
        where = "on validation" if kind == "distilled" else "on images that it was not selected on"
        raise UserError(
            f"the {NAMES[kind]} of {entry.search_id} is not better than its best single trial {found.best_trial} "
            f"{where} ({found.metric} {found.cross_fitted:.4f} against {found.best_cross_fitted:.4f}): promote the "
            f"trial, without --{flag_of(kind)}"
        )
    if not _within(found, limits):
        hint = f"; `tlsearch ensemble {entry.search_id}` takes the same limits" if kind == "ensemble" else ""
        raise UserError(
            f"the {kind} of {entry.search_id} has {found.parameters:,} parameters and takes {_latency(found)}, and "
            f"must have {limits.text}{hint}"
        )
    return _choice(entry, found)


def best_combined(entry: SearchEntry, limits: Limits) -> Choice | None:
    """The best of the search's combinations that help and are within the limits; None where there is none."""
    made = [found for kind in NAMES if (found := read_combination(entry.path, kind)) is not None]
    fitting = [found for found in made if found.helps and _within(found, limits)]
    if not fitting:
        return None
    choice = _choice(entry, max(fitting, key=lambda one: one.gain))
    return replace(choice, reason=f"{choice.reason}; within the limits ({limits.text})")


def _within(found: Combination, limits: Limits) -> bool:
    return limits.allow(lambda: found.parameters, lambda: found.latency_ms)


def _choice(entry: SearchEntry, found: Combination) -> Choice:
    single = next(one for one in read_record(entry).trials if one.number == found.best_trial)
    single = replace(single, best_epoch=single.model_epoch)
    if found.kind == "distilled":
        reason = (
            f"{found.metric} {found.value:.4f} on {found.num_val} validation images, where trial {found.best_trial}, "
            f"whose configuration it has, reached {found.best_value:.4f}"
        )
    else:
        reason = (
            f"{found.metric} {found.cross_fitted:.4f}, selected on one half of {found.num_val} validation images and "
            f"scored on the other, where the best single trial {found.best_trial} has {found.best_cross_fitted:.4f}"
        )
    return Choice(
        entry=entry,
        trial=single,
        reason=reason,
        parameters=found.parameters,
        latency=f"{_latency(found)} ({this_cpu()}, batch of 1)",
        combination=found,
    )


def _latency(found: Combination) -> str:
    return "no measured time" if found.latency_ms is None else f"{found.latency_ms:.1f} ms an image"

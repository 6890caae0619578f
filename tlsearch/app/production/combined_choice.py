"""An ensemble or a soup of a search as the model to promote: the one asked for, or the best within the limits."""

from __future__ import annotations

import logging
from dataclasses import replace

from tlsearch.app.catalog.catalog import SearchEntry
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.combined.ensemble_costs import Limits
from tlsearch.app.production.choice import Choice
from tlsearch.core.errors import UserError
from tlsearch.core.types import SearchRecord
from tlsearch.results.combine.combination import (
    NAMES,
    Combination,
    Kind,
    command_of,
    flag_of,
    not_made,
    read_combination,
)
from tlsearch.results.leaderboard.search_facts import this_cpu

logger = logging.getLogger(__name__)


def choose_combined(entry: SearchEntry, kind: Kind, limits: Limits) -> Choice:
    """The search's combination of a kind.

    Raises:
        UserError: None was made, the search has found a better trial since, it is not within the limits, or the best
            single trial is better.
        StorageError: Its file is damaged.
    """
    found = read_combination(entry.path, kind)
    if found is None:
        raise UserError(not_made(kind, entry.search_id))
    if outdated := _outdated(found, read_record(entry)):
        raise UserError(f"{outdated}; or promote the trial, without --{flag_of(kind)}")
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
    """The best of the search's combinations that help and are within the limits; None where there is none.

    One that was compared with an earlier best trial is left out, with a warning.
    """
    record = read_record(entry)
    made = [found for kind in NAMES if (found := read_combination(entry.path, kind)) is not None]
    fitting = []
    for found in (one for one in made if one.helps and _within(one, limits)):
        if outdated := _outdated(found, record):
            logger.warning("left out: %s", outdated)
        else:
            fitting.append(found)
    if not fitting:
        return None
    choice = _choice(entry, max(fitting, key=lambda one: one.gain))
    return replace(choice, reason=f"{choice.reason}; within the limits ({limits.text})")


def _outdated(found: Combination, record: SearchRecord) -> str:
    """Why a combination says nothing of the search as it is now; empty where it does."""
    best = found.outdated_by(record)
    if best is None:
        return ""
    return (
        f"the {NAMES[found.kind]} of {record.search_id} was compared with trial {found.search_best}, the best one then "
        f"({found.metric} {found.search_best_value:.4f}), and trial {best.number} has reached {best.best_value:.4f} "
        f"since: {command_of(found.kind, record.search_id)} makes it again"
    )


def _within(found: Combination, limits: Limits) -> bool:
    return limits.allow(lambda: found.parameters, lambda: found.latency_ms)


def _choice(entry: SearchEntry, found: Combination) -> Choice:
    single = read_record(entry).trial(found.best_trial)
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

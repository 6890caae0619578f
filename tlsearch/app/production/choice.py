"""Which trial goes into production, and why."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache

from tlsearch.app.catalog.catalog import SearchEntry, find
from tlsearch.app.catalog.stored import read_record
from tlsearch.app.checks.resolution import convincing_difference
from tlsearch.app.combined.ensemble_costs import Limits
from tlsearch.app.production.conclude import read_confirmed
from tlsearch.app.production.confirm import best_candidates
from tlsearch.config import SpaceFile
from tlsearch.core.errors import UserError
from tlsearch.core.text import command
from tlsearch.core.types import ModelSpec, SearchRecord, TrialConfig, TrialRecord
from tlsearch.model import describe_model
from tlsearch.results.combine.combination import Combination
from tlsearch.results.leaderboard.search_facts import measure_latency, this_cpu
from tlsearch.results.stats.verdict import Confirmed


@dataclass(frozen=True, kw_only=True)
class Choice:
    """A trial with the reason why it is the one.

    Attributes:
        entry: The search that the trial belongs to: the user's, or the one that repeated its best.
        latency: In words; empty where it was not measured.
        combination: The ensemble or soup that it is; then ``trial`` is the best single one of the search.
    """

    entry: SearchEntry
    trial: TrialRecord
    reason: str
    parameters: int
    latency: str = ""
    combination: Combination | None = None


class _Sizes:
    """Parameters and latency of models, each measured once: where the latency is an objective, by the search."""

    def __init__(self, entry: SearchEntry, file: SpaceFile, num_classes: int) -> None:
        self._data, self._num_classes = file.data, num_classes
        self._latency = cache(measure_latency)
        record = read_record(entry) if "latency_ms" in file.search.objectives else None
        measured = [one for one in record.trials if "latency_ms" in one.measured] if record else []
        self._by_search = {one.config.model: one.measured["latency_ms"] for one in measured}

    def parameters(self, config: TrialConfig) -> int:
        return describe_model(self._spec(config)).parameters

    def latency(self, config: TrialConfig) -> float:
        known = self._by_search.get(config.model)
        return self._latency(self._spec(config)) if known is None else known

    def latency_text(self, config: TrialConfig) -> str:
        where = "on the device of its trial" if config.model in self._by_search else this_cpu()
        return f"{self.latency(config):.1f} ms an image ({where}, batch of 1)"

    def within(self, config: TrialConfig, limits: Limits) -> bool:
        return limits.allow(lambda: self.parameters(config), lambda: self.latency(config))

    def _spec(self, config: TrialConfig) -> ModelSpec:
        return ModelSpec.of(config, self._data, self._num_classes)


def choose(
    entry: SearchEntry, file: SpaceFile, *, num_classes: int, trial: int | None, limits: Limits, num_val: int
) -> Choice:
    """The trial that was asked for; else of the confirmed one, then the others by rank, the first within the limits.

    Before the others comes the best solved head, where the best trial is not convincingly better on validation: what
    looks best of many trials on few images is mostly the luckiest.

    Args:
        num_val: Validation images.

    Raises:
        UserError: No such trial, none with a result, none within the limits, or the search has gone on since
            ``confirm`` and has another best trial.
    """
    sizes = _Sizes(entry, file, num_classes)
    for owner, record, reason in _candidates(entry, trial, num_val):
        config = record.config
        if not sizes.within(config, limits):
            if trial is not None:
                raise UserError(f"trial {trial} is not within the limits: {_sizes_text(sizes, config, limits)}")
            continue
        latency = ""
        if limits.latency_ms is not None:
            latency = sizes.latency_text(config)
        if limits.any and trial is None:
            reason = f"{reason} within the limits ({_sizes_text(sizes, config, limits)})"
        # with folds the epoch that counts is that at which all of them were read
        record = replace(record, best_epoch=record.model_epoch)
        return Choice(entry=owner, trial=record, reason=reason, parameters=sizes.parameters(config), latency=latency)
    raise UserError(_no_trial(entry, limits))


def _no_trial(entry: SearchEntry, limits: Limits) -> str:
    if limits.any:
        return f"no trial of {entry.search_id} with a result is within the limits: {limits.text}"
    return f"the search {entry.search_id} has no trial with a result yet"


def best_trial(entry: SearchEntry, file: SpaceFile, limits: Limits, *, num_classes: int) -> TrialRecord:
    """The search's best trial by validation within the limits.

    Raises:
        UserError: No trial with a result is within them.
    """
    sizes = _Sizes(entry, file, num_classes)
    found = next((one for one in read_record(entry).ranked if sizes.within(one.config, limits)), None)
    if found is None:
        raise UserError(_no_trial(entry, limits))
    return found


def _candidates(entry: SearchEntry, number: int | None, num_val: int) -> Iterator[tuple[SearchEntry, TrialRecord, str]]:
    record = read_record(entry)
    if number is not None:
        yield entry, record.trial_with_result(number), "asked for by its number"
        return
    confirmed = read_confirmed(entry)
    if confirmed is not None:
        _refuse_outdated(record, confirmed)
        yield _confirmed_winner(entry, confirmed)
    solved = solved_head(record, num_val)
    if solved is not None:
        yield entry, *solved
    for trial in best_candidates(record, len(record.trials)):
        yield entry, trial, f"the best by {record.metric} {_judged_on(trial, record.metric)}"


def _judged_on(trial: TrialRecord, metric: str) -> str:
    if not trial.folds:
        return "on validation"
    error = trial.reports[-1].metrics.get(f"{metric}_se")
    text = f"over {trial.epochs_run} of {trial.folds} folds of train and val: {trial.best_value:.4f}"
    return text if error is None else f"{text} with a standard error of {error:.4f}"


def solved_head(record: SearchRecord, num_val: int) -> tuple[TrialRecord, str] | None:
    """The trial with the best solved head, before a first step where it takes one, if no trial is convincingly better.

    Returns:
        None where one is, where no head was solved, and for metrics of which no chance is known.
    """
    best = record.best
    started = [t for t in best_candidates(record, len(record.trials), by_model=False) if t.start is not None]
    if best is None or best.best_value is None or not started or record.metric != "val_accuracy":
        return None
    values = {t.number: t.start.metrics[record.metric] for t in started if t.start is not None}
    first = min(started, key=lambda one: (-values[one.number], one.number))
    value, line = values[first.number], convincing_difference(num_val)
    if best.best_value - value >= line:
        return None
    when = "" if first.config.solved else " before the first step"
    reason = f"its solved head{when}, {record.metric} {value:.4f}"
    if best.best_value > value:
        reason += (
            f": on {num_val} validation images trial {best.number} with {best.best_value:.4f} is not convincingly "
            f"better (that takes {line:.2f})"
        )
    return replace(first, best_value=value, best_epoch=0), reason


def _refuse_outdated(record: SearchRecord, confirmed: Confirmed) -> None:
    """Refuses a recommendation from before the search went on to a better trial: the test split is looked at once."""
    best, search = record.best, record.search_id
    if best is None or best.ended is None or best.ended <= confirmed.ended:
        return
    raise UserError(
        f"`tlsearch confirm` has recommended trial {confirmed.recommended} of {search} before its best trial "
        f"{best.number} ended ({record.metric} {best.best_value:.4f}): {command('confirm', search)} repeats them "
        f"together, {command('promote', search, '--trial', str(confirmed.recommended))} takes the one that you name"
    )


def _confirmed_winner(entry: SearchEntry, confirmed: Confirmed) -> tuple[SearchEntry, TrialRecord, str]:
    winner = next(one for one in confirmed.candidates if one.trial == confirmed.recommended)
    owner = find(confirmed.confirm_search_id, entry.path.parent)
    trial = read_record(owner).trial(winner.best_trial)
    reason = f"the best training of the configuration that was confirmed: trial {winner.trial} of {entry.search_id}"
    return owner, trial, reason


def _sizes_text(sizes: _Sizes, config: TrialConfig, limits: Limits) -> str:
    parts = []
    if limits.parameters is not None:
        parts.append(f"{sizes.parameters(config):,} parameters, at most {limits.parameters:,}")
    if limits.latency_ms is not None:
        parts.append(f"{sizes.latency(config):.1f} ms an image, at most {limits.latency_ms:g}")
    return "; ".join(parts)

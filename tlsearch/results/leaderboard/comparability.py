"""Where the trials of a search cannot be compared as they stand: backbones that none ran to its end, unequal epochs."""

from __future__ import annotations

from collections.abc import Sequence

from tlsearch.core.text import plural
from tlsearch.core.types import EndReason, SearchRecord, TrialRecord, TrialState
from tlsearch.results.leaderboard.search_facts import SearchFacts


def comparability_notes(record: SearchRecord, facts: SearchFacts) -> list[str]:
    """Sentences about what a leaderboard compares though it should not, and what it leaves out."""
    notes = []
    tried = dict.fromkeys(trial.config.backbone for trial in record.trials)
    if len({*tried, *facts.backbones}) > 1:
        weak = [f"{name}: {text}" for name in tried if (text := _unfinished(_of(record, name)))]
        if weak:
            notes.append(
                "no trial of these backbones ran to its end, so that they are judged by less than others: "
                + "; ".join(weak)
            )
        missing = [name for name in facts.backbones if name not in tried]
        if missing:
            notes.append(f"never tried: {', '.join(missing)}")
    epochs = sorted({trial.epochs_run for trial in record.trials if _ended(trial) and trial.best_value is not None})
    if len(epochs) > 1:
        notes.append(
            f"trials ran for {epochs[0]} to {epochs[-1]} epochs: "
            "the value of one that was stopped is its best until then"
        )
    if record.space_tried:
        notes.append(
            f"the search ended with {plural(len(record.trials), 'trial')}: "
            "every configuration of its space has been tried"
        )
    return notes


def _of(record: SearchRecord, backbone: str) -> list[TrialRecord]:
    return [trial for trial in record.trials if trial.config.backbone == backbone]


def _ended(trial: TrialRecord) -> bool:
    return trial.state is not TrialState.RUNNING


def _unfinished(trials: Sequence[TrialRecord]) -> str:
    """What became of a backbone's trials where none of them ran to its end; empty where one did or still may."""
    if any(trial.state in (TrialState.COMPLETE, TrialState.RUNNING) for trial in trials):
        return ""
    stopped = [trial for trial in trials if trial.state is TrialState.PRUNED and trial.reason != EndReason.DIVERGED]
    text = plural(len(trials), "trial")
    if len(stopped) == len(trials):
        return f"{text}, {_all(len(trials))}stopped at {_epochs(stopped)}"
    counts = {
        "diverged": sum(trial.reason == EndReason.DIVERGED for trial in trials),
        "infeasible": sum(trial.state is TrialState.INFEASIBLE for trial in trials),
        "failed": sum(trial.state is TrialState.FAILED for trial in trials),
    }
    parts = [f"{count} {name}" for name, count in counts.items() if count]
    parts += [f"{len(stopped)} stopped at {_epochs(stopped)}"] if stopped else []
    return f"{text}, {', '.join(parts)}"


def _all(count: int) -> str:
    return {1: "", 2: "both "}.get(count, "all ")


def _epochs(trials: Sequence[TrialRecord]) -> str:
    epochs = sorted({trial.epochs_run for trial in trials})
    return f"epoch {epochs[0]}" if len(epochs) == 1 else f"epochs {epochs[0]} to {epochs[-1]}"

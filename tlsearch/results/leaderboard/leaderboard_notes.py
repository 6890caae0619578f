"""Sentences about a whole leaderboard: ties, what it compares though it should not, how far it can be trusted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tlsearch.core.metrics import is_share
from tlsearch.core.text import agree, plural
from tlsearch.core.types import EndReason, SearchRecord, TrialRecord, TrialState
from tlsearch.results.leaderboard.screen_notes import screen_sentences
from tlsearch.results.leaderboard.search_facts import SearchFacts, plateau_text

if TYPE_CHECKING:
    from tlsearch.results.leaderboard.leaderboard import LeaderboardRow


def leaderboard_notes(record: SearchRecord, rows: Sequence[LeaderboardRow], facts: SearchFacts) -> list[str]:
    """Sentences about a whole leaderboard: ties, and how far its first row can be trusted."""
    notes = []
    ranked = [row for row in rows if row.rank is not None]
    if not ranked:
        return ["no trial has a result", *comparability_notes(record, facts)]
    first = [row for row in ranked if row.rank == 1]
    if len(first) > 1:
        names = ", ".join(str(row.trial) for row in first)
        notes.append(
            f"tied for first with exactly the same {record.metric}: trials {names}; the earliest is listed first"
        )
    near = [row for row in ranked if row.within_one_se and row.rank != 1]
    if near:
        notes.append(
            f"{plural(len(near), 'more trial')} {agree(len(near), 'is', 'are')} within one standard error of the best "
            f"(~): {facts.num_validation} validation images cannot tell them apart"
        )
    if not is_share(record.metric) and not facts.folds:
        notes.append(
            f"no standard error: {record.metric} is not a fraction of the images, so its spread needs the predictions"
        )
    elif facts.num_validation is None:
        notes.append("no standard error: the number of validation images is not known")
    probes = probe_accuracies(record)
    if probes:
        listed = ", ".join(f"{model} {accuracy:.4f}" for model, accuracy in probes.items())
        notes.append(f"validation accuracy of the linear probe that heads start from, solved once: {listed}")
    if any(trial.best_epoch == 0 for trial in record.trials):
        notes.append("best epoch 0 is the solved head before the first step: no epoch was better")
    return notes + comparability_notes(record, facts)


def probe_accuracies(record: SearchRecord) -> dict[str, float]:
    """By model (a backbone, at an image size) the best validation accuracy of a probe that trials started from.

    The best is first. Trials of one model share one probe, but those with recalibrated batch norm have another.
    """
    found: dict[str, float] = {}
    for trial in record.trials:
        if trial.config.solved:
            continue
        if trial.start is not None:
            accuracy = trial.start.metrics.get("val_accuracy")
        else:  # searches of before the start was evaluated
            accuracy = trial.reports[0].metrics.get("probe_accuracy") if trial.reports else None
        if accuracy is not None:
            found[trial.config.model] = max(accuracy, found.get(trial.config.model, accuracy))
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def comparability_notes(record: SearchRecord, facts: SearchFacts) -> list[str]:
    """Sentences about what a leaderboard compares though it should not, and what it leaves out."""
    notes = [] if facts.screen is None else list(screen_sentences(facts.screen))
    tried = dict.fromkeys(trial.config.backbone for trial in record.trials)
    if len({*tried, *facts.backbones}) > 1:
        weak = [f"{name}: {text}" for name in tried if (text := _unfinished(_of(record, name)))]
        if weak:
            notes.append(
                "no trial of these backbones ran to its end, so that they are judged by less than others: "
                + "; ".join(weak)
            )
        pruned = () if facts.screen is None else facts.screen.pruned
        missing = [name for name in facts.backbones if name not in tried and name not in pruned]
        if missing:
            notes.append(f"never tried: {', '.join(missing)}")
    epochs = sorted({trial.epochs_run for trial in record.trials if _ended(trial) and trial.best_value is not None})
    folds = max((trial.folds for trial in record.trials), default=0)
    if folds:
        notes.append(f"a value is the mean over {folds} folds, of whole trainings that each hold out other images")
    if len(epochs) > 1 and folds:
        notes.append("trials that were stopped after fewer folds come after those that have seen all")
    elif len(epochs) > 1:
        notes.append(
            f"trials ran for {epochs[0]} to {epochs[-1]} epochs: "
            "the value of one that was stopped is its best until then"
        )
    if record.space_tried:
        notes.append(
            f"the search ended with {plural(len(record.trials), 'trial')}: "
            "every configuration of its space has been tried"
        )
    if record.plateau is not None:
        notes.append(f"the search {plateau_text(record, record.plateau)}")
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
    epochs, unit = (
        sorted({trial.epochs_run for trial in trials}),
        "fold" if any(one.folds for one in trials) else "epoch",
    )
    return f"{unit} {epochs[0]}" if len(epochs) == 1 else f"{unit}s {epochs[0]} to {epochs[-1]}"

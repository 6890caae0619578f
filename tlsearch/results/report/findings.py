"""Figures and sentences of a search: by backbone, by depth, and what is worth knowing first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tlsearch.core.text import agree, command, plural
from tlsearch.core.types import INTERRUPTED, Scalar, TrialRecord, TrialState
from tlsearch.results.leaderboard.leaderboard import LeaderboardRow, epoch_text
from tlsearch.results.leaderboard.leaderboard_notes import leaderboard_notes
from tlsearch.results.report.plots.view import View, is_number, value_of, varied_parameters


@dataclass(frozen=True, kw_only=True)
class GroupSummary:
    """The trials that share one value of something.

    Attributes:
        name: The value.
        trials: All of them, failed ones included.
        completed: Those that ran to their end.
        best: The leaderboard's row of the best one; None where no trial of the group counts.
        median: Of the best values of those that count.
        epochs: All epochs run.
        seconds: Time of all epochs.
    """

    name: str
    trials: int
    completed: int
    best: LeaderboardRow | None
    median: float | None
    epochs: int
    seconds: float


def by_backbone(view: View) -> list[GroupSummary]:
    """One summary for each backbone, the best first."""
    groups = _groups(view, lambda trial: trial.config.backbone)
    return sorted(groups, key=lambda group: _worth(view, group))


def by_depth(view: View) -> list[GroupSummary]:
    """One summary for each unfreeze depth, 0 first."""
    return sorted(_groups(view, lambda trial: str(trial.config.unfreeze_depth)), key=lambda group: int(group.name))


def by_image_size(view: View) -> list[GroupSummary]:
    """One summary for each image size, the smallest first; none where it is not searched."""
    if len({trial.config.image_size for trial in view.record.trials}) < 2:
        return []
    groups = _groups(view, lambda trial: str(trial.config.image_size or "the weights' own"))
    return sorted(groups, key=lambda group: int(group.name) if group.name.isdigit() else 0)


def _worth(view: View, group: GroupSummary) -> float:
    if group.best is None or group.best.best_value is None:
        return float("inf")
    return -view.record.objective.gain(group.best.best_value)


def _groups(view: View, key: Callable[[TrialRecord], str]) -> list[GroupSummary]:
    found: dict[str, list[TrialRecord]] = {}
    for trial in view.record.trials:
        found.setdefault(key(trial), []).append(trial)
    return [_summary(view, name, trials) for name, trials in found.items()]


def _summary(view: View, name: str, trials: Sequence[TrialRecord]) -> GroupSummary:
    numbers = {t.number for t in trials}
    counting = [t for t in view.counting if t.number in numbers]
    values = sorted(value_of(t) for t in counting)
    best = view.best_of(counting)
    return GroupSummary(
        name=name,
        trials=len(trials),
        completed=sum(t.state is TrialState.COMPLETE for t in trials),
        best=None if best is None else view.by_trial[best.number],
        median=values[len(values) // 2] if values else None,
        epochs=sum(len(t.reports) for t in trials),
        seconds=sum(sum(trial.epoch_seconds) for trial in trials),
    )


def shared_by_the_best(view: View, count: int = 5) -> list[tuple[str, str, str]]:
    """(parameter, the best trial's value, the values of the best ``count`` trials) for each varied parameter."""
    if view.best is None:
        return []
    trials, best = view.top(view.counting, count), view.texts(view.best.params)
    return [(name, best.get(name, "–"), _spread_text(view, trials, name)) for name in varied_parameters(view)]


def _spread_text(view: View, trials: Sequence[TrialRecord], name: str) -> str:
    """A range of numbers, or counts by value."""
    values, form = [trial.params[name] for trial in trials if name in trial.params], view.forms[name]
    if not values:
        return "inactive in all"
    if is_number(values) and len(set(values)) > 2:
        ordered = sorted(values, key=float)  # type: ignore[arg-type]
        text = f"{form.text(ordered[0])} to {form.text(ordered[-1])}"
    else:
        text = ", ".join(f"{form.text(value)} ({times})" for value, times in Counter(values).most_common())
    inactive = len(trials) - len(values)
    return f"{text}, inactive ({inactive})" if inactive else text


def findings(view: View) -> list[str]:
    """Sentences on what the search found and how far it can be trusted, the most important first."""
    if view.best is None:
        return ["No trial has a result yet." if _running(view) else "No trial has a result: see the failures below."]
    best = view.by_trial[view.best.number]
    sentences = [
        f"Trial {best.trial} is the best: {value_text(best)} {epoch_text(best.best_epoch, view.best.folds)}"
        + (f" of {view.facts.max_epochs}" if view.facts.max_epochs and best.best_epoch and not view.best.folds else "")
        + f", with {describe_params(view, _telling(view, best.params))}."
    ]
    gain = [] if view.gain is None else [view.gain.sentence]
    notes = (*gain, *leaderboard_notes(view.record, view.rows, view.facts))
    sentences += [f"{note[0].upper()}{note[1:]}." for note in notes]
    cheaper = cheaper_equal(view)
    if cheaper is not None and cheaper.parameters and best.parameters:
        backbone, instead = cheaper.params.get("backbone", "its backbone"), f"{best.parameters / 1e6:.1f}"
        sentences.append(
            f"Within one standard error of it, trial {cheaper.trial} ({backbone}) has {cheaper.parameters / 1e6:.1f} "
            f"million parameters instead of {instead}: {value_text(cheaper)}."
        )
    count = len(view.counting)
    if count > 1:
        sentences.append(
            f"The best of {count} trials was chosen on the images that it is scored on, so its value is optimistic: "
            "`tlsearch confirm` trains the candidates again, `tlsearch promote` scores the winner on the test split."
        )
    waiting = sum(trial.interrupted for trial in view.record.trials)
    if waiting:
        sentences.append(
            f"The search was interrupted with {plural(waiting, 'unfinished trial')}: "
            f"{command('resume', view.record.search_id)} goes on."
        )
    elif _running(view):
        sentences.append(
            f"The search goes on: {plural(_running(view), 'trial')} {agree(_running(view), 'was', 'were')} running "
            "when this page was made."
        )
    return sentences


def _telling(view: View, params: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """Backbone, depth and what the search has varied: the rest is the same for all."""
    names = {"backbone", "unfreeze_depth", *varied_parameters(view)}
    return {name: value for name, value in params.items() if name in names}


def cheaper_equal(view: View) -> LeaderboardRow | None:
    """The trial with the fewest parameters within one standard error of the best, if it has fewer."""
    ranked = [row for row in view.rows if row.rank is not None and row.parameters is not None]
    near = [row for row in ranked if row.within_one_se]
    best = next((row for row in ranked if view.best is not None and row.trial == view.best.number), None)
    if not near or best is None or best.parameters is None:
        return None
    smallest = min(near, key=lambda row: (row.parameters or 0, row.rank or 0, row.trial))
    return smallest if (smallest.parameters or 0) < 0.9 * best.parameters else None


def value_text(row: LeaderboardRow) -> str:
    """``0.7098 ± 0.0243``, with the standard error where it is known."""
    if row.best_value is None:
        return "–"
    error = f" ± {row.standard_error:.4f}" if row.standard_error is not None else ""
    return f"{row.best_value:.4f}{error}"


def describe_params(view: View, params: Mapping[str, Scalar]) -> str:
    """``backbone resnet18, unfreeze_depth 2, head_lr 1.0e-03``."""
    return ", ".join(f"{name} {text}" for name, text in view.texts(params).items())


def states_text(view: View) -> str:
    """``13 complete, 10 pruned, 1 failed``."""
    states = Counter(trial.state_name for trial in view.record.trials)
    names = (INTERRUPTED, *(state.value for state in TrialState))
    return ", ".join(f"{states[name]} {name}" for name in names if states[name])


def _running(view: View) -> int:
    return sum(trial.state is TrialState.RUNNING for trial in view.record.trials)

"""How a trial that is trained again is shown: a line an epoch, then where it differs from what is stored."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from tlsearch.app.searches.rerun import Deviation, Rerun
from tlsearch.core.text import plural
from tlsearch.core.types import Decision, EpochReport

_MAX_SHOWN = 10


class EpochLines:
    """A Reporter that prints each epoch."""

    def __init__(self, console: Console, *, metric: str) -> None:
        self._console, self._metric = console, metric

    def report(self, report: EpochReport) -> Decision:
        """Prints one line."""
        text = f"epoch {report.epoch}: {self._metric} {report.metrics[self._metric]:.4f}"
        self._console.print(text, markup=False, highlight=False)
        return Decision.CONTINUE


def rerun_lines(done: Rerun) -> list[str]:
    """What the comparison has found."""
    trial, lines = done.trial, []
    if done.equal:
        epochs = plural(done.num_epochs, "epoch")
        lines.append(f"trial {trial.number} repeats its {epochs} to the bit (seed {trial.seed})")
    else:
        first = done.deviations[0]
        lines.append(
            f"trial {trial.number} differs from epoch {first.epoch} on, in {plural(len(done.deviations), 'figure')}:"
        )
        lines += [f"  {_deviation(one)}" for one in done.deviations[:_MAX_SHOWN]]
    if trial.error or done.outcome.error:
        lines += [f"it ended then: {_last(trial.error)}", f"and now: {_last(done.outcome.error)}"]
    lines += [f"{name} was {then} and is {now}" for name, (then, now) in done.versions.items()]
    return lines


def _deviation(one: Deviation) -> str:
    return f"epoch {one.epoch}, {one.metric}: {one.stored!r} then, {one.now!r} now"


def _last(lines: str) -> Sequence[str]:
    return lines.strip().splitlines()[-1] if lines.strip() else "without an error"

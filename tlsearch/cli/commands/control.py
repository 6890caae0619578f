"""``status``, ``stop``, ``sync`` and ``rerun``: a search seen, ended, sent again, and a trial of it repeated."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlsearch.cli.commands.cluster import Cluster, flags, relay
from tlsearch.cli.root import Json, Search, Storage, app
from tlsearch.cli.session import EXIT_FAILED, err, out, print_json, shown_errors
from tlsearch.core.text import agree, command, last_line, plural
from tlsearch.core.types import Decision, EpochReport

if TYPE_CHECKING:
    from rich.console import Console

    from tlsearch.app.searches.rerun import Deviation, Rerun

_MAX_DEVIATIONS = 10  # of a rerun


@app.command()
def status(search: Search = None, storage: Storage = None, address: Cluster = None, json: Json = False) -> None:
    """Show what a search is doing: its trials, and the best so far."""
    with shown_errors(as_json=json):
        from tlsearch.app.cluster.relay import locate
        from tlsearch.app.cluster.submit import Submitted
        from tlsearch.app.views.status import overview
        from tlsearch.cli.tables.status_table import running_table, status_lines

        entry = locate(search, storage, address)
        if isinstance(entry, Submitted):
            relay(entry, "status", [], as_json=json)
            return
        seen = overview(entry)
        if json:
            print_json(seen.as_json())
            return
        for line in status_lines(seen):
            out.print(line)
        if seen.unfinished:
            out.print(running_table(seen))


@app.command()
def stop(
    search: Search = None,
    storage: Storage = None,
    timeout: Annotated[float, typer.Option(min=0, help="Longest time to wait for its end, in seconds.")] = 60.0,
    address: Cluster = None,
    json: Json = False,
) -> None:
    """Stop a running search from another terminal. It can be resumed."""
    with shown_errors(as_json=json):
        from tlsearch.app.cluster.relay import locate
        from tlsearch.app.cluster.submit import Submitted
        from tlsearch.app.views.status import stop_search

        entry = locate(search, storage, address)
        if isinstance(entry, Submitted):
            relay(entry, "stop", flags(timeout=timeout), as_json=json, timeout_s=timeout)
            return
        answer = stop_search(entry, timeout_s=timeout)
    name = entry.search_id
    if json:
        print_json({"search_id": name, "was_running": answer.holder is not None, "stopped": answer.stopped})
    elif answer.holder is None:
        out.print(f"the search {name} is not running")
    elif answer.stopped:
        out.print(f"the search {name} has stopped; go on with {command('resume', name)}")
    if not answer.stopped:
        text = f"the search {name} was asked to stop, but still runs after {timeout:g} s: {answer.holder}"
        err.print(text)
        raise typer.Exit(EXIT_FAILED)


@app.command()
def sync(search: Search = None, storage: Storage = None, json: Json = False) -> None:
    """Send a search's records to MLflow again.

    For example after MLflow was away. Sending twice changes nothing.
    """
    with shown_errors(as_json=json):
        from tlsearch.app.catalog.catalog import find
        from tlsearch.app.searches.sync import sync_search

        end = sync_search(find(search, storage))
    content = {
        "search_id": end.entry.search_id,
        "trials": end.num_trials,
        "runs": len(end.run_ids),
        "unsent": end.unsent,
    }
    if json:
        print_json(content)
    else:
        trials = f"{plural(end.num_trials, 'trial')} of {end.entry.search_id} {agree(end.num_trials, 'is', 'are')}"
        text = f"{trials} in {plural(len(end.run_ids), 'MLflow run')}"
        out.print(text)
    if end.unsent:
        err.print(f"{plural(end.unsent, 'record')} could not be sent")
        raise typer.Exit(EXIT_FAILED)


@app.command()
def rerun(
    trial: Annotated[int, typer.Option(min=0, help="Number of the trial.")],
    search: Search = None,
    to: Annotated[Path | None, typer.Option(help="Keep the trial's checkpoints in this folder.")] = None,
    storage: Storage = None,
    json: Json = False,
) -> None:
    """Train one trial again, and compare it with what was recorded.

    It runs alone, without Ray. The search stays as it is.
    """
    with shown_errors(as_json=json):
        from tlsearch.app.catalog.catalog import find
        from tlsearch.app.searches.rerun import rerun_trial

        entry = find(search, storage)
        lines = _EpochLines(err if json else out, metric=entry.metric)
        done = rerun_trial(entry, trial, reporter=lines, directory=to)
    if json:
        print_json(done.as_json())
    else:
        for line in _rerun_lines(done):
            out.print(line)
    if not done.equal:
        raise typer.Exit(EXIT_FAILED)


class _EpochLines:
    """A Reporter that prints each epoch."""

    def __init__(self, console: Console, *, metric: str) -> None:
        self._console, self._metric = console, metric

    def report(self, report: EpochReport) -> Decision:
        """Prints one line."""
        text = f"epoch {report.epoch}: {self._metric} {report.metrics[self._metric]:.4f}"
        self._console.print(text)
        return Decision.CONTINUE


def _rerun_lines(done: Rerun) -> list[str]:
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
        lines += [f"  {_deviation(one)}" for one in done.deviations[:_MAX_DEVIATIONS]]
        if done.may_differ:
            lines.append("a trial on a GPU repeats to the bit only with `resources: {deterministic: true}`")
    ends = {"it ended then": trial.error, "and now": done.outcome.error}
    if any(ends.values()):
        lines += [f"{when}: {last_line(error, 'without an error')}" for when, error in ends.items()]
    lines += [f"{name} was {then} and is {now}" for name, (then, now) in done.versions.items()]
    return lines


def _deviation(one: Deviation) -> str:
    return f"epoch {one.epoch}, {one.metric}: {one.stored!r} then, {one.now!r} now"
